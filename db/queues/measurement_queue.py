"""The queue of measurements: claimed one at a time (so a claim is an attempt), and stored together with the citation that they measure.

Claims and the ways out without an effect are those of every queue (`db.queues.queue`). When a measurement is done its citation becomes
tier `measured`.
"""

from sqlalchemy import ColumnElement, bindparam, exists, select, update
from sqlalchemy.orm import Session

from db.audit_trail.trail import TrailKind, record_events
from db.models import Bundle, Citation, Measurement, TrainingExample
from db.queues.claimed import measured_on
from db.queues.group_queue import GroupQueue
from db.queues.single_claims import SingleClaims
from wherefrom.records import ClaimedMeasurement, MeasuredEffect, MeasurementState, Tier


class MeasurementQueue(SingleClaims[ClaimedMeasurement]):
    """Measurements of citations, oldest first; those of groups, which are worked off after them, are its `groups`."""

    row = Measurement
    subject = "measurement"
    order = (Measurement.id,)

    @property
    def groups(self) -> GroupQueue:
        """The measurements of groups."""
        return GroupQueue(self._database)

    def pending_counts(self, *, at_most: int | None = None) -> dict[int, int]:
        """How many measurements, of citations and of groups, could be claimed now, by bundle id."""
        counts = super().pending_counts(at_most=at_most)
        for bundle_id, number in self.groups.pending_counts(at_most=at_most).items():
            counts[bundle_id] = counts.get(bundle_id, 0) + number
        return counts

    def finish(self, claimed: ClaimedMeasurement, effect: MeasuredEffect) -> bool:
        """Store what was measured and raise the citation to tier `measured`, in one transaction; False when fenced.

        A weak method never hides what a retraining found.
        """
        found = effect.model_dump(mode="json", exclude={"group"}) | {"left_out": list(effect.group)}
        payload = {
            "owner": claimed.owner,
            "attempt": claimed.attempt,
            "method": claimed.method.value,
            "effect_nats": effect.effect_nats,
        }
        with self._database.writing() as session:
            # The citation is locked before anything is looked at, so that of two methods that end together the second sees the first.
            citation_id = session.scalar(_LOCK_CITATION, {"measurement_id": claimed.measurement_id})
            if citation_id is None or not self._answer(session, claimed.lease, **found):
                return False
            _show(session, citation_id, claimed.measurement_id, effect)
            record_events(
                session, [self._event(TrailKind.MEASUREMENT_FINISHED, claimed.measurement_id, payload)]
            )
        return True

    def _claimed(self, session: Session, measurement_id: int, owner: str) -> ClaimedMeasurement:
        row = session.execute(
            select(
                Measurement.id.label("measurement_id"),
                Measurement.bundle_id,
                Bundle.name.label("bundle_name"),
                Measurement.attempt,
                Measurement.method,
                Citation.audit_id,
                Citation.rank,
                TrainingExample.example_id,
            )
            .join(Bundle, Bundle.id == Measurement.bundle_id)
            .join(Citation, Citation.id == Measurement.citation_id)
            .join(TrainingExample, TrainingExample.id == Citation.training_example_id)
            .where(Measurement.id == measurement_id)
        ).mappings()
        found = dict(row.one())
        output = measured_on(session, found["audit_id"], owner)
        return ClaimedMeasurement(**found, **output, owner=owner)


_LOCK_CITATION = (
    select(Citation.id)
    .join(Measurement, Measurement.citation_id == Citation.id)
    .where(Measurement.id == bindparam("measurement_id"))
    .with_for_update(of=Citation, key_share=True)
)


def _show(session: Session, citation_id: int, measurement_id: int, effect: MeasuredEffect) -> None:
    """Put the effect on its citation, unless it is weak and a stronger one is known."""
    stronger = exists().where(
        Measurement.citation_id == citation_id,
        Measurement.state == MeasurementState.DONE,
        ~Measurement.weak,
        Measurement.id != measurement_id,
    )
    shown: list[ColumnElement[bool]] = [Citation.id == citation_id]
    if effect.weak:
        shown.append(~stronger)
    session.execute(
        update(Citation)
        .where(*shown)
        .values(
            tier=Tier.MEASURED,
            measured_effect_nats=effect.effect_nats,
            measured_low_nats=effect.low_nats,
            measured_high_nats=effect.high_nats,
        )
        .execution_options(synchronize_session=False)
    )
