"""What the roles of PostgreSQL may do, tried on a real server: the writer writes, the ingest role adds, the auditor reads views."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url
from structlog.testing import capture_logs

from db import roles
from db.access import keys
from db.audit_trail.trail_chain import seal
from db.dump import dump_database
from db.erasure import cleaning
from db.queues.audit_queue import AuditQueue
from db.roles import AUDITOR, INGEST, OWNER, ROLES, WRITER
from db.session import Database
from db.sql_views.views import VIEWS
from db.storing import intake
from tests.integration.db.builders import record
from tests.services.postgres import PostgresServer
from tests.services.templates import Templates

pytestmark = pytest.mark.postgres

Refused = psycopg.errors.InsufficientPrivilege


class As:
    """One database as each of the roles sees it."""

    def __init__(self, url: str) -> None:
        self.url = url

    def run(self, role: str | None, *statements: str) -> list[Any]:
        """Run statements as a role, in one transaction; the rows of the last one."""
        given = make_url(self.url).set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(given) as connection:
            if role is not None:
                connection.execute(f"SET ROLE {role}")
            for statement in statements:
                found = connection.execute(statement)
            return found.fetchall() if found.description else []

    def database(self, role: str) -> Database:
        """The product's own access as a role."""
        return Database(f"{self.url}?options=-c%20role%3D{role}")


@pytest.fixture(scope="module")
def server(templates: Templates, postgres_server: PostgresServer) -> Iterator[As]:
    """A database with the roles; an output and a key are in it. The script is run twice."""
    url = templates.copy_postgres()
    found = As(url)
    opened = Database(url)
    intake.accept(opened, [record(1)], producer="shop", channel="http")
    keys.create_key(opened, "shop", ["ingest"])
    opened.dispose()
    for _ in range(2):
        found.run(None, roles.roles_sql())
    yield found
    found.run(None, *(f"DROP OWNED BY {role} CASCADE" for role in ROLES))
    templates.drop_postgres(url)
    with psycopg.connect(
        host="127.0.0.1", port=postgres_server.port, user="postgres", autocommit=True
    ) as all_of_them:
        for role in ROLES:
            all_of_them.execute(f"DROP ROLE {role}")


def test_every_table_has_an_owner_and_is_granted_by_rule(server: As) -> None:
    """Tables of the server, not of the models: one that a migration makes beside them is found."""
    owners = "SELECT c.relname, pg_get_userbyid(c.relowner) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'public' AND c.relkind IN ('r', 'v', 'p')"
    assert dict(server.run(None, owners)) == dict.fromkeys((*roles.tables(), *VIEWS), OWNER)
    granted = (
        "SELECT table_name, privilege_type FROM information_schema.role_table_grants WHERE grantee = '{}'"
    )
    writes = {name for name, right in server.run(None, granted.format(WRITER)) if right == "INSERT"}
    assert writes == set(roles.tables()) - {"alembic_version", "schema_release"}
    assert set(server.run(None, granted.format(AUDITOR))) == {(view, "SELECT") for view in VIEWS}


def test_the_writer_writes_everything_but_the_schema_and_the_trail(server: As) -> None:
    """The service runs as the writer; what was is out of its reach."""
    database = server.database(WRITER)
    [result] = intake.accept(database, [record(2)], producer="shop", channel="http")
    assert result.status == "accepted"
    assert AuditQueue(database).claim(1, limit=5, owner="w", lease_s=60) is None
    assert seal(database, owner="w").sealed > 0
    database.dispose()
    for statement in (
        "DROP TABLE audit", "ALTER TABLE audit ADD COLUMN x int", "CREATE TABLE mine (x int)", "TRUNCATE audit", "CREATE VIEW mine AS SELECT 1",
        "ALTER TABLE trail_event DISABLE TRIGGER ALL", "DROP TRIGGER trail_event_no_update ON trail_event", "DELETE FROM trail_event", "TRUNCATE trail_event",
        "UPDATE trail_event SET payload = '{}'", "UPDATE trail_event SET actor = 'nobody'", "UPDATE trail_event SET kind = 'x'",
        "UPDATE schema_release SET revision = 'x'", "DELETE FROM alembic_version", "CREATE ROLE other", "SET ROLE wherefrom_owner; SET session_replication_role = replica",
    ):  # fmt: skip
        with pytest.raises(Refused):
            server.run(WRITER, statement)
    with pytest.raises(psycopg.errors.RaiseException, match="append-only"):
        server.run(WRITER, "UPDATE trail_event SET sequence = 99, prev_hash = 'x', row_hash = 'x'")


