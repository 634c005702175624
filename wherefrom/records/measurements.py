"""Measured effects on their way: what was asked, who works on it, what came out.

An effect is measured by training again without a citation's training example; sign rule as everywhere: positive = the example made
the flagged output more likely.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from wherefrom.records.bounds import MAX_GROUP, MAX_SOURCE, Items
from wherefrom.records.flagged import FlaggedRecord, Frozen, sha256_of_json
from wherefrom.records.leases import Lease

_ExampleId = Annotated[str, StringConstraints(min_length=1, max_length=MAX_SOURCE)]


class Method(StrEnum):
    """How an effect is measured, the strongest evidence first."""

    #: Fine-tune again without the example, beside controls and over several seeds.
    REFIT = "refit"
    #: One gradient step on the example from the final weights. Weak.
    ONE_STEP = "one-step"
    #: One gradient step away from the example. Weak.
    UNLEARN = "unlearn"


class MeasurementState(StrEnum):
    """Where a measurement stands; `dead` carries a code and a reason."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    DEAD = "dead"

    @property
    def is_open(self) -> bool:
        """Not at its end yet: a worker has it or will have it."""
        return self in (MeasurementState.PENDING, MeasurementState.RUNNING)


class ControlEffect(Frozen):
    """What leaving out other, like training examples did: the scale on which the effect is to be read."""

    example_ids: Items[str]
    effect_nats: float


class MeasuredEffect(Frozen):
    """What an effect meter found about one citation, or about a group of training examples."""

    #: Mean change of the output's mean loss without the example, nats per token; of a refit, what it does beyond the mean of the controls.
    effect_nats: float
    #: 95 % interval; leaves 0 out where abs(z) > 1.96. None for weak methods, which have one run.
    low_nats: float | None = None
    high_nats: float | None = None
    #: The same as the interval, on the scale of the normal distribution; None where it cannot be told.
    z: float | None = None
    seeds: int = Field(ge=0)
    controls: Items[ControlEffect] = ()
    #: Mean change of the loss over the controls, which was taken off the effect and off each control; None where nothing was taken off.
    controls_mean_nats: float | None = None
    #: Ids of all training examples that were left out together: the example and what says the same.
    group: Items[str]
    #: True for methods that do not train again.
    weak: bool
    #: What all runs behind the result took, runs shared with other citations included.
    cost_seconds: float = Field(ge=0)


class ClaimedMeasurement(Frozen):
    """One measurement that a worker holds."""

    measurement_id: int
    owner: str
    bundle_id: int
    bundle_name: str
    attempt: int
    method: Method
    audit_id: int
    rank: int
    example_id: str
    #: The flagged output; None where its text was erased meanwhile.
    record: FlaggedRecord | None
    #: Where the trace of its output goes on.
    traceparent: str | None = None

    @property
    def lease(self) -> Lease:
        """The fencing token."""
        return Lease(id=self.measurement_id, attempt=self.attempt, owner=self.owner)


class ExpectedCost(Frozen):
    """What one measurement will take, all of its trainings new; about."""

    trainings: int
    seconds: float
    #: Memory of weights, gradients and moments; what the batches need comes on top.
    memory_bytes: int
    #: Tokens of one training.
    tokens: int
    #: Whether the seconds come from finished trainings, rather than from the model's size.
    timed: bool


class MeasuringCheck(Frozen):
    """Whether effects can be measured over a bundle."""

    #: Stable code of what stands in the way; None where nothing does.
    code: str | None = None
    reason: str | None = None
    cost: ExpectedCost | None = None


class GroupRequest(Frozen):
    """Training examples whose common effect is asked for: a list of ids, or all of one source."""

    example_ids: Annotated[tuple[_ExampleId, ...], Field(max_length=MAX_GROUP)] = ()
    source: str | None = Field(default=None, min_length=1, max_length=MAX_SOURCE)

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if bool(self.example_ids) == (self.source is not None):
            raise ValueError("give either example_ids or source")
        return self

    def key(self) -> str:
        """A hash that is the same for the same request, whatever the order of the ids."""
        return sha256_of_json([sorted(set(self.example_ids)), self.source])

    def __str__(self) -> str:
        """In words."""
        if self.source is not None:
            return f"source {self.source}"
        number = len(set(self.example_ids))
        return f"{number} training example{'' if number == 1 else 's'}"


class ClaimedGroup(Frozen):
    """One measurement of a group that a worker holds."""

    measurement_id: int
    owner: str
    bundle_id: int
    bundle_name: str
    attempt: int
    audit_id: int
    request: GroupRequest
    #: The flagged output; None where its text was erased meanwhile.
    record: FlaggedRecord | None
    #: Where the trace of its output goes on.
    traceparent: str | None = None

    @property
    def lease(self) -> Lease:
        """The fencing token."""
        return Lease(id=self.measurement_id, attempt=self.attempt, owner=self.owner)


class Outcome(Frozen):
    """Where a measurement stands, and what came out."""

    measurement_id: int
    audit_id: int
    state: MeasurementState
    code: str | None = None
    reason: str | None = None
    attempt: int
    effect_nats: float | None = None
    low_nats: float | None = None
    high_nats: float | None = None
    z: float | None = None
    seeds: int | None = None
    controls: Items[ControlEffect] = ()
    controls_mean_nats: float | None = None
    group: Items[str] = ()
    cost_seconds: float | None = None
    #: Why it failed before it was asked for again; None where it did not.
    last_code: str | None = None
    last_reason: str | None = None
    #: What it will take; told when it is asked for.
    expected: ExpectedCost | None = None
    requested_by: str
    created_at: datetime
    finished_at: datetime | None = None


class MeasurementRecord(Outcome):
    """One measurement of a citation as readers see it."""

    rank: int
    example_id: str
    method: Method
    weak: bool


class GroupMeasurementRecord(Outcome):
    """One measurement of a group as readers see it; `group` holds the first ids of those that were left out."""

    #: What was asked for.
    request: GroupRequest
    #: Training examples that were left out together; None until it is measured.
    group_size: int | None = None
