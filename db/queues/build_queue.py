"""The queue of the parts of builds over many machines: one at a time, so a claim is an attempt; a part that is done names the files that were made of it."""

from collections.abc import Mapping
from typing import ClassVar

from sqlalchemy.orm import Session

from db.audit_trail.trail import TrailKind
from db.models import BuildPart, SharedBuild
from db.queues.single_claims import SingleClaims
from wherefrom.records import ClaimedPart, MeasurementState, PartOutput


class BuildQueue(SingleClaims[ClaimedPart]):
    """Parts of builds, first rows first."""

    row = BuildPart
    parent, parent_column = SharedBuild, "build_id"
    subject = "build_part"
    order = (BuildPart.id,)
    ended: ClassVar[Mapping[str, TrailKind]] = {MeasurementState.DEAD: TrailKind.BUILD_PART_DEAD}
    retried, released = TrailKind.BUILD_PART_RETRIED, TrailKind.BUILD_PART_RELEASED

    def finish(self, claimed: ClaimedPart, output: PartOutput) -> bool:
        """Store which files were made; False when another worker holds the part by now, and nothing is stored."""
        with self._database.writing() as session:
            return self._answer(session, claimed.lease, output=output.model_dump(mode="json"))

    def _claimed(self, session: Session, number: int, owner: str) -> ClaimedPart:
        part = session.get_one(BuildPart, number)
        return ClaimedPart(
            part_id=part.id,
            owner=owner,
            build_id=part.build_id,
            attempt=part.attempt,
            number=part.number,
            first_row=part.first_row,
            rows=part.num_rows,
            rows_sha256=part.rows_sha256,
        )
