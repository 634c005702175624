"""Which trace a flagged output belongs to. The release before neither writes nor reads it: its audits begin traces of their own."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0033"
down_revision: str | None = "0032"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.add_column("flagged_text", sa.Column("traceparent", sa.String(55), nullable=True))


def downgrade() -> None:
    """Take the schema back to the revision before."""
    op.drop_column("flagged_text", "traceparent")
