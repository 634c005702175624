"""Producers with many keys, so that a key can be rotated without losing idempotency.

Every key of before gets a producer of its name, which is the name that its records are stored under. The release before goes on
making keys: theirs name no producer, and are read as their own.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_BIG = sa.Integer().with_variant(sa.BigInteger(), "postgresql")


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.create_table(
        "producer",
        sa.Column("id", _BIG, primary_key=True, nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.UniqueConstraint("name", name=op.f("uq_producer_name")),
    )
    op.execute("INSERT INTO producer (name, created_at) SELECT name, created_at FROM api_key ORDER BY id")
    with op.batch_alter_table("api_key") as table:
        key = sa.ForeignKey("producer.id", name=op.f("fk_api_key_producer_id"))
        table.add_column(sa.Column("producer_id", _BIG, key, nullable=True))
        table.create_index(op.f("ix_api_key_producer_id"), ["producer_id"])
    op.execute(
        "UPDATE api_key SET producer_id = (SELECT id FROM producer WHERE producer.name = api_key.name)"
    )


def downgrade() -> None:
    """Take the schema back to the revision before; keys of one producer are strangers to each other again."""
    with op.batch_alter_table("api_key") as table:
        table.drop_index(op.f("ix_api_key_producer_id"))
        table.drop_constraint(op.f("fk_api_key_producer_id"), type_="foreignkey")
        table.drop_column("producer_id")
    op.drop_table("producer")
