"""What chance alone gives the influence scores of an audit, whether its best score is more than that, and whether a citation's sign is.

The columns may be empty, so the release before goes on writing rows while this schema is in place.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0013"
down_revision: str | None = "0012"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_NUMBER = sa.Float(53)


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.add_column("audit", sa.Column("noise_level", _NUMBER, nullable=True))
    op.add_column("audit", sa.Column("noise_best", _NUMBER, nullable=True))
    op.add_column("audit", sa.Column("weak", sa.Boolean(), nullable=True))
    op.add_column("citation", sa.Column("sign_determined", sa.Boolean(), nullable=True))


def downgrade() -> None:
    """Take the schema back to the revision before; what the columns held is gone."""
    op.drop_column("citation", "sign_determined")
    for name in ("weak", "noise_best", "noise_level"):
        op.drop_column("audit", name)
