"""Measured effects of groups of training examples, why a measurement failed before it was asked for again, and what measurers checked.

Tables of their own and columns that may be empty: the release before goes on measuring citations and does not see the groups.
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0014"
down_revision: str | None = "0013"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_BIG = sa.Integer().with_variant(sa.BigInteger(), "postgresql")
_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
_TIME = sa.DateTime(timezone=True)
_NUMBER = sa.Float(53)
_SHORT = sa.String(200)
_NEW: tuple[tuple[str, Any], ...] = (
    ("controls_mean_nats", _NUMBER),
    ("last_code", _SHORT),
    ("last_reason", sa.Text()),
)


def upgrade() -> None:
    """Bring the schema to this revision."""
    for name, kind in _NEW:
        op.add_column("measurement", _null(name, kind))
    op.create_table(
        "group_measurement",
        _col("id", _BIG, primary_key=True),
        _ref("audit_id", "audit.id"),
        _ref("bundle_id", "bundle.id"),
        _col("group_key", sa.String(64)),
        _null("source", sa.Text()),
        _null("example_ids", _JSON),
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
        _null("group_size", sa.Integer()),
        _null("cost_seconds", _NUMBER),
        *(_null(name, kind) for name, kind in _NEW),
        _col("requested_by", _SHORT),
        _col("created_at", _TIME),
        _null("claimed_at", _TIME),
        _null("finished_at", _TIME),
        sa.UniqueConstraint("audit_id", "group_key", name=op.f("uq_group_measurement_audit_id_group_key")),
        sa.CheckConstraint(
            "(state = 'running') = (lease_owner IS NOT NULL)",
            name=op.f("ck_group_measurement_running_has_owner"),
        ),
    )
    op.create_table(
        "measuring_check",
        sa.Column(
            "bundle_id",
            _BIG,
            sa.ForeignKey("bundle.id", name=op.f("fk_measuring_check_bundle_id")),
            primary_key=True,
            nullable=False,
        ),
        _null("code", _SHORT),
        _null("reason", sa.Text()),
        _null("cost", _JSON),
        _col("checked_at", _TIME),
    )
    op.create_index(
        op.f("ix_group_measurement_bundle_id_state_id"), "group_measurement", ["bundle_id", "state", "id"]
    )


def downgrade() -> None:
    """Take the schema back to the revision before; what was measured of groups is gone."""
    op.drop_table("measuring_check")
    op.drop_table("group_measurement")
    for name, _ in reversed(_NEW):
        op.drop_column("measurement", name)


def _col(name: str, kind: Any, *, primary_key: bool = False) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=False, primary_key=primary_key)


def _null(name: str, kind: Any) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=True)


def _ref(name: str, target: str) -> sa.Column[Any]:
    key = sa.ForeignKey(target, name=op.f(f"fk_group_measurement_{name}"))
    return sa.Column(name, _BIG, key, nullable=False)


def _enum(name: str, *values: str, column: str | None = None) -> sa.Column[Any]:
    kind = sa.Enum(*values, name=name, native_enum=False, create_constraint=True, length=20)
    return sa.Column(column or name, kind, nullable=False)
