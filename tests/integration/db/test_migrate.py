"""The schema: migrations, models and views agree on both engines."""

from collections.abc import Iterator

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect, text
from sqlalchemy.exc import DBAPIError

from db import migrate
from db.models import Base
from db.session import Database
from db.views import VIEWS
from tests.integration.db.builders import accept, answered, at_once, record, register
from wherefrom.errors import DatabaseUnavailable


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A database of its own, migrated for this test."""
    migrate.upgrade(database_url)
    made = Database(database_url)
    yield made
    made.dispose()


def _schema(database: Database) -> tuple[set[str], set[str]]:
    with database.reading() as session:
        inspector = inspect(session.connection())
        return set(inspector.get_table_names()), set(inspector.get_view_names())


def test_migrations_build_what_the_models_say(db: Database) -> None:
    """After `upgrade`, autogenerate finds nothing to change."""
    with db.reading() as session:
        context = MigrationContext.configure(session.connection(), opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_checks_have_the_names_of_the_models(db: Database) -> None:
    """Autogenerate does not look at CHECKs, so their names are compared here."""
    with db.reading() as session:
        inspector = inspect(session.connection())
        for table in Base.metadata.sorted_tables:
            wanted = {
                one.name for one in table.constraints if one.__visit_name__.endswith("check_constraint")
            }
            assert {one["name"] for one in inspector.get_check_constraints(table.name)} == wanted


def test_upgrade_tells_revision_and_is_repeatable(database_url: str) -> None:
    """A new database has no revision; after `upgrade` it has the head, also when upgraded again."""
    current, head = migrate.current_and_head(database_url)
    assert current is None
    migrate.upgrade(database_url)
    migrate.upgrade(database_url)
    assert migrate.current_and_head(database_url) == (head, head)


def test_upgrade_from_several_processes_at_once(database_url: str) -> None:
    """Services that start together may all migrate."""
    at_once([lambda: migrate.upgrade(database_url)] * 3)
    current, head = migrate.current_and_head(database_url)
    assert current == head


def test_upgrade_restores_a_missing_view(database: Database, database_url: str) -> None:
    """A view that somebody dropped comes back with the next `upgrade`."""
    with database.writing() as session:
        session.execute(text("DROP VIEW v_sources"))
    migrate.upgrade(database_url)
    assert set(VIEWS) <= _schema(database)[1]


def test_downgrade_leaves_nothing_and_upgrade_works_again(database: Database, database_url: str) -> None:
    """With data in it, the schema goes down to nothing and up again."""
    answered(database, register(database), record())
    migrate.downgrade(database_url, "base")
    assert _schema(database) == ({"alembic_version"}, set())
    migrate.upgrade(database_url)
    tables, views = _schema(database)
    assert set(Base.metadata.tables) <= tables
    assert set(VIEWS) == views


def test_missing_tables_are_told_with_the_command_that_makes_them(database_url: str) -> None:
    """A database that was never migrated is unavailable, not a bug."""
    database = Database(database_url)
    with pytest.raises(DatabaseUnavailable, match="python -m worker migrate"):
        accept(database, record())
    database.dispose()


@pytest.mark.parametrize("view", sorted(VIEWS))
def test_views_cannot_be_written(db: Database, view: str) -> None:
    """The views are for reading: both engines refuse an UPDATE."""
    column = "source" if view != "v_audits" else "model"
    with pytest.raises((DBAPIError, DatabaseUnavailable)), db.writing() as session:
        session.execute(text(f"UPDATE {view} SET {column} = 'x'"))
