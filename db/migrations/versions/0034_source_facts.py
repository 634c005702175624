"""What is known of all sources with its age, and when a comparison went on last. The release before leaves all alone."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0034"
down_revision: str | None = "0033"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_BIG = sa.Integer().with_variant(sa.BigInteger(), "postgresql")
_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.add_column("bundle_comparison", sa.Column("stepped_at", _TIME, nullable=True))
    op.create_table(
        "source_look",
        sa.Column("id", _BIG, primary_key=True, nullable=False),
        *(sa.Column(name, _JSON, nullable=False) for name in ("edges", "audits")),
        sa.Column("newest_event", _BIG, nullable=False),
        *(sa.Column(name, _TIME, nullable=False) for name in ("first_asked_at", "asked_at")),
        sa.Column("computed_at", _TIME, nullable=True),
    )
    op.create_table(
        "source_facts",
        sa.Column("source", sa.Text(), primary_key=True, nullable=False),
        *(sa.Column(name, _JSON, nullable=False) for name in ("summary", "blame", "firsts")),
    )


def downgrade() -> None:
    """Take the schema back to the revision before; what is known of sources is counted anew."""
    for name in ("source_facts", "source_look"):
        op.drop_table(name)
    op.drop_column("bundle_comparison", "stepped_at")
