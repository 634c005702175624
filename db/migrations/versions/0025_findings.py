"""Findings. The release before does not know the tables; where it erases a text, the database takes the words of names away."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0025"
down_revision: str | None = "0024"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_BIG = sa.Integer().with_variant(sa.BigInteger(), "postgresql")
_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
_TIME = sa.DateTime(timezone=True)
_SHORT = sa.String(200)
_EVENTS = ("founded", "renamed", "merged", "taken_out", "split")
_TABLES = ("finding", "finding_output", "finding_word", "finding_mark", "finding_entry")
#: Indexes by table, with the condition of those that are partial.
_INDEXES = (
    ("finding", ("bundle_id", "outputs", "id")),
    ("finding", ("outputs", "id")),
    ("finding", ("merged_into",)),
    ("finding_output", ("finding_id", "audit_id")),
    ("finding_word", ("flagged_output_id",)),
    ("finding_entry", ("finding_id", "id")),
)
_PARTIAL = (
    ("ix_finding_due", "finding", ("id",), "due"),
    ("ix_finding_output_loose", "finding_output", ("bundle_id", "audit_id"), "finding_id IS NULL"),
    ("ix_finding_output_exemplar", "finding_output", ("bundle_id", "finding_id"), "exemplar"),
)


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.create_table(
        "finding",
        sa.Column("id", _BIG, primary_key=True, nullable=False),
        _ref("finding", "bundle_id", "bundle.id"),
        _col("title", _SHORT, nullable=True),
        _ref("finding", "merged_into", "finding.id", nullable=True),
        _col("outputs", sa.Integer()),
        _col("newest_at", _TIME, nullable=True),
        _col("sources", _JSON),
        _col("num_words", sa.Integer()),
        _col("due", sa.Boolean()),
        _col("created_at", _TIME),
        _col("counted_at", _TIME, nullable=True),
    )
    op.create_table(
        "finding_output",
        _ref("finding_output", "audit_id", "audit.id", primary_key=True, autoincrement=False),
        _ref("finding_output", "bundle_id", "bundle.id"),
        _ref("finding_output", "finding_id", "finding.id", nullable=True),
        _col("exemplar", sa.Boolean()),
        _col("placed_at", _TIME),
    )
    text = sa.ForeignKey(
        "flagged_text.flagged_output_id", name=op.f("fk_finding_word_flagged_output_id"), ondelete="CASCADE"
    )
    op.create_table(
        "finding_word",
        _ref("finding_word", "finding_id", "finding.id", primary_key=True, autoincrement=False),
        sa.Column("place", sa.Integer(), primary_key=True, autoincrement=False, nullable=False),
        sa.Column("flagged_output_id", _BIG, text, primary_key=True, autoincrement=False, nullable=False),
        _col("word", sa.String(40)),
    )
    op.create_table(
        "finding_mark",
        _ref("finding_mark", "bundle_id", "bundle.id", primary_key=True, autoincrement=False),
        _col("looked_to", _TIME, nullable=True),
        _col("version", sa.Integer()),
    )
    op.create_table(
        "finding_entry",
        sa.Column("id", _BIG, primary_key=True, nullable=False),
        _ref("finding_entry", "finding_id", "finding.id"),
        _col("event", _enum("finding_event", *_EVENTS)),
        _ref("finding_entry", "other_id", "finding.id", nullable=True),
        _col("outputs", sa.Integer()),
        _col("title", _SHORT, nullable=True),
        _col("moved", _JSON, nullable=True),
        _ref("finding_entry", "person_id", "person.id", nullable=True),
        _col("via", _enum("finding_via", "key", "session", "local"), nullable=True),
        _col("created_at", _TIME),
    )
    for table, columns in _INDEXES:
        op.create_index(op.f(f"ix_{table}_{'_'.join(columns)}"), table, list(columns))
    for name, table, columns, where in _PARTIAL:
        condition = sa.text(where)
        op.create_index(name, table, list(columns), sqlite_where=condition, postgresql_where=condition)
    if op.get_bind().dialect.name == "sqlite":
        _erase_with_text()


def downgrade() -> None:
    """Take the schema back to the revision before; findings are gone."""
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DROP TRIGGER flagged_text_alike_erased")
    for table in reversed(_TABLES):
        op.drop_table(table)


def _erase_with_text() -> None:
    """SQLite follows foreign keys only where a connection asks for it; a trigger runs whoever erases."""
    both = " ".join(
        f"DELETE FROM {table} WHERE flagged_output_id = old.flagged_output_id;"  # noqa: S608 - names of our own
        for table in ("finding_word", "output_vector")
    )
    op.execute(f"CREATE TRIGGER flagged_text_alike_erased AFTER DELETE ON flagged_text BEGIN {both} END")


def _col(name: str, kind: Any, *, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=nullable)


def _ref(table: str, name: str, target: str, *, nullable: bool = False, **options: Any) -> sa.Column[Any]:
    key = sa.ForeignKey(target, name=op.f(f"fk_{table}_{name}"))
    return sa.Column(name, _BIG, key, nullable=nullable, **options)


def _enum(name: str, *values: str) -> Any:
    return sa.Enum(*values, name=name, native_enum=False, create_constraint=True, length=20)
