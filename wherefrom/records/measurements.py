"""Measured effects on their way: what was asked, who works on it, what came out.

An effect is measured by training again without a citation's training example; sign rule as everywhere: positive = the example made
the flagged output more likely.
"""

from datetime import datetime
from enum import StrEnum

from pydantic import Field

from wherefrom.records.bounds import Items
from wherefrom.records.flagged import FlaggedRecord, Frozen
from wherefrom.records.leases import Lease


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
    """What an effect meter found about one citation."""

    #: Mean change of the output's mean loss without the example, nats per token.
    effect_nats: float
    #: 95 % interval over seeds; None for weak methods, which have one run.
    low_nats: float | None = None
    high_nats: float | None = None
    #: Distance from the controls in standard errors; None where it cannot be told.
    z: float | None = None
    seeds: int = Field(ge=0)
    controls: Items[ControlEffect] = ()
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

    @property
    def lease(self) -> Lease:
        """The fencing token."""
        return Lease(id=self.measurement_id, attempt=self.attempt, owner=self.owner)


class MeasurementRecord(Frozen):
    """One measurement as readers see it."""

    measurement_id: int
    audit_id: int
    rank: int
    example_id: str
    method: Method
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
    group: Items[str] = ()
    weak: bool
    cost_seconds: float | None = None
    requested_by: str
    created_at: datetime
    finished_at: datetime | None = None
