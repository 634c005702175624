"""The queue of measurements of groups: claimed one at a time beside those of citations, by the same rules."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.audit_trail.trail import TrailKind, record_events
from db.models import Bundle, GroupMeasurement
from db.queues.claimed import measured_on
from db.queues.single_claims import SingleClaims
from wherefrom.records import ClaimedGroup, GroupRequest, MeasuredEffect

#: Ids of left-out training examples that are stored of a group, and of each of its controls.
KEPT_IDS = 200


class GroupQueue(SingleClaims[ClaimedGroup]):
    """Measurements of groups, oldest first."""

    row = GroupMeasurement
    subject = "group_measurement"
    order = (GroupMeasurement.id,)

    def finish(self, claimed: ClaimedGroup, effect: MeasuredEffect) -> bool:
        """Store what was measured, in one transaction; False when fenced."""
        found = effect.model_dump(mode="json", exclude={"group", "weak"}) | {
            "left_out": list(effect.group[:KEPT_IDS]),
            "group_size": len(effect.group),
        }
        found["controls"] = [
            one | {"example_ids": one["example_ids"][:KEPT_IDS]} for one in found["controls"]
        ]
        payload = {
            "owner": claimed.owner,
            "attempt": claimed.attempt,
            "effect_nats": effect.effect_nats,
            "group_size": len(effect.group),
        }
        with self._database.writing() as session:
            if not self._answer(session, claimed.lease, **found):
                return False
            record_events(
                session, [self._event(TrailKind.MEASUREMENT_FINISHED, claimed.measurement_id, payload)]
            )
        return True

    def _claimed(self, session: Session, measurement_id: int, owner: str) -> ClaimedGroup:
        row = session.execute(
            select(
                GroupMeasurement.id.label("measurement_id"),
                GroupMeasurement.bundle_id,
                Bundle.name.label("bundle_name"),
                GroupMeasurement.attempt,
                GroupMeasurement.audit_id,
                GroupMeasurement.source,
                GroupMeasurement.example_ids,
            )
            .join(Bundle, Bundle.id == GroupMeasurement.bundle_id)
            .where(GroupMeasurement.id == measurement_id)
        ).mappings()
        found = dict(row.one())
        asked = GroupRequest(example_ids=tuple(found.pop("example_ids") or ()), source=found.pop("source"))
        output = measured_on(session, found["audit_id"], owner)
        return ClaimedGroup(**found, **output, owner=owner, request=asked)
