"""What of the outputs a key may see, how much it may do, and how much it did.

The new columns may be empty, and the release before does not know the table. It does not know the limits either: make limited keys when its
last process has ended.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0030"
down_revision: str | None = "0029"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_BIG = sa.Integer().with_variant(sa.BigInteger(), "postgresql")
_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
_TABLE = "key_budget"


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.add_column("api_key", sa.Column("limits", _JSON, nullable=True))
    op.add_column("api_key", sa.Column("quotas", _JSON, nullable=True))
    op.create_table(
        _TABLE,
        sa.Column("api_key_id", _BIG, nullable=False),
        sa.Column("what", sa.String(20), nullable=False),
        sa.Column("day", sa.Integer(), nullable=False),
        sa.Column("used", sa.Float(53), nullable=False),
        sa.ForeignKeyConstraint(["api_key_id"], ["api_key.id"], name=op.f(f"fk_{_TABLE}_api_key_id_api_key")),
        sa.PrimaryKeyConstraint("api_key_id", "what", name=op.f(f"pk_{_TABLE}")),
    )


def downgrade() -> None:
    """Take the schema back to the revision before. A limited key is revoked: the release before would let it see everything."""
    op.drop_table(_TABLE)
    op.execute(
        "UPDATE api_key SET revoked_at = CURRENT_TIMESTAMP"
        " WHERE revoked_at IS NULL AND limits IS NOT NULL AND CAST(limits AS TEXT) <> 'null'"
    )
    op.drop_column("api_key", "quotas")
    op.drop_column("api_key", "limits")
