"""The sentence encoder's part of the score, and the view that shows it.

The column may be empty, so the release before goes on writing rows while this schema is in place.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.add_column("citation", sa.Column("encoder_score", sa.Float(53), nullable=True))


def downgrade() -> None:
    """Take the schema back to the revision before; what the column held is gone."""
    op.drop_column("citation", "encoder_score")
