"""Totals of what the processes of the service count, for `/metrics`."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0009"
down_revision: str | None = "0008"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.create_table(
        "counter_total",
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("labels", sa.String(200), nullable=False),
        sa.Column("value", sa.Float(53), nullable=False),
        sa.PrimaryKeyConstraint("name", "labels", name="pk_counter_total"),
    )


def downgrade() -> None:
    """Take the schema back to the revision before."""
    op.drop_table("counter_total")
