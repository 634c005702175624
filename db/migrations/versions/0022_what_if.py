"""What-ifs. The release before does not know the tables."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0022"
down_revision: str | None = "0021"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_BIG = sa.Integer().with_variant(sa.BigInteger(), "postgresql")
_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
_TIME = sa.DateTime(timezone=True)
_SHORT = sa.String(200)
_STATES = ("pending", "running", "done", "dead")


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.create_table(
        "what_if",
        sa.Column("id", _BIG, primary_key=True, nullable=False),
        _ref("what_if", "list_id", "fix_list.id"),
        _ref("what_if", "bundle_id", "bundle.id"),
        sa.Column("state", _states(), nullable=False),
        sa.Column("corpus_rows", _JSON, nullable=False),
        sa.Column("other_rows", sa.Integer(), nullable=False),
        sa.Column("filter", _JSON, nullable=False),
        _null("basis", _SHORT),
        sa.Column("requested_by", _SHORT, nullable=False),
        _null("code", _SHORT),
        _null("reason", sa.Text()),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("attempt_floor", sa.Integer(), nullable=False),
        _null("lease_owner", _SHORT),
        _null("lease_until", _TIME),
        _null("next_attempt_at", _TIME),
        sa.Column("created_at", _TIME, nullable=False),
        _null("claimed_at", _TIME),
        _null("finished_at", _TIME),
        sa.CheckConstraint(
            "(state = 'running') = (lease_owner IS NOT NULL)", name=op.f("ck_what_if_running_has_owner")
        ),
    )
    op.create_table(
        "what_if_output",
        _ref("what_if_output", "what_if_id", "what_if.id", primary_key=True, autoincrement=False),
        _ref("what_if_output", "audit_id", "audit.id", primary_key=True, autoincrement=False),
        sa.Column("scored", sa.Boolean(), nullable=False),
        *(
            _null(name, sa.Float(53))
            for name in ("score", "z", "chance", "effect_nats", "low_nats", "high_nats")
        ),
        _null("code", _SHORT),
    )
    for table, columns in (
        ("what_if", ("bundle_id", "state", "id")),
        ("what_if", ("list_id", "id")),
        ("what_if_output", ("audit_id",)),
        ("what_if_output", ("what_if_id", "scored", "audit_id")),
    ):
        op.create_index(op.f(f"ix_{table}_{'_'.join(columns)}"), table, list(columns))


def downgrade() -> None:
    """Take the schema back to the revision before; what-ifs are gone."""
    op.drop_table("what_if_output")
    op.drop_table("what_if")


def _states() -> Any:
    return sa.Enum(*_STATES, name="what_if_state", native_enum=False, create_constraint=True, length=20)


def _null(name: str, kind: Any) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=True)


def _ref(table: str, name: str, target: str, **options: Any) -> sa.Column[Any]:
    key = sa.ForeignKey(target, name=op.f(f"fk_{table}_{name}"))
    return sa.Column(name, _BIG, key, nullable=False, **options)
