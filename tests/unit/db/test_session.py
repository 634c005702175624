"""Database URLs: which are taken, what of them is shown."""

from pathlib import Path

import pytest
from sqlalchemy import text

from db.session import Database, mask_url, parse_url
from wherefrom.errors import ConfigurationError, DatabaseUnavailable


@pytest.mark.parametrize(
    "url",
    [
        "",
        "nonsense",
        "mysql://localhost/x",
        "sqlite://",
        "sqlite:///:memory:",
        "postgresql+asyncpg://localhost/x",
    ],
)
def test_unusable_urls_are_refused(url: str) -> None:
    """Before anything connects, with a text that says what to write."""
    with pytest.raises(ConfigurationError, match="sqlite"):
        parse_url(url)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_postgresql_gets_the_tested_driver(scheme: str) -> None:
    """Whatever spelling a platform hands out."""
    assert parse_url(f"{scheme}://localhost/x").drivername == "postgresql+psycopg"


@pytest.mark.parametrize(
    "url", ["postgresql://me:s3cret@host/x", "postgresql://host/x?user=me&password=s3cret"]
)
def test_passwords_are_masked(url: str) -> None:
    """In both places where a password may stand."""
    assert "s3cret" not in mask_url(parse_url(url))


def test_the_folder_of_a_file_is_made(tmp_path: Path) -> None:
    """A first start needs no mkdir."""
    database = Database(f"sqlite:///{tmp_path}/a/b/x.db")
    database.ping()
    database.dispose()
    assert (tmp_path / "a/b/x.db").is_file()


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """A file stands in the way."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"file/x\.db"):
        Database(f"sqlite:///{tmp_path}/file/x.db")


@pytest.mark.parametrize("content", ["folder", "damaged"])
def test_a_file_that_cannot_be_read_is_unavailable(tmp_path: Path, content: str) -> None:
    """A folder in the place of the file, or a file that is no database."""
    path = tmp_path / "x.db"
    if content == "folder":
        path.mkdir()
    else:
        path.write_bytes(b"this is no database, it only has the name of one" * 100)
    database = Database(f"sqlite:///{path}")
    with pytest.raises(DatabaseUnavailable, match=r"x\.db"):
        database.ping()
    database.dispose()


def test_sqlite_is_set_up_for_many_processes(tmp_path: Path) -> None:
    """WAL, foreign keys, a wait for locks; the reader refuses to write."""
    database = Database(f"sqlite:///{tmp_path}/x.db")
    pragmas = {
        "journal_mode": "wal",
        "foreign_keys": 1,
        "synchronous": 2,
        "busy_timeout": 10_000,
        "query_only": 0,
    }
    with database.writing() as session:
        assert {name: session.scalar(text(f"PRAGMA {name}")) for name in pragmas} == pragmas
    with database.reading() as session:
        assert session.scalar(text("PRAGMA query_only")) == 1
    database.dispose()
