"""What if a fix list had been left out: asked, scored by a worker output by output, read.

A prediction, never a measurement: it adds what each row does by itself. Rows that say the same hide each other, so the whole of a group may do more or less than its sum.
"""

from datetime import datetime
from typing import Annotated

from pydantic import Field

from wherefrom.records.bounds import MAX_GROUP, Details, Items
from wherefrom.records.flagged import FlaggedRecord, Frozen
from wherefrom.records.leases import Lease
from wherefrom.records.measurements import MeasurementState

#: Most outputs of one question.
MAX_OUTPUTS = 2000
#: Random lists of the same length that an output's score is held against.
RANDOM_LISTS = 199

#: The warning that stands beside every such prediction.
GROUP_WARNING = (
    "The rows' own effects are added. Rows that say the same stand in for each other: leaving one of them out does little, leaving out all of them "
    "may do far more than the sum. Only a measured check, a training without the whole list, tells."
)
#: What the prediction was worth where the truth is known (docs/quality/deep-model.md).
CHECKED = (
    "On 32 trainings of a model of 135 M parameters, each without half of its 96 rows, predicted and measured effects of the whole list agree with a Spearman of .62 "
    "(95 %: .47 to .74). For lists of 3 to 20 rows these trainings are too noisy to tell."
)


class ListScore(Frozen):
    """What leaving a list out would do to one output, by the exact tier."""

    key: str
    #: Sum of the rows' influence on the output's loss, in the unit of the bundle's kernel; positive = the list made the output more likely.
    score: float
    #: The same in spreads of random lists of the same length, above their mean; None in a corpus too small to tell.
    z: float | None = None
    #: Share of random lists that score as high or higher, itself counted.
    chance: float | None = None
    #: Predicted change of the output's mean loss beyond random lists of the same length, nats per token, with how far those scatter; None without a fitted scale.
    effect_nats: float | None = None
    low_nats: float | None = None
    high_nats: float | None = None
    #: The scale behind the nats.
    basis: str | None = None


class WhatIfOutput(Frozen):
    """One output of a what-if."""

    audit_id: int
    excerpt: str
    flag_reason: str
    score: float | None
    z: float | None
    chance: float | None
    effect_nats: float | None
    low_nats: float | None
    high_nats: float | None
    code: str | None = Field(description="Why it was not scored.")
    differs: bool | None = Field(
        default=None,
        description="Whether the prediction can be told from nothing: its range in nats holds no 0, or without nats fewer than 2.5 % of random lists score as high, or as low. Null where neither is known.",
    )


def differs(*, chance: float | None, low_nats: float | None, high_nats: float | None) -> bool | None:
    """Whether a prediction can be told from nothing at 95 %; None where nothing says how far random lists scatter."""
    if low_nats is not None and high_nats is not None:
        return not low_nats <= 0 <= high_nats
    return None if chance is None else not _TAIL < chance < 1 - _TAIL


_TAIL = 0.025


class WhatIfRecord(Frozen):
    """A what-if, where it stands."""

    what_if_id: int
    list_id: int
    bundle: str
    state: MeasurementState
    code: str | None
    reason: str | None
    rows: int = Field(description="Rows to remove or to fix that the bundle's corpus holds; they are scored.")
    other_rows: int = Field(description="Rows of the list that the bundle's corpus does not hold.")
    outputs: int
    scored: int
    basis: str | None = Field(
        description="The fitted scale behind the nats; null where there is none, and then there are none."
    )
    filter: Details
    requested_by: str
    created_at: datetime
    finished_at: datetime | None


class ClaimedWhatIf(Frozen):
    """Some outputs of a what-if that a worker holds."""

    what_if_id: int
    owner: str
    bundle_id: int
    bundle_name: str
    attempt: int
    #: Rows of the corpus, from 0.
    rows: Annotated[tuple[int, ...], Field(max_length=MAX_GROUP)]
    outputs: Items[tuple[int, FlaggedRecord]]
    #: Audits whose text was erased, or cannot be read.
    unreadable: Items[int] = ()

    @property
    def lease(self) -> Lease:
        """The fencing token."""
        return Lease(id=self.what_if_id, attempt=self.attempt, owner=self.owner)
