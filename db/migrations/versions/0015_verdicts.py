"""Verdicts of people: an append-only `review`, and what a blind reviewer is shown.

The release before has the table `review` and neither reads nor writes it. Rows that somebody put in by SQL are kept, without a person.
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

revision: str = "0015"
down_revision: str | None = "0014"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_BIG = sa.Integer().with_variant(sa.BigInteger(), "postgresql")
_TIME = sa.DateTime(timezone=True)
_KEPT = "audit_id, rank, {verdict}, comment, reviewer, created_at"
_UP = "CASE verdict WHEN 'refuted' THEN 'unrelated' WHEN 'unclear' THEN 'second_look' ELSE verdict END"
_DOWN = "CASE verdict WHEN 'confirmed' THEN 'confirmed' WHEN 'unrelated' THEN 'refuted' ELSE 'unclear' END"


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.execute("CREATE TABLE review_before AS SELECT * FROM review")
    op.drop_table("review")
    op.create_table(
        "review",
        _id(),
        _ref("review", "audit_id", "audit.id"),
        _null("rank", sa.Integer()),
        _ref("review", "training_example_id", "training_example.id", nullable=True),
        _enum("verdict", "verdict", "confirmed", "plausible", "unrelated", "second_look", nullable=True),
        _col("comment", sa.Text()),
        _null("range_part", sa.String(20)),
        _null("range_start", sa.Integer()),
        _null("range_end", sa.Integer()),
        _col("reviewer", sa.String(200)),
        _ref("review", "person_id", "person.id", nullable=True),
        _enum("via", "via", "key", "session", "local", nullable=True),
        _ref("review", "item_id", "review_item.id", nullable=True),
        _col("blind", sa.Boolean()),
        _ref("review", "undoes_id", "review.id", nullable=True),
        _col("created_at", _TIME),
        sa.UniqueConstraint("undoes_id", name=op.f("uq_review_undoes_id")),
    )
    for columns in (["audit_id"], ["item_id"], ["person_id", "id"]):
        op.create_index(op.f(f"ix_review_{'_'.join(columns)}"), "review", columns)
    _copy(_UP, more="blind", value=sa.false())
    op.create_table(
        "review_row",
        _ref("review_row", "item_id", "review_item.id", primary_key=True, autoincrement=False),
        _col("place", sa.Integer(), primary_key=True, autoincrement=False),
        _ref("review_row", "training_example_id", "training_example.id"),
        _null("rank", sa.Integer()),
        sa.UniqueConstraint(
            "item_id", "training_example_id", name=op.f("uq_review_row_item_id_training_example_id")
        ),
    )


def downgrade() -> None:
    """Take the schema back to the revision before: comments without a verdict and what was taken back are gone."""
    op.drop_table("review_row")
    op.execute(
        "CREATE TABLE review_before AS SELECT * FROM review WHERE verdict IS NOT NULL "
        "AND NOT EXISTS (SELECT 1 FROM review later WHERE later.undoes_id = review.id)"
    )
    op.drop_table("review")
    op.create_table(
        "review",
        _id(),
        _ref("review", "audit_id", "audit.id"),
        _null("rank", sa.Integer()),
        _enum("verdict", "verdict", "confirmed", "refuted", "unclear"),
        _col("comment", sa.Text()),
        _col("reviewer", sa.String(200)),
        _col("created_at", _TIME),
    )
    op.create_index(op.f("ix_review_audit_id"), "review", ["audit_id"])
    _copy(_DOWN)


def _copy(verdict: str, *, more: str | None = None, value: Any = None) -> None:
    names, values = _KEPT.format(verdict="verdict"), _KEPT.format(verdict=verdict)
    if more is not None:
        names += f", {more}"
        values += f", {value.compile(dialect=op.get_bind().dialect)}"
    op.execute(f"INSERT INTO review ({names}) SELECT {values} FROM review_before ORDER BY id")  # noqa: S608 - our own words
    op.drop_table("review_before")


def _id() -> sa.Column[Any]:
    return sa.Column("id", _BIG, primary_key=True, nullable=False)


def _col(name: str, kind: Any, **options: Any) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=False, **options)


def _null(name: str, kind: Any) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=True)


def _ref(table: str, name: str, target: str, *, nullable: bool = False, **options: Any) -> sa.Column[Any]:
    key = sa.ForeignKey(target, name=op.f(f"fk_{table}_{name}"))
    return sa.Column(name, _BIG, key, nullable=nullable, **options)


def _enum(column: str, name: str, *values: str, nullable: bool = False) -> sa.Column[Any]:
    kind = sa.Enum(*values, name=name, native_enum=False, create_constraint=True, length=20)
    return sa.Column(column, kind, nullable=nullable)
