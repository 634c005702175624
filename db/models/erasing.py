"""Erasures, the rules that erase by time, and the holds that keep both away."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from db.models.columns import BIG, JSON_COLUMN, Base, Id, Now, Short, key_reference, reference

_OPEN = text("done_at IS NULL OR cleaned_at IS NULL")


class RetentionRule(Base):
    """How long texts of a class of outputs are kept."""

    __tablename__ = "retention_rule"

    id: Mapped[Id]
    name: Mapped[Short] = mapped_column(unique=True)
    #: An `OutputClass` as JSON.
    outputs: Mapped[dict[str, Any]]
    days: Mapped[int]
    created_by: Mapped[Short]
    created_at: Mapped[Now]
    ended_at: Mapped[datetime | None]
    #: The look under way has come to this output; 0 before one begins.
    after_id: Mapped[int] = mapped_column(BIG, default=0)
    looked_at: Mapped[datetime | None]
    erased: Mapped[int] = mapped_column(BIG, default=0)


class LegalHold(Base):
    """Outputs that nothing erases: a class, or the audits in `LegalHoldAudit`."""

    __tablename__ = "legal_hold"

    id: Mapped[Id]
    #: An `OutputClass` as JSON; NULL where audits are named.
    outputs: Mapped[dict[str, Any] | None] = mapped_column(JSON_COLUMN)
    reason: Mapped[str]
    placed_by: Mapped[Short]
    placed_at: Mapped[Now]
    lifted_by: Mapped[Short | None]
    lifted_at: Mapped[datetime | None]
    lift_reason: Mapped[str | None]


class LegalHoldAudit(Base):
    """An audit that a hold names."""

    __tablename__ = "legal_hold_audit"

    hold_id: Mapped[int] = key_reference("legal_hold.id")
    audit_id: Mapped[int] = key_reference("audit.id", index=True)


class Erasure(Base):
    """One erasure, asked for or by a rule. A row is never deleted, and names no text."""

    __tablename__ = "erasure"
    __table_args__ = (Index("ix_erasure_open", "id", sqlite_where=_OPEN, postgresql_where=_OPEN),)

    id: Mapped[Id]
    kind: Mapped[str] = mapped_column(String(20))
    reason: Mapped[str]
    asked_by: Mapped[Short]
    asked_at: Mapped[Now]
    rule_id: Mapped[int | None] = mapped_column(BIG, ForeignKey("retention_rule.id"))
    #: What a request chose and is not done with: audits, or an `OutputClass` as JSON; NULL when it is done, because a class may name a person.
    chosen: Mapped[dict[str, Any] | None] = mapped_column(JSON_COLUMN)
    erased: Mapped[int] = mapped_column(default=0)
    done_at: Mapped[datetime | None]
    cleaned_at: Mapped[datetime | None]
    code: Mapped[Short | None]
    refused: Mapped[str | None]


class ErasedBundle(Base):
    """A bundle whose folder must go, because it holds a training example that was erased."""

    __tablename__ = "erased_bundle"

    bundle_id: Mapped[int] = key_reference("bundle.id")
    erasure_id: Mapped[int] = reference("erasure.id")
    asked_at: Mapped[Now]
    #: When its folder was first deleted; other machines delete theirs when they see it.
    deleted_at: Mapped[datetime | None]
