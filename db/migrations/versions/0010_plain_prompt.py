"""Whether a flagged output's prompt came as one text: a model without a chat template answers for nothing else.

The column may be empty, so the release before goes on writing rows while this schema is in place; such rows count as messages, as they did.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0010"
down_revision: str | None = "0009"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.add_column("flagged_text", sa.Column("plain_prompt", sa.Boolean(), nullable=True))


def downgrade() -> None:
    """Take the schema back to the revision before; what the column held is gone."""
    op.drop_column("flagged_text", "plain_prompt")
