"""The schema: migrations, models and views agree on both engines."""

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect, text
from sqlalchemy.exc import DBAPIError

from db import migrate
from db.access import people
from db.migrate import Standing
from db.models import ENGINE_OWN, Base
from db.reviewing import reviews
from db.session import Database
from db.sql_views.views import VIEWS
from tests.integration.db.builders import accept, answered, at_once, record, register
from wherefrom.errors import DatabaseUnavailable, SchemaTooNew
from wherefrom.records import ReviewDraft, Via


@pytest.fixture
def database(own: Database) -> Database:
    """A database of its own, with this release's schema."""
    return own


def _schema(database: Database) -> tuple[set[str], set[str]]:
    with database.reading() as session:
        inspector = inspect(session.connection())
        return set(inspector.get_table_names()), set(inspector.get_view_names())


def _is_modelled(_: object, name: str | None, *__: object) -> bool:
    """Not a part of a text index that only one engine has."""
    return name not in ENGINE_OWN


def test_migrations_build_what_the_models_say(db: Database) -> None:
    """After `upgrade`, autogenerate finds nothing to change."""
    with db.reading() as session:
        context = MigrationContext.configure(
            session.connection(), opts={"compare_type": True, "include_object": _is_modelled}
        )
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
    """A new database is behind; after `upgrade` it is current, also when upgraded again."""
    found = migrate.schema_of(database_url)
    assert (found.current, found.standing, found.is_usable) == (None, Standing.BEHIND, False)
    assert migrate.upgrade(database_url).standing is Standing.CURRENT
    assert migrate.upgrade(database_url) == migrate.schema_of(database_url)


def test_upgrade_from_several_processes_at_once(database_url: str) -> None:
    """Services that start together may all migrate."""
    at_once([lambda: migrate.upgrade(database_url)] * 3)
    assert migrate.schema_of(database_url).standing is Standing.CURRENT


def _made_by_a_newer_release(database: Database, *, compatible_from: str | None) -> None:
    """The database as a release leaves it that this one does not know."""
    with database.writing() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        if compatible_from is not None:
            declare = text("UPDATE schema_release SET revision = '9999', compatible_from = :oldest")
            session.execute(declare, {"oldest": compatible_from})


def test_a_newer_schema_that_is_declared_compatible_is_usable(database: Database, own_url: str) -> None:
    """A release that knows the declared revision works on, and its `migrate` changes nothing and says so."""
    _made_by_a_newer_release(database, compatible_from=migrate.schema_of(own_url).head)
    found = migrate.upgrade(own_url)
    assert (found.standing, found.current, found.is_usable) == (Standing.AHEAD, "9999", True)
    assert "declared compatible" in found.text
    assert accept(database, record())


@pytest.mark.parametrize("oldest", [None, "9998"])
def test_a_newer_schema_that_is_not_declared_compatible_is_refused(
    database: Database, own_url: str, oldest: str | None
) -> None:
    """Not declared at all, or declared for releases newer than this one: one line that says what to do, and no change."""
    _made_by_a_newer_release(database, compatible_from=oldest)
    assert not migrate.schema_of(own_url).is_usable
    with pytest.raises(SchemaTooNew, match="run the newer release"):
        migrate.upgrade(own_url)
    assert migrate.schema_of(own_url).current == "9999"


def test_every_upgrade_declares_with_whom_it_works(database: Database, own_url: str) -> None:
    """The declared release is one of ours, and the row tells of the newest revision."""
    with database.reading() as session:
        [row] = session.execute(text("SELECT revision, compatible_from FROM schema_release")).all()
    assert row.revision == migrate.schema_of(own_url).head
    assert row.compatible_from == migrate.COMPATIBLE_FROM
    revisions = {path.name[:4] for path in (migrate.MIGRATIONS / "versions").glob("*.py")}
    assert migrate.COMPATIBLE_FROM in revisions


def test_upgrade_restores_a_missing_view(database: Database, own_url: str) -> None:
    """A view that somebody dropped comes back with the next `upgrade`."""
    with database.writing() as session:
        session.execute(text("DROP VIEW v_sources"))
    migrate.upgrade(own_url)
    assert set(VIEWS) <= _schema(database)[1]


def test_downgrade_leaves_nothing_and_upgrade_works_again(database: Database, own_url: str) -> None:
    """With data in it, the schema goes down to nothing and up again."""
    answered(database, register(database), record())
    migrate.downgrade(own_url, "base")
    assert _schema(database) == ({"alembic_version"}, set())
    migrate.upgrade(own_url)
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
    with db.reading() as session:
        column = next(iter(session.execute(text(f"SELECT * FROM {view}")).keys()))
    with pytest.raises((DBAPIError, DatabaseUnavailable)), db.writing() as session:
        session.execute(text(f"UPDATE {view} SET {column} = 'x'"))


