"""Fix lists. The release before does not know the tables."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0020"
down_revision: str | None = "0019"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_BIG = sa.Integer().with_variant(sa.BigInteger(), "postgresql")
_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
_TIME = sa.DateTime(timezone=True)
_ACTIONS = ("remove", "fix", "keep")
_TABLES = ("fix_list", "fix_list_entry", "fix_list_row")


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.create_table(
        "fix_list",
        _id(),
        _col("name", sa.String(200)),
        _col("note", sa.Text()),
        _ref("fix_list", "owner_id", "person.id"),
        _col("created_at", _TIME),
        _col("closed_at", _TIME, nullable=True),
        sa.UniqueConstraint("name", name=op.f("uq_fix_list_name")),
    )
    op.create_table(
        "fix_list_entry",
        _id(),
        _ref("fix_list_entry", "list_id", "fix_list.id"),
        _enum("event", "fix_event", "created", "set", "taken_off", "given", "closed"),
        _enum("action", "fix_entry_action", *_ACTIONS, nullable=True),
        _col("reason", sa.Text()),
        _col("num_rows", _BIG),
        _col("training_example_ids", _JSON, nullable=True),
        _col("source", sa.Text(), nullable=True),
        _col("culprits", _JSON, nullable=True),
        _ref("fix_list_entry", "person_id", "person.id"),
        _enum("via", "fix_via", "key", "session", "local"),
        _col("created_at", _TIME),
    )
    op.create_index(op.f("ix_fix_list_entry_list_id_id"), "fix_list_entry", ["list_id", "id"])
    op.create_table(
        "fix_list_row",
        _ref("fix_list_row", "list_id", "fix_list.id", primary_key=True, autoincrement=False),
        _ref(
            "fix_list_row",
            "training_example_id",
            "training_example.id",
            primary_key=True,
            autoincrement=False,
        ),
        _enum("action", "fix_action", *_ACTIONS),
        _ref("fix_list_row", "entry_id", "fix_list_entry.id"),
    )
    for columns in (("training_example_id",), ("list_id", "action", "training_example_id")):
        op.create_index(op.f(f"ix_fix_list_row_{'_'.join(columns)}"), "fix_list_row", list(columns))


def downgrade() -> None:
    """Take the schema back to the revision before; fix lists are gone."""
    for table in reversed(_TABLES):
        op.drop_table(table)


def _id() -> sa.Column[Any]:
    return sa.Column("id", _BIG, primary_key=True, nullable=False)


def _col(name: str, kind: Any, *, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=nullable)


def _ref(table: str, name: str, target: str, **options: Any) -> sa.Column[Any]:
    key = sa.ForeignKey(target, name=op.f(f"fk_{table}_{name}"))
    return sa.Column(name, _BIG, key, nullable=False, **options)


def _enum(column: str, name: str, *values: str, nullable: bool = False) -> sa.Column[Any]:
    kind = sa.Enum(*values, name=name, native_enum=False, create_constraint=True, length=20)
    return sa.Column(column, kind, nullable=nullable)
