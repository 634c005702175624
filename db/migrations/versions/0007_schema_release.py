"""What the newest upgrade declared: the oldest release that works with the schema, for releases that run side by side."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_BIG = sa.Integer().with_variant(sa.BigInteger(), "postgresql")


def upgrade() -> None:
    """Bring the schema to this revision; `db.migrate` writes the row."""
    op.create_table(
        "schema_release",
        sa.Column("id", _BIG, primary_key=True, nullable=False),
        sa.Column("revision", sa.String(200), nullable=False),
        sa.Column("compatible_from", sa.String(200), nullable=False),
    )


def downgrade() -> None:
    """Take the schema back to the revision before."""
    op.drop_table("schema_release")
