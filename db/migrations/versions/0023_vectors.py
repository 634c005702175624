"""A small similarity vector of each output that was answered; it goes with the output's text.

The release before does not know the table. Where it erases a text, the database takes the vector away.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0023"
down_revision: str | None = "0022"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_BIG = sa.Integer().with_variant(sa.BigInteger(), "postgresql")
_TABLE = "output_vector"


def upgrade() -> None:
    """Bring the schema to this revision."""
    text = sa.ForeignKey(
        "flagged_text.flagged_output_id", name=op.f(f"fk_{_TABLE}_flagged_output_id"), ondelete="CASCADE"
    )
    bundle = sa.ForeignKey("bundle.id", name=op.f(f"fk_{_TABLE}_bundle_id"))
    op.create_table(
        _TABLE,
        sa.Column("flagged_output_id", _BIG, text, nullable=False, autoincrement=False),
        sa.Column("bundle_id", _BIG, bundle, nullable=False, autoincrement=False),
        sa.Column("vector", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("flagged_output_id", "bundle_id", name=op.f(f"pk_{_TABLE}")),
    )
    op.create_index(op.f(f"ix_{_TABLE}_bundle_id"), _TABLE, ["bundle_id"])


def downgrade() -> None:
    """Take the schema back to the revision before; the vectors are gone."""
    op.drop_table(_TABLE)
