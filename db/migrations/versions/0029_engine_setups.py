"""What audits were computed with. The release before writes no setup: its audits do not say theirs."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0029"
down_revision: str | None = "0028"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_TABLE = "engine_setup"
_BIG = sa.Integer().with_variant(sa.BigInteger(), "postgresql")


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.create_table(
        _TABLE,
        sa.Column("id", _BIG, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("content", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=False),
        sa.Column("first_seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{_TABLE}")),
        sa.UniqueConstraint("sha256", name=op.f(f"uq_{_TABLE}_sha256")),
    )
    op.add_column("audit", sa.Column("setup_id", _BIG, nullable=True))


def downgrade() -> None:
    """Take the schema back to the revision before; answers from then on do not say what they were computed with."""
    op.drop_column("audit", "setup_id")
    op.drop_table(_TABLE)
