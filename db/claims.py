"""The life of an audit between `pending` and its end: claim, keep, and the fenced ways out.

A claim is a lease: an owner holds an audit under an attempt number until a time of the database's clock. The attempt only ever
grows, so (audit, attempt, owner) is a fencing token: every way out starts with an UPDATE that matches it, and a worker that
was too slow matches no row, writes nothing and learns it. What the citations look like is `db.citations`' business.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Select, Update, and_, bindparam, delete, func, select, true, tuple_, union_all, update
from sqlalchemy.orm import Session

from db.citations import CitedAudit, store_citations
from db.claimed import Unreadable, read_claimed
from db.clock import db_after, db_now
from db.examples import CHUNK, storable_text
from db.leases import HELD, NOT_HELD, attempts_spent, due, expired, in_state, pick, taken, token
from db.models import Audit, Bundle, Citation, Measurement
from db.session import Database
from db.statements import materialized
from db.trail import Event, TrailKind, record_events
from wherefrom.errors import ATTEMPTS_EXHAUSTED, LEASE_EXPIRED, ConfigurationError, InvalidRecord
from wherefrom.records import Attribution, AuditState, Claim, ClaimedAudit, sha256_of_json

#: States that an operator can send back to the queue; `done` is not among them, its citations are evidence.
REQUEUABLE = (AuditState.ABSTAINED, AuditState.REJECTED, AuditState.DEAD)


@dataclass(frozen=True)
class Finished:
    """One audit of a batch with the engine's answer, ready to be stored."""

    claimed: ClaimedAudit
    attribution: Attribution
    #: The audit's share of its batch's time.
    seconds: float
    state: Literal[AuditState.DONE, AuditState.ABSTAINED] = AuditState.DONE
    code: str | None = None
    reason: str | None = None


def claim(
    db: Database, *, bundle_id: int, limit: int, owner: str, lease_s: float, max_attempts: int | None = None
) -> Claim | None:
    """Take audits of one bundle: pending ones that are due, and running ones whose lease ran out.

    Two claimers never get the same audit under the same attempt: on PostgreSQL they skip each other's rows, on SQLite one writes at
    a time.

    Args:
        db: The database.
        bundle_id: The bundle that the claimer can work with.
        limit: Most audits taken.
        owner: Name of the claimer, unique among all that live.
        lease_s: How long the audits stay taken without `extend`, seconds.
        max_attempts: Leave expired leases whose attempts are spent to `release_expired`, which makes them dead.

    Returns:
        The audits, most urgent first and then oldest first; None when there is nothing to do.
    """
    picked = pick(bundle_id, limit, max_attempts)
    take = (
        update(Audit)
        .where(Audit.id == picked.c.id)
        .values(taken(Audit, owner, lease_s=lease_s))
        .returning(Audit.id)
        .execution_options(synchronize_session=False)
    )
    with db.writing() as session:
        read = read_claimed(session, session.scalars(take).all())
        _reject_unreadable(session, read.unreadable, owner)
    if not read.audits:
        return None
    return Claim(owner=owner, bundle_id=bundle_id, bundle_name=read.bundle_name, audits=tuple(read.audits))


def extend(db: Database, claim: Claim, *, lease_s: float) -> set[int]:
    """Renew the leases of a claim for `lease_s` seconds from now.

    Returns:
        Ids of the audits that are still held; what is missing was finished, or another worker has it.
    """
    tokens = [(one.audit_id, one.attempt) for one in claim.audits]
    mine = (
        in_state(Audit, AuditState.RUNNING),
        Audit.lease_owner == claim.owner,
        tuple_(Audit.id, Audit.attempt).in_(tokens),
    )
    # Rows are locked in the order of their ids, as `finish_many` does it: no deadlock between the two.
    kept = materialized(select(Audit.id).where(*mine).order_by(Audit.id).with_for_update(), "kept")
    renew = (
        update(Audit).where(Audit.id == kept.c.id).values(lease_until=db_after(lease_s)).returning(Audit.id)
    )
    with db.writing() as session:
        return set(session.scalars(renew.execution_options(synchronize_session=False)))


