"""Measured effects: a queue of their own beside the audits'. The release before does not know the table."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_BIG = sa.Integer().with_variant(sa.BigInteger(), "postgresql")
_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
_TIME = sa.DateTime(timezone=True)
_NUMBER = sa.Float(53)
_SHORT = sa.String(200)


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.create_table(
        "measurement",
        _col("id", _BIG, primary_key=True),
        _ref("citation_id", "citation.id"),
        _ref("bundle_id", "bundle.id"),
        _enum("method", "refit", "one-step", "unlearn"),
        _enum("measurement_state", "pending", "running", "done", "dead", column="state"),
        _null("code", _SHORT),
        _null("reason", sa.Text()),
        _col("attempt", sa.Integer()),
        _col("attempt_floor", sa.Integer()),
        _null("lease_owner", _SHORT),
        _null("lease_until", _TIME),
        _null("next_attempt_at", _TIME),
        _null("effect_nats", _NUMBER),
        _null("low_nats", _NUMBER),
        _null("high_nats", _NUMBER),
        _null("z", _NUMBER),
        _null("seeds", sa.Integer()),
        _null("controls", _JSON),
        _null("left_out", _JSON),
        _col("weak", sa.Boolean()),
        _null("cost_seconds", _NUMBER),
        _col("requested_by", _SHORT),
        _col("created_at", _TIME),
        _null("claimed_at", _TIME),
        _null("finished_at", _TIME),
        sa.UniqueConstraint("citation_id", "method", name=op.f("uq_measurement_citation_id_method")),
        sa.CheckConstraint(
            "(state = 'running') = (lease_owner IS NOT NULL)", name=op.f("ck_measurement_running_has_owner")
        ),
    )
    op.create_index(op.f("ix_measurement_bundle_id_state_id"), "measurement", ["bundle_id", "state", "id"])


def downgrade() -> None:
    """Take the schema back to the revision before; what was measured stays with its citation."""
    op.drop_table("measurement")


def _col(name: str, kind: Any, *, primary_key: bool = False) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=False, primary_key=primary_key)


def _null(name: str, kind: Any) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=True)


def _ref(name: str, target: str) -> sa.Column[Any]:
    key = sa.ForeignKey(target, name=op.f(f"fk_measurement_{name}"))
    return sa.Column(name, _BIG, key, nullable=False)


def _enum(name: str, *values: str, column: str | None = None) -> sa.Column[Any]:
    kind = sa.Enum(*values, name=name, native_enum=False, create_constraint=True, length=20)
    return sa.Column(column or name, kind, nullable=False)
