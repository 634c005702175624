"""Notices: what the service tells a webhook by itself, and how far each is on its way.

A notice holds ids, counts, names of sources and links, never a text that was flagged or learned.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import Field

from wherefrom.records.bounds import MAX_SOURCE, Details
from wherefrom.records.flagged import Frozen

#: Bytes of the body of one notice. A source's name has at most 500 characters, so nothing that wherefrom says comes near.
MAX_NOTICE_BYTES = 16_384


class NoticeKind(StrEnum):
    """What is told. Receivers choose by it, so a member's value never changes."""

    #: The first citations of many of the newest outputs lie in one source, and its size does not explain it.
    SOURCE_BLAMED = "source.blamed"
    #: Many audits wait in a review queue.
    QUEUE_FILLED = "queue.filled"
    #: Many audits are dead.
    AUDITS_DEAD = "audits.dead"
    #: One that was told has fallen well below its threshold, or is gone.
    SOURCE_BLAMED_RESOLVED = "source.blamed.resolved"
    QUEUE_FILLED_RESOLVED = "queue.filled.resolved"
    AUDITS_DEAD_RESOLVED = "audits.dead.resolved"
    #: An operator asked for it (`python -m worker notify test`).
    TEST = "test"

    @property
    def resolved(self) -> "NoticeKind":
        """The kind that takes one back that was told."""
        return NoticeKind(f"{self.value}.resolved")


class DeliveryState(StrEnum):
    """Where a notice stands; `dead` carries a code and a reason."""

    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"


class Notice(Frozen):
    """One thing to tell."""

    kind: NoticeKind
    #: Of what: the name of a source, or the number of a queue; empty where there is one of its kind.
    subject: str = Field(default="", max_length=MAX_SOURCE)
    #: Ids, counts, names of sources and links.
    data: Details = Field(default_factory=dict)


class Level(Frozen):
    """How far something is that is told when it reaches its threshold."""

    notice: Notice
    value: int
    threshold: int
    #: False: the value counts neither as reached nor as over, whatever it is.
    is_certain: bool = True


class Outgoing(Frozen):
    """A notice as it is sent: the same id and the same bytes with every try."""

    delivery_id: int
    event_id: str
    body: str
    #: Tries, this one included.
    attempt: int


class Delivery(Frozen):
    """A notice and what became of it."""

    delivery_id: int
    event_id: str
    kind: NoticeKind
    subject: str
    state: DeliveryState
    attempt: int = Field(description="Tries so far.")
    code: str | None = Field(description="Why the last try failed.")
    reason: str | None
    created_at: datetime
    next_attempt_at: datetime | None
    finished_at: datetime | None


def notice_body(notice: Notice, *, at: datetime) -> dict[str, Any]:
    """What a receiver reads: `type`, `timestamp` and `data`, as Standard Webhooks names them."""
    data = {"subject": notice.subject, **notice.data}
    return {"type": notice.kind.value, "timestamp": at.isoformat(timespec="seconds"), "data": data}
