"""Erasure, retention and legal hold. The release before does not know the tables; it shows an erased training example as an empty one."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0031"
down_revision: str | None = "0030"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_BIG = sa.Integer().with_variant(sa.BigInteger(), "postgresql")
_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
_TIME = sa.DateTime(timezone=True)
_SHORT = sa.String(200)
_OPEN = sa.text("done_at IS NULL OR cleaned_at IS NULL")
_KEPT = sa.text("erased_at IS NULL")


def _reference(table: str, name: str, target: str, *, nullable: bool = False) -> sa.Column[int]:
    key = sa.ForeignKey(f"{target}.id", name=op.f(f"fk_{table}_{name}"))
    return sa.Column(name, _BIG, key, nullable=nullable, autoincrement=False)


def _id() -> sa.Column[int]:
    return sa.Column("id", _BIG, nullable=False)


def _null(name: str, kind: sa.types.TypeEngine[Any]) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=True)


def _given(name: str, kind: sa.types.TypeEngine[Any]) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=False)


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.add_column("flagged_output", _null("erased_by", _SHORT))
    op.add_column("training_example", _null("erased_at", _TIME))
    op.add_column("training_example", _null("erased_by", _SHORT))
    op.create_index(
        "ix_flagged_output_kept", "flagged_output", ["id"], sqlite_where=_KEPT, postgresql_where=_KEPT
    )
    _create_rules()
    _create_holds()
    op.create_table(
        "erasure",
        _id(),
        _given("kind", sa.String(20)),
        _given("reason", sa.Text()),
        _given("asked_by", _SHORT),
        _given("asked_at", _TIME),
        _reference("erasure", "rule_id", "retention_rule", nullable=True),
        _null("chosen", _JSON),
        _given("erased", sa.Integer()),
        _null("done_at", _TIME),
        _null("cleaned_at", _TIME),
        _null("code", _SHORT),
        _null("refused", sa.Text()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_erasure")),
    )
    op.create_index("ix_erasure_open", "erasure", ["id"], sqlite_where=_OPEN, postgresql_where=_OPEN)
    op.create_table(
        "erased_bundle",
        _reference("erased_bundle", "bundle_id", "bundle"),
        _reference("erased_bundle", "erasure_id", "erasure"),
        _given("asked_at", _TIME),
        _null("deleted_at", _TIME),
        sa.PrimaryKeyConstraint("bundle_id", name=op.f("pk_erased_bundle")),
    )


def _create_rules() -> None:
    op.create_table(
        "retention_rule",
        _id(),
        _given("name", _SHORT),
        _given("outputs", _JSON),
        _given("days", sa.Integer()),
        _given("created_by", _SHORT),
        _given("created_at", _TIME),
        _null("ended_at", _TIME),
        _given("after_id", _BIG),
        _null("looked_at", _TIME),
        _given("erased", _BIG),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_retention_rule")),
        sa.UniqueConstraint("name", name=op.f("uq_retention_rule_name")),
    )


def _create_holds() -> None:
    op.create_table(
        "legal_hold",
        _id(),
        _null("outputs", _JSON),
        _given("reason", sa.Text()),
        _given("placed_by", _SHORT),
        _given("placed_at", _TIME),
        _null("lifted_by", _SHORT),
        _null("lifted_at", _TIME),
        _null("lift_reason", sa.Text()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_legal_hold")),
    )
    op.create_table(
        "legal_hold_audit",
        _reference("legal_hold_audit", "hold_id", "legal_hold"),
        _reference("legal_hold_audit", "audit_id", "audit"),
        sa.PrimaryKeyConstraint("hold_id", "audit_id", name=op.f("pk_legal_hold_audit")),
    )
    op.create_index(op.f("ix_legal_hold_audit_audit_id"), "legal_hold_audit", ["audit_id"])


def downgrade() -> None:
    """Take the schema back to the revision before. Rules and holds are lost; what was erased stays erased."""
    op.drop_table("erased_bundle")
    op.drop_table("erasure")
    op.drop_table("legal_hold_audit")
    op.drop_table("legal_hold")
    op.drop_table("retention_rule")
    op.drop_index("ix_flagged_output_kept", "flagged_output")
    op.drop_column("training_example", "erased_by")
    op.drop_column("training_example", "erased_at")
    op.drop_column("flagged_output", "erased_by")
