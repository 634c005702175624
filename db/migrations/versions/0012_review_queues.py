"""Review queues. The release before does not know the tables."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0012"
down_revision: str | None = "0011"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_BIG = sa.Integer().with_variant(sa.BigInteger(), "postgresql")
_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
_TIME = sa.DateTime(timezone=True)
_TABLES = ("review_queue", "review_member", "review_item", "review_assignment")


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.create_table(
        "review_queue",
        _id(),
        _col("name", sa.String(200)),
        _null("rule", _JSON),
        _enum("work_order", "work_order", "oldest", "newest", "severity", "shuffled"),
        _col("reviewers", sa.Integer()),
        _col("dedupe", sa.Boolean()),
        _col("blind", sa.Boolean()),
        _ref("review_queue", "created_by", "person.id", nullable=True),
        _col("created_at", _TIME),
        _null("closed_at", _TIME),
        _null("filled_at", _TIME),
        sa.UniqueConstraint("name", name=op.f("uq_review_queue_name")),
    )
    op.create_table(
        "review_member",
        _ref("review_member", "queue_id", "review_queue.id", primary_key=True, autoincrement=False),
        _ref("review_member", "person_id", "person.id", primary_key=True, autoincrement=False),
        _col("added_at", _TIME),
    )
    _index("review_member", "person_id")
    _create_items()
    _index("audit", "finished_at")


def _create_items() -> None:
    op.create_table(
        "review_item",
        _id(),
        _ref("review_item", "queue_id", "review_queue.id"),
        _ref("review_item", "audit_id", "audit.id"),
        _enum("state", "item_state", "open", "done", "removed"),
        _null("dedupe_key", sa.String(64)),
        _col("order_key", _BIG),
        _col("assigned", sa.Integer()),
        _col("finished", sa.Integer()),
        _col("added_at", _TIME),
        sa.UniqueConstraint("queue_id", "audit_id", name=op.f("uq_review_item_queue_id_audit_id")),
        sa.UniqueConstraint("queue_id", "dedupe_key", name=op.f("uq_review_item_queue_id_dedupe_key")),
    )
    _index("review_item", "audit_id")
    _index("review_item", "queue_id", "state", "order_key", "id")
    op.create_table(
        "review_assignment",
        _id(),
        _ref("review_assignment", "item_id", "review_item.id"),
        _ref("review_assignment", "person_id", "person.id"),
        _ref("review_assignment", "assigned_by", "person.id", nullable=True),
        _col("assigned_at", _TIME),
        _null("finished_at", _TIME),
        sa.UniqueConstraint("item_id", "person_id", name=op.f("uq_review_assignment_item_id_person_id")),
    )
    _index("review_assignment", "person_id", "finished_at", "item_id")


def downgrade() -> None:
    """Take the schema back to the revision before; queues and assignments are gone."""
    op.drop_index(op.f("ix_audit_finished_at"), "audit")
    for table in reversed(_TABLES):
        op.drop_table(table)


def _id() -> sa.Column[Any]:
    return sa.Column("id", _BIG, primary_key=True, nullable=False)


def _col(name: str, kind: Any) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=False)


def _null(name: str, kind: Any) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=True)


def _ref(table: str, name: str, target: str, *, nullable: bool = False, **options: Any) -> sa.Column[Any]:
    key = sa.ForeignKey(target, name=op.f(f"fk_{table}_{name}"))
    return sa.Column(name, _BIG, key, nullable=nullable, **options)


def _enum(column: str, name: str, *values: str) -> sa.Column[Any]:
    kind = sa.Enum(*values, name=name, native_enum=False, create_constraint=True, length=20)
    return sa.Column(column, kind, nullable=False)


def _index(table: str, *columns: str) -> None:
    op.create_index(op.f(f"ix_{table}_{'_'.join(columns)}"), table, list(columns))
