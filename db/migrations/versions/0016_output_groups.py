"""Groups of flagged outputs that are one question, and how each member scores what is cited.

New columns may be empty, so the release before goes on writing rows while this schema is in place. A group's own text is empty: that release
rejects its audits as invalid records instead of answering another question.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0016"
down_revision: str | None = "0015"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_BIG = sa.Integer().with_variant(sa.BigInteger(), "postgresql")
_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
_TABLE = "output_group_member"


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.add_column("flagged_output", sa.Column("members", sa.Integer(), nullable=True))
    op.add_column("flagged_text", sa.Column("against", _JSON, nullable=True))
    op.add_column("citation", sa.Column("member_influence", _JSON, nullable=True))
    op.create_table(
        _TABLE,
        _output("group_id"),
        sa.Column("position", sa.Integer(), nullable=False, autoincrement=False),
        _output("member_id"),
        sa.PrimaryKeyConstraint("group_id", "position", name=op.f(f"pk_{_TABLE}")),
        sa.UniqueConstraint("group_id", "member_id", name=op.f(f"uq_{_TABLE}_group_id_member_id")),
    )
    op.create_index(op.f(f"ix_{_TABLE}_member_id"), _TABLE, ["member_id"])


def downgrade() -> None:
    """Take the schema back to the revision before; groups become outputs without a text, and what the columns held is gone."""
    op.drop_table(_TABLE)
    op.drop_column("citation", "member_influence")
    op.drop_column("flagged_text", "against")
    op.drop_column("flagged_output", "members")


def _output(name: str) -> sa.Column[int]:
    key = sa.ForeignKey("flagged_output.id", name=op.f(f"fk_{_TABLE}_{name}"))
    return sa.Column(name, _BIG, key, nullable=False, autoincrement=False)