def finish(
    db: Database,
    *,
    claimed: ClaimedAudit,
    owner: str,
    attribution: Attribution,
    seconds: float,
    state: Literal[AuditState.DONE, AuditState.ABSTAINED] = AuditState.DONE,
    code: str | None = None,
    reason: str | None = None,
) -> bool:
    """Store an attribution with its citations and close the audit, in one transaction.

    Returns:
        False when another worker holds the audit by now: nothing was stored.
    """
    one = Finished(claimed, attribution, seconds, state, code, reason)
    return claimed.audit_id in finish_many(db, owner, [one])


def finish_many(db: Database, owner: str, finished: Sequence[Finished]) -> set[int]:
    """Store several attributions of one owner in one transaction, each fenced on its own.

    Costs one UPDATE per audit and three to five statements for all of them together.

    Returns:
        Ids of the audits that were stored; for the others another worker is responsible by now, and nothing was written.
    """
    cited: list[CitedAudit] = []
    with db.writing() as session:
        for one in sorted(finished, key=lambda one: one.claimed.audit_id):
            corpus_id = _close_cited(session, one, owner)
            if corpus_id is not None:
                cited.append(CitedAudit(one.claimed.audit_id, corpus_id, one.attribution.citations))
        store_citations(session, cited)
        stored = {one.audit_id for one in cited}
        record_events(session, [_finished_event(one) for one in finished if one.claimed.audit_id in stored])
    return stored


def reject(  # noqa: PLR0917 - reads as a sentence: who rejects what, and why
    db: Database, claimed: ClaimedAudit, owner: str, code: str, reason: str
) -> bool:
    """Close an audit that can never be answered; False when another worker holds it by now."""
    with db.writing() as session:
        return _close(session, claimed, owner, state=AuditState.REJECTED, code=code, reason=reason)


def fail(  # noqa: PLR0917 - the same
    db: Database,
    claimed: ClaimedAudit,
    owner: str,
    code: str,
    reason: str,
    *,
    retry_in_s: float | None,
    max_attempts: int,
) -> AuditState | None:
    """Record a failed attempt: the audit waits for its next one, or is dead.

    Args:
        db: The database.
        claimed: The audit with its fencing token.
        owner: Who claimed it.
        code: Stable code of the failure.
        reason: What happened, without text of the output.
        retry_in_s: Seconds until the audit can be claimed again; None makes it dead at once.
        max_attempts: Attempts after which it is dead (code ``attempts_exhausted``, the last failure in the reason).

    Returns:
        The new state, or None when another worker holds the audit by now.
    """
    with db.writing() as session:
        floor = session.scalar(
            select(Audit.attempt_floor).where(HELD).with_for_update(), token(claimed, owner)
        )
        if floor is None:
            return None
        spent = claimed.attempt - floor
        if retry_in_s is None:
            _close(session, claimed, owner, state=AuditState.DEAD, code=code, reason=reason)
            return AuditState.DEAD
        if spent >= max_attempts:
            last = f"{spent} attempts failed, the last with {code}: {reason}"
            _close(session, claimed, owner, state=AuditState.DEAD, code=ATTEMPTS_EXHAUSTED, reason=last)
            return AuditState.DEAD
        waiting = NOT_HELD | {"state": AuditState.PENDING, "next_attempt_at": db_after(retry_in_s)}
        wait = update(Audit).where(HELD).values(code=code, reason=storable_text(reason), **waiting)
        session.execute(wait, token(claimed, owner))
        return AuditState.PENDING


def explain_waiting(db: Database, bundle_id: int, *, code: str, reason: str) -> int:
    """Write on a bundle's pending audits why no worker takes them; what becomes of them later overwrites it.

    Returns:
        How many did not say so yet.
    """
    clean = storable_text(reason)
    says_so = and_(Audit.code == code, Audit.reason == clean)
    tell = (
        update(Audit)
        .where(
            Audit.bundle_id == bundle_id, in_state(Audit, AuditState.PENDING), func.coalesce(~says_so, true())
        )
        .values(code=code, reason=clean)
        .returning(Audit.id)
    )
    with db.writing() as session:
        return len(session.scalars(tell.execution_options(synchronize_session=False)).all())


