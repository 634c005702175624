"""The trail, the keys of its digests, and the lease of the process that seals it."""

from datetime import datetime
from typing import Any

from sqlalchemy import Index, LargeBinary, String, text
from sqlalchemy.orm import Mapped, mapped_column

from db.models.columns import BIG, Base, Id, Now, Sha256, Short

_UNSEALED = text("sequence IS NULL")
_JOURNALED = text("journal_id IS NOT NULL")


class TrailEvent(Base):
    """One line of the append-only trail. No foreign keys: the trail outlives what it tells of.

    Triggers refuse to change or delete a row. One change is allowed, and once: the sealer sets `sequence`, `prev_hash` and `row_hash`
    together, which are NULL until then (`db.audit_trail.trail_chain`).
    """

    __tablename__ = "trail_event"
    __table_args__ = (
        Index("ix_trail_event_unsealed", "id", sqlite_where=_UNSEALED, postgresql_where=_UNSEALED),
        Index(
            "uq_trail_event_journal_id",
            "journal_id",
            unique=True,
            sqlite_where=_JOURNALED,
            postgresql_where=_JOURNALED,
        ),
        Index("uq_trail_event_sequence", "sequence", unique=True),
        Index("ix_trail_event_kind_id", "kind", "id"),
        Index("ix_trail_event_actor_id", "actor", "id"),
        Index("ix_trail_event_at", "at"),
    )

    id: Mapped[Id]
    at: Mapped[Now]
    kind: Mapped[Short]
    subject: Mapped[Short] = mapped_column(index=True)
    payload: Mapped[dict[str, Any]]
    prev_hash: Mapped[Sha256 | None]
    row_hash: Mapped[Sha256 | None]
    #: Who did it: ``person:3``, ``api_key:<prefix>``, ``local``, ``operator``, ``service``. NULL where an older release wrote the event.
    actor: Mapped[Short | None]
    #: Id of the line of a journal that the event was moved from; no line is moved twice.
    journal_id: Mapped[Short | None]
    #: Place in the chain, from 1 on.
    sequence: Mapped[int | None] = mapped_column(BIG)


class ItemKey(Base):
    """The key of what the trail says of one item's text. Destroyed with the text, so that the trail's digest of it can no longer be tried out."""

    __tablename__ = "item_key"

    #: ``table:id`` of the item.
    subject: Mapped[str] = mapped_column(String(200), primary_key=True)
    key: Mapped[bytes] = mapped_column(LargeBinary)


class ServiceLease(Base):
    """Work that one process of the service does at a time."""

    __tablename__ = "service_lease"

    name: Mapped[str] = mapped_column(String(200), primary_key=True)
    owner: Mapped[Short]
    until: Mapped[datetime]