@pytest.mark.parametrize("revision", ["0001", "0003"])
def test_views_of_the_users_own_survive_a_migration(database: Database, own_url: str, revision: str) -> None:
    """Down and up again: a view that reads ours is there all the time, and reads rows at each step."""
    answered(database, register(database), record())
    report = "CREATE VIEW my_report AS SELECT severity, count(*) AS audits FROM v_audits GROUP BY severity"
    read = text("SELECT audits FROM my_report")
    with database.writing() as session:
        session.execute(text(report))
    for step in (lambda: migrate.downgrade(own_url, revision), lambda: migrate.upgrade(own_url)):
        step()
        with database.reading() as session:
            assert session.scalar(read) == 1
            assert session.execute(text("SELECT * FROM v_citations")).all()


def test_views_have_null_for_what_an_older_schema_lacks(database: Database, own_url: str) -> None:
    """After a downgrade the views still have all their columns."""
    answered(database, register(database), record())
    with database.reading() as session:
        columns = list(session.execute(text("SELECT * FROM v_citations")).keys())
    migrate.downgrade(own_url, "0003")
    with database.reading() as session:
        rows = session.execute(text("SELECT * FROM v_citations")).mappings().all()
    assert list(rows[0]) == columns
    assert {row["encoder_score"] for row in rows} == {None}


@pytest.mark.postgres
def test_grants_survive_a_migration(migrated_postgres_url: str) -> None:
    """A role that was allowed to read the views may read them after every step, without a new GRANT."""
    database = Database(migrated_postgres_url)
    role = f"bi_{migrated_postgres_url.rsplit('/', 1)[1]}"
    with database.writing() as session:
        session.execute(text(f"CREATE ROLE {role}"))
        session.execute(text(f"GRANT SELECT ON {', '.join(VIEWS)} TO {role}"))
    allowed = text("SELECT has_table_privilege(:role, :view, 'select')")
    for step in (
        lambda: migrate.downgrade(migrated_postgres_url, "0002"),
        lambda: migrate.upgrade(migrated_postgres_url),
    ):
        step()
        with database.reading() as session:
            assert all(session.scalar(allowed, {"role": role, "view": view}) for view in VIEWS)
    with database.writing() as session:
        session.execute(text(f"DROP OWNED BY {role}"))
        session.execute(text(f"DROP ROLE {role}"))
    database.dispose()


def test_a_view_of_an_older_release_gains_columns_behind_its_own(database: Database, own_url: str) -> None:
    """A database whose view has other columns keeps their order on PostgreSQL, so that it can be replaced."""
    answered(database, register(database), record())
    migrate.downgrade(own_url, "-1")
    with database.writing() as session:
        session.execute(text("DROP VIEW v_sources"))
        session.execute(text("CREATE VIEW v_sources AS SELECT 'x' AS gone, source FROM training_example"))
    migrate.upgrade(own_url)
    with database.reading() as session:
        rows = session.execute(text("SELECT * FROM v_sources")).mappings().all()
    assert rows[0]["citations"] is not None
    if database.dialect == "postgresql":
        assert list(rows[0])[:2] == ["gone", "source"]


def test_reviews_survive_the_way_down_and_up(database: Database, own_url: str) -> None:
    """What the older release has a word for is kept; a view that it lacks the tables of is empty."""
    [audit_id] = answered(database, register(database), record())
    by = reviews.Reviewer(people.choose_local(database, "ann").ref, Via.LOCAL)
    for verdict in ("plausible", "unrelated"):
        reviews.judge(database, audit_id, ReviewDraft(verdict=verdict, rank=1), by=by)
    newest = reviews.reviews_of(database, audit_id)[-1]
    reviews.undo(database, newest.review_id, by=by)
    migrate.downgrade(own_url, "0011")
    with database.reading() as session:
        assert session.execute(text("SELECT rank, verdict, reviewer FROM review")).all() == [
            (1, "unclear", "ann")
        ]
        assert session.execute(text("SELECT * FROM v_reviews")).all() == []
    migrate.upgrade(own_url)
    with database.reading() as session:
        rows = session.execute(text("SELECT verdict, reviewer, stands FROM v_reviews")).all()
    assert rows == [("second_look", "ann", 1)]
