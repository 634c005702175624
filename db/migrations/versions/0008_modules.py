"""Which blocks and kinds of layers carry a citation, and the view that shows it.

The column may be empty, so the release before goes on writing rows while this schema is in place.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0008"
down_revision: str | None = "0007"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.add_column("citation", sa.Column("modules", _JSON, nullable=True))


def downgrade() -> None:
    """Take the schema back to the revision before; what the column held is gone."""
    op.drop_column("citation", "modules")
