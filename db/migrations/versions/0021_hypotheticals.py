"""Outputs that were never said: what somebody supposes in place of a flagged one.

The new column may be empty, so the release before goes on writing rows while this schema is in place.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0021"
down_revision: str | None = "0020"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_BIG = sa.Integer().with_variant(sa.BigInteger(), "postgresql")
_INDEX = "ix_flagged_output_hypothetical_of"


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.add_column("flagged_output", sa.Column("hypothetical_of", _BIG, nullable=True))
    given = sa.text("hypothetical_of IS NOT NULL")
    op.create_index(_INDEX, "flagged_output", ["hypothetical_of"], sqlite_where=given, postgresql_where=given)


def downgrade() -> None:
    """Take the schema back to the revision before; hypothetical outputs keep their channel, and nothing says whose they are."""
    op.drop_index(_INDEX, "flagged_output")
    op.drop_column("flagged_output", "hypothetical_of")
