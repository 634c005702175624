"""Queues of measurements, what-ifs and parts of builds: claimed one at a time, so a claim is an attempt; one that cannot be answered is dead."""

from collections.abc import Mapping
from typing import Any, ClassVar, Generic, TypeVar

from sqlalchemy.orm import Session

from db.audit_trail.trail import TrailKind
from db.queues.leases import token
from db.queues.queue import LeasedQueue, ending_of, ending_values
from wherefrom.records import (
    ClaimedGroup,
    ClaimedMeasurement,
    ClaimedPart,
    ClaimedWhatIf,
    Lease,
    MeasurementState,
)

Claimed = TypeVar("Claimed", ClaimedMeasurement, ClaimedGroup, ClaimedWhatIf, ClaimedPart)


class SingleClaims(LeasedQueue[MeasurementState], Generic[Claimed]):
    """What the queues of measurements, of citations and of groups, of what-ifs and of parts of builds do alike; a subclass says what a worker is given."""

    pending = MeasurementState.PENDING
    dead = MeasurementState.DEAD
    refused = MeasurementState.DEAD
    ended: ClassVar[Mapping[str, TrailKind]] = {MeasurementState.DEAD: TrailKind.MEASUREMENT_DEAD}
    retried, released = TrailKind.MEASUREMENT_RETRIED, TrailKind.MEASUREMENT_RELEASED

    def claim(
        self, parent_id: int, *, owner: str, lease_s: float, max_attempts: int | None = None
    ) -> Claimed | None:
        """Take the oldest piece of work of a bundle, or of a build, that is due, or whose lease ran out; None when there is none.

        Args:
            parent_id: The bundle, or the build.
            owner: Name of the claimer, unique among all that live.
            lease_s: How long it stays taken without `extend`, seconds.
            max_attempts: Expired ones with as many attempts are left to `release_expired`.
        """
        with self._database.writing() as session:
            taken = self._take(
                session, parent_id, owner=owner, limit=1, lease_s=lease_s, max_attempts=max_attempts
            )
            return self._claimed(session, taken[0], owner) if taken else None

    def _answer(self, session: Session, lease: Lease, **found: Any) -> bool:
        """End a held row with what was found, by columns; False when another worker holds it by now."""
        ending = ending_of(self.row, *found).returning(self.row.id)
        values = token(lease) | ending_values(MeasurementState.DONE, None, None, **found)
        return session.scalar(ending.execution_options(synchronize_session=False), values) is not None

    def _claimed(self, session: Session, number: int, owner: str) -> Claimed:
        """What a worker is given of what was just taken."""
        raise NotImplementedError
