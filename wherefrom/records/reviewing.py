"""Review queues as people see them: what they hold, who works on them, how far they are."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from wherefrom.records.audits import AuditSummary
from wherefrom.records.bounds import Items
from wherefrom.records.filters import AuditFilter
from wherefrom.records.flagged import Frozen, Text
from wherefrom.records.people import PersonRef


class QueueOrder(StrEnum):
    """In which order a queue is worked off; it is stated when the queue is made and stays."""

    OLDEST = "oldest"
    NEWEST = "newest"
    SEVERITY = "severity"
    SHUFFLED = "shuffled"

    @property
    def meaning(self) -> str:
        """The order in words."""
        return _ORDERS[self]


_ORDERS = {
    QueueOrder.OLDEST: "oldest first",
    QueueOrder.NEWEST: "newest first",
    QueueOrder.SEVERITY: "most severe first, then oldest",
    QueueOrder.SHUFFLED: "in a fixed random order",
}


class ItemState(StrEnum):
    """Where an audit stands in a queue."""

    #: Not judged by as many people as the queue asks for.
    OPEN = "open"
    DONE = "done"
    #: Taken out by hand; the rule does not bring it back.
    REMOVED = "removed"


QueueName = Annotated[Text, Field(min_length=1, max_length=200)]


class QueueDraft(Frozen):
    """A review queue to be made."""

    name: QueueName = Field(description="Name of the queue, unique for ever.", examples=["refunds"])
    rule: AuditFilter | None = Field(
        default=None,
        description="Audits that enter by themselves once they are answered; without it, audits are put in by hand.",
    )
    order: QueueOrder = Field(default=QueueOrder.OLDEST, description="Order in which it is worked off.")
    reviewers: int = Field(default=1, ge=1, le=5, description="How many people judge each audit.")
    dedupe: bool = Field(default=True, description="Let equal outputs in once.")
    blind: bool = Field(
        default=False,
        description="Hide scores, ranks and confidences, and mix in training examples at random.",
    )


class QueueSummary(QueueDraft):
    """A review queue with what it holds."""

    queue_id: int
    created_by: str | None = Field(description="Who made it.")
    created_at: datetime
    closed_at: datetime | None = Field(description="From when nothing more enters.")
    filled_at: datetime | None = Field(description="When its rule was last applied.")
    open: int = Field(description="Audits that wait for people; 10,001 means more than 10,000.")
    done: int
    removed: int
    mine: int = Field(default=0, description="Open audits that are assigned to whoever asks.")


class QueueItem(Frozen):
    """One audit in a queue."""

    item_id: int
    queue_id: int
    state: ItemState
    assigned: Items[PersonRef] = Field(description="Who has it or had it.")
    finished: int = Field(description="How many people have judged it.")
    added_at: datetime
    audit: AuditSummary


class PersonProgress(Frozen):
    """How far one person is with a queue."""

    person: PersonRef
    member: bool = Field(description="Whether they may take audits of the queue by themselves.")
    assigned: int
    finished: int
    last_finished_at: datetime | None


class Added(Frozen):
    """What became of audits that were put into a queue."""

    matched: int = Field(description="Answered audits that match.")
    added: int
    assigned: int = 0
