"""Two bundles over the outputs that were audited under both. The release before does not know the tables."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0027"
down_revision: str | None = "0026"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_BIG = sa.Integer().with_variant(sa.BigInteger(), "postgresql")
_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
_TIME = sa.DateTime(timezone=True)


def _reference(table: str, name: str, column: str, *, in_key: bool = False) -> sa.Column[int]:
    key = sa.ForeignKey(f"{column}.id", name=op.f(f"fk_{table}_{name}"))
    return sa.Column(name, _BIG, key, nullable=False, autoincrement=False if in_key else "auto")


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.create_table(
        "bundle_comparison",
        sa.Column("id", _BIG, primary_key=True, nullable=False),
        _reference("bundle_comparison", "bundle_id", "bundle"),
        _reference("bundle_comparison", "other_bundle_id", "bundle"),
        sa.Column("next_at", _TIME, nullable=True),
        sa.Column("next_audit", _BIG, nullable=False),
        sa.Column("seen", sa.Integer(), nullable=False),
        sa.Column("pass_event", _BIG, nullable=False),
        sa.Column("newest_event", _BIG, nullable=False),
        sa.Column("summary", _JSON, nullable=True),
        sa.Column("first_asked_at", _TIME, nullable=False),
        sa.Column("asked_at", _TIME, nullable=False),
        sa.Column("computed_at", _TIME, nullable=True),
        sa.UniqueConstraint(
            "bundle_id", "other_bundle_id", name=op.f("uq_bundle_comparison_bundle_id_other_bundle_id")
        ),
    )
    op.create_table(
        "compared_output",
        _reference("compared_output", "comparison_id", "bundle_comparison", in_key=True),
        _reference("compared_output", "flagged_output_id", "flagged_output", in_key=True),
        _reference("compared_output", "audit_id", "audit"),
        _reference("compared_output", "other_audit_id", "audit"),
        *(sa.Column(name, _TIME, nullable=False) for name in ("finished_at", "other_finished_at")),
        *(sa.Column(name, sa.Integer(), nullable=False) for name in ("stayed", "gone", "came")),
        sa.Column("moved", sa.Float(53), nullable=False),
        sa.Column("top_changed", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("comparison_id", "flagged_output_id", name=op.f("pk_compared_output")),
    )
    op.create_index(
        op.f("ix_compared_output_comparison_id_moved_flagged_output_id"),
        "compared_output",
        ["comparison_id", "moved", "flagged_output_id"],
    )


def downgrade() -> None:
    """Take the schema back to the revision before; comparisons are worked out anew after the next upgrade."""
    op.drop_table("compared_output")
    op.drop_table("bundle_comparison")