def release_expired(db: Database, *, max_attempts: int) -> int:
    """Take audits back from workers that did not extend their leases: to the queue, or dead when their attempts are spent.

    Returns:
        How many leases had run out.
    """
    run_out = (
        select(Audit.id, Audit.lease_owner, attempts_spent(Audit).label("spent"))
        .where(expired(Audit))
        .order_by(Audit.id)
        .with_for_update(skip_locked=True)
    )
    with db.writing() as session:
        rows = session.execute(run_out).all()
        dead = []
        for row in rows:
            values = NOT_HELD | {"state": AuditState.PENDING}
            if row.spent >= max_attempts:
                reason = f"attempt {row.spent} of {max_attempts}: worker {row.lease_owner!r} did not extend its lease"
                values |= {
                    "state": AuditState.DEAD,
                    "finished_at": db_now(),
                    "code": LEASE_EXPIRED,
                    "reason": reason,
                }
                dead.append(Event(TrailKind.AUDIT_DEAD, f"audit:{row.id}", {"code": LEASE_EXPIRED}))
            session.execute(update(Audit).where(Audit.id == row.id).values(**values))
        record_events(session, dead)
    return len(rows)


def requeue(db: Database, *, audit_ids: Iterable[int] | None = None, state: AuditState | None = None) -> int:
    """Send abstained, rejected or dead audits back to the queue with fresh attempts; give either ids or a state.

    Audits in other states are left alone, and so are those that wait for a bundle of their model.

    Returns:
        How many audits are pending again.

    Raises:
        ConfigurationError: neither or both were given, or the state is none of those three.
    """
    if (audit_ids is None) == (state is None):
        raise ConfigurationError("give either ids of audits or a state to requeue")
    if state is not None and state not in REQUEUABLE:
        raise ConfigurationError(
            f"audits that are {state.value} cannot be requeued; only abstained, rejected or dead ones"
        )
    states = REQUEUABLE if state is None else (state,)
    wanted = select(Audit.id).where(Audit.state.in_(states), Audit.bundle_id.is_not(None))
    with db.writing() as session:
        if audit_ids is None:
            return _requeue(session, wanted)
        ids = sorted(set(audit_ids))
        chunks = (ids[start : start + CHUNK] for start in range(0, len(ids), CHUNK))
        return sum(_requeue(session, wanted.where(Audit.id.in_(chunk))) for chunk in chunks)


def pending_counts(db: Database) -> dict[int, int]:
    """How many audits could be claimed now, by bundle id; bundles without any are left out."""
    bundle = select(Audit.bundle_id)
    claimable = union_all(bundle.where(due(Audit)), bundle.where(expired(Audit))).subquery()
    counts = select(claimable.c.bundle_id, func.count().label("number")).group_by(claimable.c.bundle_id)
    with db.reading() as session:
        return {row.bundle_id: row.number for row in session.execute(counts)}


def _closing(*answer: str) -> Update:
    """The fenced UPDATE that takes a held audit to its end; `_ending` has its values, `answer` names further columns.

    Made once and executed often: SQLAlchemy takes longer to build it than SQLite to run it.
    """
    columns = ("state", "code", "reason", *answer)
    given = {name: bindparam(f"new_{name}", type_=getattr(Audit, name).type) for name in columns}
    closing = update(Audit).where(HELD).values(**NOT_HELD, finished_at=db_now(), **given)
    return closing.execution_options(synchronize_session=False)


def _ending(state: AuditState, code: str | None, reason: str | None, **answer: Any) -> dict[str, Any]:
    """The values of `_closing`."""
    clean = None if reason is None else storable_text(reason)
    values = {"state": state, "code": code, "reason": clean, **answer}
    return {f"new_{name}": value for name, value in values.items()}


_CLOSE = _closing().returning(Audit.id)