@pytest.mark.usefixtures("postgres_programs")
def test_a_backup_and_a_migration_have_what_they_need(server: As, tmp_path: Path) -> None:
    """`pg_dump` as the writer, by an address with a space in it; the owner may replace what the triggers of the trail run."""
    assert dump_database(f"{server.url}?options=-c%20role%3D{WRITER}", tmp_path).stat().st_size > 10_000
    owned = f"SELECT pg_get_userbyid(proowner) FROM pg_proc WHERE proname = '{roles.TRAIL_RULE}'"
    assert server.run(None, owned) == [(OWNER,)]


def test_the_ingest_role_adds_outputs_and_reads_no_text(server: As) -> None:
    """The same record again is the same output; nothing that is stored goes out, changes or goes away."""
    database = server.database(INGEST)
    for status in ("accepted", "duplicate"):
        [result] = intake.accept(database, [record(3)], producer="shop", channel="stream")
        assert result.status == status
    intake.check_writable(database)
    intake.active_bundle_ids(database, {"m"})
    database.dispose()
    for statement in (
        "SELECT completion FROM flagged_text", "SELECT * FROM flagged_output", "SELECT key FROM item_key", "SELECT key_sha256 FROM api_key",
        "SELECT prompt FROM training_example", "SELECT * FROM v_audits", "SELECT payload FROM trail_event", "UPDATE flagged_output SET model = 'x'",
        "DELETE FROM flagged_text", "DELETE FROM item_key", "UPDATE audit SET state = 'done'", "INSERT INTO api_key (name) VALUES ('x')",
        "INSERT INTO review (comment) VALUES ('x')", "INSERT INTO training_example (prompt) VALUES ('x')", "INSERT INTO citation (rank) VALUES (1)",
        "CREATE TABLE mine (x int)", "DELETE FROM trail_event",
    ):  # fmt: skip
        with pytest.raises(Refused):
            server.run(INGEST, statement)


def test_the_auditor_reads_views_and_nothing_else(server: As) -> None:
    """No table: neither hashes of keys, nor sessions, nor keys of texts; and no view holds any."""
    for view in VIEWS:
        server.run(AUDITOR, f"SELECT * FROM {view} LIMIT 1")
    for table in roles.tables():
        with pytest.raises(Refused):
            server.run(AUDITOR, f"SELECT * FROM {table}")
    for statement in (
        "DELETE FROM v_audits",
        "CREATE TABLE mine (x int)",
        "CREATE TEMP VIEW mine AS SELECT * FROM api_key; SELECT * FROM mine",
    ):
        with pytest.raises((Refused, psycopg.errors.ObjectNotInPrerequisiteState)):
            server.run(AUDITOR, statement)
    hidden = {"key_sha256", "prefix", "sessions_from", "session_secret", "key"}
    columns = "SELECT column_name FROM information_schema.columns WHERE table_name LIKE 'v\\_%'"
    assert not hidden & {name for (name,) in server.run(None, columns)}


def test_the_writer_may_vacuum_what_erasures_touch(server: As) -> None:
    """PostgreSQL passes over a table with a warning where it may not; then the log says so."""
    may = f"SELECT has_table_privilege('{WRITER}', name, 'MAINTAIN') FROM unnest(ARRAY{list(cleaning.TOUCHED)}) name"
    assert {one for (one,) in server.run(None, may)} == {True}
    for role, refused in ((WRITER, False), (AUDITOR, True)):
        database = server.database(role)
        with capture_logs() as logs:
            assert database.clean(("item_key",))
        assert [one["event"] for one in logs] == ["vacuum_refused"] * refused
        database.dispose()
