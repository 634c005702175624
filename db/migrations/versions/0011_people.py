"""People behind API keys. The release before goes on making keys: theirs have nobody behind them, and read and flag as they did."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0011"
down_revision: str | None = "0010"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_BIG = sa.Integer().with_variant(sa.BigInteger(), "postgresql")


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.create_table(
        "person",
        sa.Column("id", _BIG, primary_key=True, nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("sessions_from", sa.DateTime(timezone=True), nullable=True),
        sa.UniqueConstraint("name", name=op.f("uq_person_name")),
    )
    with op.batch_alter_table("api_key") as table:
        key = sa.ForeignKey("person.id", name=op.f("fk_api_key_person_id"))
        table.add_column(sa.Column("person_id", _BIG, key, nullable=True))
        table.create_index(op.f("ix_api_key_person_id"), ["person_id"])


def downgrade() -> None:
    """Take the schema back to the revision before; keys stay, without the people behind them."""
    with op.batch_alter_table("api_key") as table:
        table.drop_index(op.f("ix_api_key_person_id"))
        table.drop_constraint(op.f("fk_api_key_person_id"), type_="foreignkey")
        table.drop_column("person_id")
    op.drop_table("person")