#: Gives the corpus that the citations point into; no row = fenced.
_CLOSE_CITED = _closing(
    "truncated",
    "tokens",
    "loss_nats",
    "candidates",
    "seconds",
    "top_source",
    "top_score",
    "conformal_p",
    "novelty_p",
).returning(select(Bundle.corpus_id).where(Bundle.id == Audit.bundle_id).scalar_subquery())


def _close(
    session: Session, claimed: ClaimedAudit, owner: str, *, state: AuditState, code: str, reason: str
) -> bool:
    """Close an audit without an answer; False when the fence refused."""
    if session.scalar(_CLOSE, token(claimed, owner) | _ending(state, code, reason)) is None:
        return False
    kind = TrailKind.AUDIT_REJECTED if state is AuditState.REJECTED else TrailKind.AUDIT_DEAD
    payload = {"code": code, "attempt": claimed.attempt, "owner": owner}
    record_events(session, [Event(kind, f"audit:{claimed.audit_id}", payload)])
    return True


def _reject_unreadable(session: Session, unreadable: Iterable[Unreadable], owner: str) -> None:
    for one in unreadable:
        held = {"held_id": one.audit_id, "held_attempt": one.attempt, "held_by": owner}
        reason = f"the stored output is no valid record ({one.error}); look at its row in flagged_text"
        session.execute(_CLOSE, held | _ending(AuditState.REJECTED, InvalidRecord.code, reason))
        payload = {"code": InvalidRecord.code, "attempt": one.attempt, "owner": owner}
        record_events(session, [Event(TrailKind.AUDIT_REJECTED, f"audit:{one.audit_id}", payload)])


def _close_cited(session: Session, one: Finished, owner: str) -> int | None:
    """Close an audit that has an answer; the id of its bundle's corpus, or None when the fence refused."""
    answer = one.attribution
    first = next((citation for citation in answer.citations if citation.rank == 1), None)
    ending = _ending(
        one.state,
        one.code,
        one.reason,
        truncated=answer.truncated,
        tokens=answer.tokens,
        loss_nats=answer.loss_nats,
        candidates=answer.candidates,
        seconds=one.seconds,
        top_source=None if first is None else first.example.source,
        top_score=None if first is None else first.score,
        conformal_p=answer.conformal_p,
        novelty_p=answer.novelty_p,
    )
    corpus_id: int | None = session.scalar(_CLOSE_CITED, token(one.claimed, owner) | ending)
    return corpus_id


def _finished_event(one: Finished) -> Event:
    """The trail keeps a digest of what was cited: enough to prove it, nothing that may have to be erased."""
    cited = [
        [draft.rank, draft.example.example_id, draft.example.text_sha256, draft.score]
        for draft in one.attribution.citations
    ]
    payload = {
        "state": one.state.value,
        "attempt": one.claimed.attempt,
        "citations": len(cited),
        "citations_sha256": sha256_of_json(cited),
    }
    return Event(TrailKind.AUDIT_FINISHED, f"audit:{one.claimed.audit_id}", payload)


def _requeue(session: Session, wanted: Select[int]) -> int:
    """Lock the audits, drop the citations of an earlier answer, and put them back."""
    ids = session.scalars(wanted.order_by(Audit.id).with_for_update()).all()
    fresh = NOT_HELD | {"state": AuditState.PENDING, "code": None, "reason": None, "finished_at": None}
    fresh |= {"attempt_floor": Audit.attempt, "top_source": None, "top_score": None}
    fresh |= {"conformal_p": None, "novelty_p": None}
    for start in range(0, len(ids), CHUNK):
        chunk = ids[start : start + CHUNK]
        cited = select(Citation.id).where(Citation.audit_id.in_(chunk))
        session.execute(delete(Measurement).where(Measurement.citation_id.in_(cited)))
        session.execute(delete(Citation).where(Citation.audit_id.in_(chunk)))
        session.execute(update(Audit).where(Audit.id.in_(chunk)).values(**fresh))
    record_events(session, [Event(TrailKind.AUDIT_REQUEUED, f"audit:{audit_id}") for audit_id in ids])
    return len(ids)
