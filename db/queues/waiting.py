"""Audits that nobody holds: why they wait, and how an operator puts them back on the queue. All of it in transactions of a bounded size."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import and_, delete, exists, func, select, true, update
from sqlalchemy.orm import Session

from db.audit_trail.trail import Event, TrailKind, record_events
from db.chunks import change_in_chunks
from db.models import Audit, Citation, FlaggedText, Measurement
from db.queues.leases import fresh, is_pending
from db.session import Database
from db.statements import unindexed
from db.storing.examples import CHUNK, storable_text
from wherefrom.errors import ConfigurationError
from wherefrom.records import AuditState


def explain_waiting(db: Database, bundle_id: int, *, code: str, reason: str) -> int:
    """Write on a bundle's pending audits why no worker takes them; what becomes of them later overwrites it.

    Returns:
        How many did not say so yet.
    """
    explanation = {"code": code, "reason": storable_text(reason)}
    says_so = and_(Audit.code == explanation["code"], Audit.reason == explanation["reason"])
    silent = select(Audit.id).where(
        unindexed(Audit.bundle_id) == bundle_id, is_pending(Audit), func.coalesce(~says_so, true())
    )
    return change_in_chunks(db, silent, Audit.id, lambda session, ids: _update(session, ids, explanation))


def requeue(db: Database, *, audit_ids: Iterable[int] | None = None, state: AuditState | None = None) -> int:
    """Send abstained, rejected or dead audits back to the queue with fresh attempts; give either ids or a state.

    Audits in other states are left alone, and so are those that wait for a bundle of their model or whose text was erased.

    Returns:
        How many audits are pending again.

    Raises:
        ConfigurationError: neither or both were given, or the state is none of those three.
    """
    if (audit_ids is None) == (state is None):
        raise ConfigurationError("give either audit ids or a state to requeue")
    if state is not None and not state.is_requeuable:
        raise ConfigurationError(
            f"{state.value} audits cannot be requeued; only abstained, rejected or dead audits can"
        )
    states = [one for one in AuditState if one.is_requeuable] if state is None else [state]
    wanted = select(Audit.id).where(
        unindexed(Audit.state).in_(states), Audit.bundle_id.is_not(None), _has_text
    )
    if audit_ids is None:
        return change_in_chunks(db, wanted, Audit.id, _requeue)
    ids = sorted(set(audit_ids))
    chunks = (ids[start : start + CHUNK] for start in range(0, len(ids), CHUNK))
    return sum(
        change_in_chunks(db, wanted.where(Audit.id.in_(chunk)), Audit.id, _requeue) for chunk in chunks
    )


#: The output's text is there, so that it can be explained.
_has_text = exists().where(FlaggedText.flagged_output_id == Audit.flagged_output_id)


def _requeue(session: Session, ids: Sequence[int]) -> None:
    """Drop the citations of an earlier answer, and put the audits back."""
    cited = select(Citation.id).where(Citation.audit_id.in_(ids))
    # Citations before measurements, as `MeasurementQueue.finish` locks them: no deadlock between the two.
    session.execute(cited.order_by(Citation.id).with_for_update())
    session.execute(delete(Measurement).where(Measurement.citation_id.in_(cited)))
    session.execute(delete(Citation).where(Citation.audit_id.in_(ids)))
    forgotten = {"top_source": None, "top_score": None, "conformal_p": None, "novelty_p": None}
    forgotten |= {"noise_level": None, "noise_best": None, "weak": None}
    _update(session, ids, fresh(Audit) | forgotten)
    record_events(session, [Event(TrailKind.AUDIT_REQUEUED, f"audit:{audit_id}") for audit_id in ids])


def _update(session: Session, ids: Sequence[int], values: Mapping[str, Any]) -> None:
    change = update(Audit).where(Audit.id.in_(ids)).values(**values)
    session.execute(change.execution_options(synchronize_session=False))
