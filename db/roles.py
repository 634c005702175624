"""Roles of PostgreSQL, as SQL that is made from the models: owner, writer, ingest, auditor. docs/operations.md says who gets which.

The writer gets every table by what the models say of it, so a new table cannot be forgotten. The ingest role and the auditor get what is
named here and nothing else. The script may be run again at any time, and is after each migration: it takes away what it does not grant.
"""

from collections.abc import Iterator, Mapping

from db.erasure.cleaning import TOUCHED
from db.models import Base, TrailEvent
from db.sql_views.views import VIEWS

OWNER, WRITER, INGEST, AUDITOR = (
    "wherefrom_owner",
    "wherefrom_writer",
    "wherefrom_ingest",
    "wherefrom_auditor",
)
ROLES = (OWNER, WRITER, INGEST, AUDITOR)

#: Alembic's own table, which is in no model.
REVISIONS = "alembic_version"
#: What migrations alone write.
_READ_ONLY = frozenset({REVISIONS, "schema_release"})
#: Events are added, and get their place in the chain once; triggers refuse the second time.
TRAIL = TrailEvent.__tablename__
#: What those triggers run; a migration that changes it has to own it.
TRAIL_RULE = "trail_event_refuse"
SEALED = ("sequence", "prev_hash", "row_hash")

#: Tables that the intake of the stream adds rows to.
_ADDED = ("flagged_output", "flagged_text", "output_words", "audit", TRAIL, "item_key")
#: Columns that it reads: whether an output is there, and which bundle explains its model. No text.
_LOOKED_AT: Mapping[str, tuple[str, ...]] = {
    REVISIONS: ("version_num",),
    "schema_release": ("id", "revision", "compatible_from"),
    "flagged_output": ("id", "producer", "idempotency_key", "content_sha256"),
    "audit": ("id", "flagged_output_id", "bundle_id", "state", "code", "reason"),
    "bundle": ("id", "model_revision_id", "active"),
    "model_revision": ("id", "name"),
}
#: What each process writes about itself: signs of life and counters.
_OWN = ("process_sign", "counter_total")


def roles_sql() -> str:
    """The whole script, for psql as a superuser or as the owner of the database; in one transaction."""
    return "\n".join(("BEGIN;", *_statements(), "COMMIT;", ""))


def tables() -> tuple[str, ...]:
    """Every table of the schema."""
    return (*sorted(Base.metadata.tables), REVISIONS)


def _statements() -> Iterator[str]:
    for role in ROLES:
        yield (
            f"DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') THEN"
            f" CREATE ROLE {role} NOLOGIN; END IF; END $$;"
        )
    users = f"{WRITER}, {INGEST}, {AUDITOR}"
    yield "REVOKE CREATE ON SCHEMA public FROM PUBLIC;"
    yield f"REVOKE ALL ON SCHEMA public FROM {users};"
    yield f"GRANT USAGE, CREATE ON SCHEMA public TO {OWNER};"
    yield f"GRANT USAGE ON SCHEMA public TO {users};"
    for name in tables():
        yield f"ALTER TABLE {name} OWNER TO {OWNER};"
    for view in sorted(VIEWS):
        yield f"ALTER VIEW {view} OWNER TO {OWNER};"
    yield f"ALTER FUNCTION {TRAIL_RULE}() OWNER TO {OWNER};"
    yield f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM PUBLIC, {users};"
    yield f"REVOKE ALL ON ALL SEQUENCES IN SCHEMA public FROM PUBLIC, {users};"
    yield from _of_writer()
    yield from _of_ingest()
    yield f"GRANT SELECT ON {', '.join(sorted(VIEWS))} TO {AUDITOR};"


def _of_writer() -> Iterator[str]:
    """Everything but the schema and what was: rows come and go, the trail only grows. It vacuums what erasures touch."""
    for name in tables():
        yield f"GRANT {_writes(name)} ON {name} TO {WRITER};"
    yield f"GRANT UPDATE ({', '.join(SEALED)}) ON {TRAIL} TO {WRITER};"
    yield f"GRANT SELECT ON {', '.join(sorted(VIEWS))} TO {WRITER};"
    # To read a sequence is what `pg_dump` wants of a backup.
    yield f"GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO {WRITER};"
    # Servers before 17 let the owner alone do it: there `autovacuum` frees what was erased.
    yield (
        "DO $$ BEGIN IF current_setting('server_version_num')::int >= 170000 THEN"
        f" EXECUTE 'GRANT MAINTAIN ON {', '.join(TOUCHED)} TO {WRITER}'; END IF; END $$;"
    )
    # A new table is of use before the script is run again, but for the trail's rules, which it gets here.
    owned = f"ALTER DEFAULT PRIVILEGES FOR ROLE {OWNER} IN SCHEMA public GRANT"
    yield f"{owned} SELECT, INSERT, UPDATE, DELETE ON TABLES TO {WRITER};"
    yield f"{owned} USAGE, SELECT ON SEQUENCES TO {WRITER};"


def _writes(table: str) -> str:
    if table in _READ_ONLY:
        return "SELECT"
    return "SELECT, INSERT" if table == TRAIL else "SELECT, INSERT, UPDATE, DELETE"


def _of_ingest() -> Iterator[str]:
    """Outputs come in, and nothing that is stored goes out or changes."""
    for name in _ADDED:
        yield f"GRANT INSERT ON {name} TO {INGEST};"
    for name, columns in _LOOKED_AT.items():
        yield f"GRANT SELECT ({', '.join(columns)}) ON {name} TO {INGEST};"
    for name in _OWN:
        yield f"GRANT SELECT, INSERT, UPDATE, DELETE ON {name} TO {INGEST};"
    for name in _ADDED:
        if "id" in Base.metadata.tables[name].columns:
            sequence = f"pg_get_serial_sequence('{name}', 'id')"
            yield (
                f"DO $$ BEGIN IF {sequence} IS NOT NULL THEN"
                f" EXECUTE 'GRANT USAGE ON SEQUENCE ' || {sequence} || ' TO {INGEST}'; END IF; END $$;"
            )
