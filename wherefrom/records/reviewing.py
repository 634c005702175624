"""Review queues as people see them: what they hold, who works on them, how far they are."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from wherefrom.records.audits import AuditDetail, AuditSummary
from wherefrom.records.bounds import Items
from wherefrom.records.filters import AuditFilter
from wherefrom.records.flagged import Frozen, Message, Text
from wherefrom.records.people import PersonRef
from wherefrom.records.verdicts import Verdict


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


class ToJudge(Frozen):
    """A training example of a blind item, in the order that everybody sees."""

    training_example_id: int
    prompt: str
    completion: str
    mine: Verdict | None = Field(
        default=None, description="What whoever asks finds; null where it is still to be said."
    )


class WorkItem(Frozen):
    """One audit of a queue with what is needed to judge it."""

    item: QueueItem
    detail: AuditDetail | None = Field(description="The whole audit; null in a blind queue.")
    turns: Items[Message] = Field(default=(), description="Of a blind queue: what came before the output.")
    completion: str = Field(default="", description="Of a blind queue: the output.")
    rows: Items[ToJudge] = Field(
        default=(), description="Of a blind queue: the training examples to be judged."
    )


class PersonRecord(PersonRef):
    """Somebody who can be given audits."""

    created_at: datetime
    has_key: bool = Field(description="A key proves who they are; without one, anybody can choose the name.")


class PairAgreement(Frozen):
    """Two people who judged the same targets."""

    first: str
    second: str
    pairs: int = Field(description="Targets that both judged.")
    observed: float = Field(description="Share of them on which both said the same.")
    kappa: float | None = Field(
        description="Cohen's kappa; null where chance alone explains that they agree."
    )
    kappa_low: float | None = Field(description="Lower end of its 95 % interval.")
    kappa_high: float | None = Field(description="Upper end of its 95 % interval.")
    differing: int = Field(description="Targets on which they differ.")
    differing_audits: Items[int] = Field(description="Some audits on which they differ, the newest first.")
