"""What belongs to a listing of audits beside its lines: its order, how many it finds, and views of it that people keep."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from wherefrom.records.audits import Support
from wherefrom.records.flagged import Frozen, Text


class AuditOrder(StrEnum):
    """In which order audits are listed."""

    NEWEST = "newest"
    OLDEST = "oldest"
    ANSWERED = "answered"
    SEVERITY = "severity"
    SCORE = "score"
    SUPPORT = "support"

    @property
    def meaning(self) -> str:
        """The order in words."""
        return _ORDERS[self]


_ORDERS = {
    AuditOrder.NEWEST: "newest first",
    AuditOrder.OLDEST: "oldest first",
    AuditOrder.ANSWERED: "answered last first",
    AuditOrder.SEVERITY: "most severe first, then oldest",
    AuditOrder.SCORE: "highest score first",
    AuditOrder.SUPPORT: "best supported first",
}


class ListingFacts(Frozen):
    """What a listing of audits says of itself as a whole."""

    matching: int = Field(description="Audits that the filters find; counting ends at 10,000.")
    more: bool = Field(description="There are more than `matching`.")
    support: Support | None = Field(
        default=None, description="What the calibration finds over all of them, where a rate was asked for."
    )
    as_of: datetime = Field(description="When it was worked out; of a large listing that may be a while ago.")

    def text(self) -> str:
        """The count in words."""
        return f"{'more than ' if self.more else ''}{self.matching:,}"


class SavedViewRecord(Frozen):
    """A list of audits that somebody keeps under a name."""

    view_id: int
    name: str
    owner: str = Field(description="Whose it is.")
    parameters: Annotated[dict[str, str], Field(max_length=50)] = Field(
        description="Parameters of the list as they were typed, so that `today` stays today."
    )
    created_at: datetime


class ViewDraft(Frozen):
    """A list of audits to be kept under a name; a view of that name is replaced."""

    name: Annotated[Text, Field(min_length=1, max_length=200)] = Field(
        description="Its name, unique among one's own.", examples=["refunds today"]
    )
    parameters: Annotated[dict[str, Text], Field(max_length=50)] = Field(
        description="Parameters of the list: filters, `fdr`, `unseen`, `sort`.",
        examples=[{"flag_reason": "refund_promise", "since": "today"}],
    )


class BulkAction(StrEnum):
    """What can be done to every audit that a filter finds."""

    #: Send abstained, rejected and dead audits back to the queue.
    REQUEUE = "requeue"
    #: Give one verdict on each answered audit as a whole.
    VERDICT = "verdict"
    #: Audit the outputs under another bundle too; the old answers stay.
    REAUDIT = "reaudit"
    #: Take back one's own verdicts on the audits as a whole.
    TAKE_BACK = "take_back"


class BulkPreview(Frozen):
    """How many audits of a filter each bulk action would change, before anything happens."""

    answered: int = Field(description="Answered audits, which can go into a review queue.")
    requeuable: int = Field(description="Abstained, rejected and dead audits that can be tried again.")
    unjudged: int = Field(description="Answered audits that whoever asks has not judged as a whole.")
    judged: int = Field(
        default=0, description="Audits that whoever asks has judged as a whole; the verdict stands."
    )
    reauditable: int | None = Field(
        default=None,
        description="Outputs with a text and without an audit under the bundle that was asked for; None where none was.",
    )
    most: int = Field(description="Counting ends here; a larger number means more than this.")
    as_of: datetime = Field(description="When it was counted.")


class BulkResult(Frozen):
    """What a bulk action did."""

    changed: int
    left: int = Field(description="Audits that another run would change; one run takes a bounded number.")
