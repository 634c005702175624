"""The trail's chain, its triggers, the keys of its digests, and the lease of the sealer.

The new columns may be empty, so the release before goes on appending events; the triggers refuse what no release does.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0026"
down_revision: str | None = "0025"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_BIG = sa.Integer().with_variant(sa.BigInteger(), "postgresql")
_SHORT = sa.String(200)
_TIME = sa.DateTime(timezone=True)
_TABLE = "trail_event"
_INDEXES = (
    ("ix_trail_event_unsealed", ["id"], False, "sequence IS NULL"),
    ("uq_trail_event_journal_id", ["journal_id"], True, "journal_id IS NOT NULL"),
    ("uq_trail_event_sequence", ["sequence"], True, None),
    ("ix_trail_event_kind_id", ["kind", "id"], False, None),
    ("ix_trail_event_actor_id", ["actor", "id"], False, None),
    ("ix_trail_event_at", ["at"], False, None),
)

#: What an UPDATE may not change.
_KEPT = ("id", "at", "kind", "subject", "payload", "actor", "journal_id")
_FUNCTION = "trail_event_refuse"
_UPDATED = "the trail is append-only: an event cannot be changed"
_DELETED = "the trail is append-only: an event cannot be deleted"
_SEALED = "the trail is append-only: an event comes unsealed and under a new id"


def _same(engine: str) -> str:
    """SQL: the UPDATE seals the row and changes nothing else."""
    is_same = "NEW.{0} IS OLD.{0}" if engine == "sqlite" else "NEW.{0} IS NOT DISTINCT FROM OLD.{0}"
    unsealed = [f"OLD.{name} IS NULL" for name in ("sequence", "prev_hash", "row_hash")]
    sealed = [f"NEW.{name} IS NOT NULL" for name in ("sequence", "prev_hash", "row_hash")]
    return " AND ".join([*unsealed, *sealed, *(is_same.format(name) for name in _KEPT)])


_SQLITE = (
    f"""CREATE TRIGGER trail_event_no_update BEFORE UPDATE ON trail_event
WHEN NOT ({_same("sqlite")}) OR EXISTS (SELECT 1 FROM trail_event WHERE sequence = NEW.sequence)
BEGIN SELECT RAISE(ABORT, '{_UPDATED}'); END""",  # noqa: S608 - of this file's own words
    f"""CREATE TRIGGER trail_event_no_delete BEFORE DELETE ON trail_event
BEGIN SELECT RAISE(ABORT, '{_DELETED}'); END""",
    f"""CREATE TRIGGER trail_event_new_only BEFORE INSERT ON trail_event
WHEN NEW.sequence IS NOT NULL OR NEW.journal_id IS NOT NULL OR EXISTS (SELECT 1 FROM trail_event WHERE id = NEW.id)
BEGIN
    SELECT RAISE(ABORT, '{_SEALED}') WHERE NEW.sequence IS NOT NULL OR EXISTS (SELECT 1 FROM trail_event WHERE id = NEW.id);
    SELECT RAISE(IGNORE) WHERE EXISTS (SELECT 1 FROM trail_event WHERE journal_id = NEW.journal_id);
END""",  # noqa: S608 - as above
)

_ON_POSTGRESQL = (
    ("no_update", "UPDATE", f"FOR EACH ROW WHEN (NOT ({_same('postgresql')}))", _UPDATED),
    ("no_delete", "DELETE", "FOR EACH ROW", _DELETED),
    ("new_only", "INSERT", "FOR EACH ROW WHEN (NEW.sequence IS NOT NULL)", _SEALED),
    ("no_truncate", "TRUNCATE", "FOR EACH STATEMENT", _DELETED),
)
_POSTGRESQL = (
    f"CREATE FUNCTION {_FUNCTION}() RETURNS trigger LANGUAGE plpgsql AS $body$ BEGIN RAISE EXCEPTION '%', TG_ARGV[0]; END $body$",
    *(
        f"CREATE TRIGGER trail_event_{name} BEFORE {event} ON {_TABLE} {when} EXECUTE FUNCTION {_FUNCTION}('{told}')"
        for name, event, when, told in _ON_POSTGRESQL
    ),
)


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.add_column(_TABLE, sa.Column("actor", _SHORT, nullable=True))
    op.add_column(_TABLE, sa.Column("journal_id", _SHORT, nullable=True))
    op.add_column(_TABLE, sa.Column("sequence", _BIG, nullable=True))
    for name, columns, unique, where in _INDEXES:
        only = None if where is None else sa.text(where)
        op.create_index(name, _TABLE, columns, unique=unique, sqlite_where=only, postgresql_where=only)
    op.create_table(
        "item_key",
        sa.Column("subject", _SHORT, nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("subject", name=op.f("pk_item_key")),
    )
    op.create_table(
        "service_lease",
        sa.Column("name", _SHORT, nullable=False),
        sa.Column("owner", _SHORT, nullable=False),
        sa.Column("until", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_service_lease")),
    )
    for statement in _SQLITE if op.get_bind().dialect.name == "sqlite" else _POSTGRESQL:
        op.execute(statement)


def downgrade() -> None:
    """Take the schema back to the revision before; the order of the events is that of their ids again, and the keys are gone."""
    on_table = "" if op.get_bind().dialect.name == "sqlite" else f" ON {_TABLE}"
    for name in ("no_update", "no_delete", "new_only", "no_truncate"):
        op.execute(sa.text(f"DROP TRIGGER IF EXISTS trail_event_{name}{on_table}"))
    if on_table:
        op.execute(sa.text(f"DROP FUNCTION IF EXISTS {_FUNCTION}()"))
    op.drop_table("service_lease")
    op.drop_table("item_key")
    for name, *_ in _INDEXES:
        op.drop_index(name, _TABLE)
    for column in ("sequence", "journal_id", "actor"):
        op.drop_column(_TABLE, column)
