"""Notices to a webhook, and what was told of each subject. The release before does not know the tables."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

revision: str = "0024"
down_revision: str | None = "0023"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_BIG = sa.Integer().with_variant(sa.BigInteger(), "postgresql")
_TIME = sa.DateTime(timezone=True)
_SHORT, _SUBJECT = sa.String(200), sa.String(500)
_STATES = ("pending", "delivered", "dead")


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.create_table(
        "webhook_delivery",
        sa.Column("id", _BIG, primary_key=True, nullable=False),
        sa.Column("event_id", _SHORT, nullable=False),
        sa.Column("kind", _SHORT, nullable=False),
        sa.Column("subject", _SUBJECT, nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("state", _states(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", _TIME, nullable=True),
        sa.Column("code", _SHORT, nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("finished_at", _TIME, nullable=True),
        sa.UniqueConstraint("event_id", name=op.f("uq_webhook_delivery_event_id")),
    )
    columns = ["state", "next_attempt_at"]
    op.create_index(op.f("ix_webhook_delivery_state_next_attempt_at"), "webhook_delivery", columns)
    op.create_table(
        "alert",
        sa.Column("id", _BIG, primary_key=True, nullable=False),
        sa.Column("kind", _SHORT, nullable=False),
        sa.Column("subject", _SUBJECT, nullable=False),
        sa.Column("raised", sa.Boolean(), nullable=False),
        sa.Column("told_value", sa.Integer(), nullable=True),
        sa.Column("told_at", _TIME, nullable=True),
        sa.UniqueConstraint("kind", "subject", name=op.f("uq_alert_kind_subject")),
    )


def downgrade() -> None:
    """Take the schema back to the revision before; what was told is forgotten, and may be told again."""
    op.drop_table("alert")
    op.drop_table("webhook_delivery")


def _states() -> Any:
    return sa.Enum(
        *_STATES, name="webhook_delivery_state", native_enum=False, create_constraint=True, length=20
    )
