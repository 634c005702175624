"""Sums of comparisons a part at a time, names of findings that carry over, and an index on measured effects. The release before leaves all alone."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0032"
down_revision: str | None = "0031"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_BIG = sa.Integer().with_variant(sa.BigInteger(), "postgresql")
_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
_MEASURED = "ix_citation_measured"


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.add_column("bundle_comparison", sa.Column("summed_to", _BIG, nullable=True))
    op.add_column("bundle_comparison", sa.Column("sums", _JSON, nullable=True))
    # Without a foreign key of its own: SQLite would copy the table for it.
    op.add_column("finding", sa.Column("carried_from", _BIG, nullable=True))
    op.create_index("ix_finding_carried_from", "finding", ["carried_from"])
    op.add_column("finding_mark", sa.Column("loose_to", _BIG, nullable=True))
    measured = sa.text("measured_effect_nats IS NOT NULL")
    op.create_index(
        _MEASURED, "citation", ["measured_effect_nats"], sqlite_where=measured, postgresql_where=measured
    )


def downgrade() -> None:
    """Take the schema back to the revision before; a comparison that is being summed up begins anew."""
    op.drop_index(_MEASURED, "citation")
    op.drop_column("finding_mark", "loose_to")
    op.drop_index("ix_finding_carried_from", "finding")
    op.drop_column("finding", "carried_from")
    for name in ("sums", "summed_to"):
        op.drop_column("bundle_comparison", name)
