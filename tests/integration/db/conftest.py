"""A migrated, empty database on each engine. Migrations run once per session; `test_migrate.py` is about running them."""

import shutil
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import text

from db import migrate
from db.models import Base
from db.session import Database
from tests.integration.db.builders import register
from tests.services.postgres import PostgresServer

_own_numbers = count(1)


@pytest.fixture(scope="session")
def _migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("migrated") / "wherefrom.db"
    migrate.upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def _migrated_postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    postgres_server.create_database("migrated")
    url = postgres_server.url("migrated")
    migrate.upgrade(url)
    yield url
    postgres_server.drop_database("migrated")


@pytest.fixture
def _empty_sqlite_url(_migrated_file: Path, tmp_path: Path) -> str:
    return f"sqlite:///{shutil.copy(_migrated_file, tmp_path / 'empty.db')}"


@pytest.fixture
def sqlite_copy(_empty_sqlite_url: str) -> str:
    """URL of an empty SQLite database, for tests of what SQLite alone does."""
    return _empty_sqlite_url


@pytest.fixture
def _empty_postgres_url(_migrated_postgres_url: str) -> str:
    database = Database(_migrated_postgres_url)
    with database.writing() as session:
        session.execute(text(f"TRUNCATE {', '.join(Base.metadata.tables)} RESTART IDENTITY"))
    database.dispose()
    return _migrated_postgres_url


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def migrated_url(request: pytest.FixtureRequest) -> str:
    """URL of an empty database with this release's schema."""
    url: str = request.getfixturevalue(f"_empty_{request.param}_url")
    return url


@pytest.fixture
def db(migrated_url: str) -> Iterator[Database]:
    """An empty database with this release's schema."""
    database = Database(migrated_url)
    yield database
    database.dispose()


@pytest.fixture
def own_url(request: pytest.FixtureRequest, migrated_url: str) -> Iterator[str]:
    """URL of a database with this release's schema that the test may spoil."""
    if migrated_url.startswith("sqlite"):
        yield migrated_url
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    name = f"own_{next(_own_numbers)}"
    server.create_database(name, template="migrated")
    yield server.url(name)
    server.drop_database(name)


@pytest.fixture
def own(own_url: str) -> Iterator[Database]:
    """A database that the test may spoil."""
    database = Database(own_url)
    yield database
    database.dispose()


@pytest.fixture
def bundle_id(db: Database) -> int:
    """The active bundle of the model that the builders name, with five stored examples."""
    return register(db)
