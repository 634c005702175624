"""Evidence beside the scores: EK-FAC, near-duplicates, spans, overlaps, calibrated p-values.

Every column may be empty, so the release before goes on writing rows while this schema is in place.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
_NUMBER = sa.Float(53)


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.add_column("citation", sa.Column("ekfac_score", _NUMBER, nullable=True))
    op.add_column("citation", sa.Column("effect_score", _NUMBER, nullable=True))
    op.add_column("citation", sa.Column("duplicates", sa.Integer(), nullable=True))
    op.add_column("citation", sa.Column("overlaps", _JSON, nullable=True))
    op.add_column("audit", sa.Column("conformal_p", _NUMBER, nullable=True))
    op.add_column("audit", sa.Column("novelty_p", _NUMBER, nullable=True))
    op.create_index(op.f("ix_audit_conformal_p"), "audit", ["conformal_p"])


def downgrade() -> None:
    """Take the schema back to the revision before; what these columns held is gone."""
    op.drop_index(op.f("ix_audit_conformal_p"), "audit")
    for table, column in (
        ("audit", "novelty_p"),
        ("audit", "conformal_p"),
        ("citation", "overlaps"),
        ("citation", "duplicates"),
        ("citation", "ekfac_score"),
        ("citation", "effect_score"),
    ):
        op.drop_column(table, column)
