"""The queue of what-ifs: claimed alone, worked off a few outputs at a time, so that audits never wait long for one.

Work that was stored is never done again: a worker that is lost leaves only its few outputs to the next one.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from sqlalchemy import Update, func, select, update
from sqlalchemy.orm import Session

from db.audit_trail.trail import TrailKind, record_events
from db.models import Bundle, WhatIf, WhatIfOutputRow
from db.queues.claimed import read_claimed
from db.queues.leases import NOT_HELD, held, token
from db.queues.single_claims import SingleClaims
from wherefrom.errors import OUTPUT_ERASED
from wherefrom.records import ClaimedWhatIf, ListScore, MeasurementState

#: Outputs of one claim.
AT_ONCE = 16


class WhatIfQueue(SingleClaims[ClaimedWhatIf]):
    """What-ifs, oldest first."""

    row = WhatIf
    subject = "what_if"
    order = (WhatIf.id,)
    ended: ClassVar[Mapping[str, TrailKind]] = {MeasurementState.DEAD: TrailKind.WHAT_IF_DEAD}
    retried, released = TrailKind.WHAT_IF_RETRIED, TrailKind.WHAT_IF_RELEASED

    def store(
        self, claimed: ClaimedWhatIf, scores: Sequence[ListScore], refused: Mapping[int, str]
    ) -> MeasurementState | None:
        """Store what was scored, and put the rest back or end it, in one transaction; the new state, None when fenced.

        Args:
            claimed: What was claimed.
            scores: By the number of the audit as their key.
            refused: Codes of outputs that could not be scored.
        """
        codes = dict(refused) | dict.fromkeys(claimed.unreadable, OUTPUT_ERASED)
        basis = next((one.basis for one in scores if one.basis is not None), None)
        with self._database.writing() as session:
            left = self._left(session, claimed.what_if_id) - len(scores) - len(codes)
            if not self._put(session, claimed, done=left <= 0):
                return None
            for one in scores:
                given = one.model_dump(exclude={"key", "basis"}) | {"scored": True}
                session.execute(_own(claimed, int(one.key)).values(**given))
            for audit_id, code in codes.items():
                session.execute(_own(claimed, audit_id).values(scored=True, code=code))
            if basis is not None:
                session.execute(update(WhatIf).where(WhatIf.id == claimed.what_if_id).values(basis=basis))
            if left <= 0:
                payload = {"owner": claimed.owner, "rows": len(claimed.rows)}
                record_events(session, [self._event(TrailKind.WHAT_IF_FINISHED, claimed.what_if_id, payload)])
        return MeasurementState.DONE if left <= 0 else MeasurementState.PENDING

    def _put(self, session: Session, claimed: ClaimedWhatIf, *, done: bool) -> bool:
        """End the claim; False when another worker holds it."""
        if done:
            return self._answer(session, claimed.lease)
        # What was stored is no failed attempt: the floor rises with it.
        waiting = NOT_HELD | {"state": self.pending, "attempt_floor": WhatIf.attempt}
        putting = update(WhatIf).where(held(WhatIf)).values(**waiting).returning(WhatIf.id)
        return (
            session.scalar(putting.execution_options(synchronize_session=False), token(claimed.lease))
            is not None
        )

    def _left(self, session: Session, what_if_id: int) -> int:
        query = select(func.count()).select_from(WhatIfOutputRow)
        mine = (WhatIfOutputRow.what_if_id == what_if_id, WhatIfOutputRow.scored.is_(False))
        return session.scalar(query.where(*mine)) or 0

    def _claimed(self, session: Session, what_if_id: int, owner: str) -> ClaimedWhatIf:
        row = session.execute(
            select(
                WhatIf.id.label("what_if_id"),
                WhatIf.bundle_id,
                Bundle.name.label("bundle_name"),
                WhatIf.attempt,
                WhatIf.corpus_rows.label("rows"),
            )
            .join(Bundle, Bundle.id == WhatIf.bundle_id)
            .where(WhatIf.id == what_if_id)
        ).mappings()
        found = dict(row.one())
        waiting = (
            select(WhatIfOutputRow.audit_id)
            .where(WhatIfOutputRow.what_if_id == what_if_id, WhatIfOutputRow.scored.is_(False))
            .order_by(WhatIfOutputRow.audit_id)
            .limit(AT_ONCE)
        )
        audits = read_claimed(session, session.scalars(waiting).all(), owner)
        return ClaimedWhatIf(
            **found,
            owner=owner,
            outputs=tuple((one.audit_id, one.record) for one in audits.audits),
            unreadable=tuple(one.lease.id for one in audits.unreadable),
        )


def _own(claimed: ClaimedWhatIf, audit_id: int) -> Update:
    mine = (WhatIfOutputRow.what_if_id == claimed.what_if_id, WhatIfOutputRow.audit_id == audit_id)
    return update(WhatIfOutputRow).where(*mine).execution_options(synchronize_session=False)
