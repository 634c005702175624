"""Builds over many machines. The release before does not know the tables."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0035"
down_revision: str | None = "0034"
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
        "shared_build",
        sa.Column("id", _BIG, primary_key=True, nullable=False),
        sa.Column("identity", sa.String(64), nullable=False),
        sa.Column("store", sa.Text(), nullable=False),
        sa.Column("plan", _JSON, nullable=False),
        sa.Column("parts", sa.Integer(), nullable=False),
        sa.Column("tokens", _BIG, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        _null("refused_by", _SHORT),
        _null("refused_code", _SHORT),
        _null("refused_reason", sa.Text()),
        _null("refused_at", _TIME),
        sa.UniqueConstraint("identity", name=op.f("uq_shared_build_identity")),
    )
    op.create_table(
        "build_part",
        sa.Column("id", _BIG, primary_key=True, nullable=False),
        sa.Column(
            "build_id",
            _BIG,
            sa.ForeignKey("shared_build.id", name=op.f("fk_build_part_build_id")),
            nullable=False,
        ),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("state", _states(), nullable=False),
        sa.Column("first_row", _BIG, nullable=False),
        sa.Column("num_rows", sa.Integer(), nullable=False),
        sa.Column("tokens", _BIG, nullable=False),
        sa.Column("rows_sha256", sa.String(64), nullable=False),
        _null("output", _JSON),
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
        sa.UniqueConstraint("build_id", "number", name=op.f("uq_build_part_build_id_number")),
        sa.CheckConstraint(
            "(state = 'running') = (lease_owner IS NOT NULL)", name=op.f("ck_build_part_running_has_owner")
        ),
    )
    op.create_index("ix_build_part_build_id_state_id", "build_part", ["build_id", "state", "id"])


def downgrade() -> None:
    """Take the schema back to the revision before; what was planned is gone, files of finished parts stay in their folders."""
    op.drop_table("build_part")
    op.drop_table("shared_build")


def _states() -> Any:
    return sa.Enum(*_STATES, name="build_part_state", native_enum=False, create_constraint=True, length=20)


def _null(name: str, kind: Any) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=True)
