"""A migrated, empty database on each engine. Migrations run once per session; `test_migrate.py` is about running them."""

from collections.abc import Iterator

import pytest
from sqlalchemy import text

from db.models import Base
from db.session import Database
from tests.integration.db.builders import register
from tests.services.templates import Templates

#: A TRUNCATE of all tables makes hundreds of files anew; most tests write to a few tables. As a replica, no trigger refuses and no reference is followed.
_EMPTY = """
SET LOCAL session_replication_role = replica;
DO $$
DECLARE
    one text;
BEGIN
    FOREACH one IN ARRAY :tables LOOP
        EXECUTE format('DELETE FROM %I', one);
    END LOOP;
    PERFORM setval(format('%I.%I', schemaname, sequencename)::regclass, start_value, false)
    FROM pg_sequences WHERE last_value IS NOT NULL AND schemaname = current_schema();
END $$
"""


@pytest.fixture(scope="session")
def _shared_postgres_url(templates: Templates) -> Iterator[str]:
    url = templates.copy_postgres()
    yield url
    templates.drop_postgres(url)


@pytest.fixture
def sqlite_copy(migrated_sqlite_url: str) -> str:
    """URL of an empty SQLite database, for tests of what SQLite alone does."""
    return migrated_sqlite_url


@pytest.fixture
def lite(sqlite_copy: str) -> Iterator[Database]:
    """A database for tests of what is the same on both engines."""
    database = Database(sqlite_copy)
    yield database
    database.dispose()


@pytest.fixture
def _emptied_postgres_url(_shared_postgres_url: str) -> str:
    database = Database(_shared_postgres_url)
    with database.writing() as session:
        session.execute(text(_EMPTY.replace(":tables", f"ARRAY{list(Base.metadata.tables)}")))
    database.dispose()
    return _shared_postgres_url


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def migrated_url(request: pytest.FixtureRequest) -> str:
    """URL of an empty database with this release's schema."""
    url: str = request.getfixturevalue(
        "sqlite_copy" if request.param == "sqlite" else "_emptied_postgres_url"
    )
    return url


@pytest.fixture
def db(migrated_url: str) -> Iterator[Database]:
    """An empty database with this release's schema."""
    database = Database(migrated_url)
    yield database
    database.dispose()


@pytest.fixture
def own_url(request: pytest.FixtureRequest, migrated_url: str) -> str:
    """URL of a database with this release's schema that the test may spoil."""
    if migrated_url.startswith("sqlite"):
        return migrated_url
    url: str = request.getfixturevalue("migrated_postgres_url")
    return url


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


@pytest.fixture
def lite_bundle(lite: Database) -> int:
    """As `bundle_id`."""
    return register(lite)
