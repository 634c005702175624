"""The queue of audits: claimed in batches, answered with citations, and closed in one transaction per pack.

Claims and the ways out without an answer are those of every queue (`db.queues.queue`). What the citations look like is `db.storing.citations`'
business; what operators do with audits that nobody holds is that of `db.queues.waiting`.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from db.audit_trail.trail import Event, TrailKind, record_events
from db.models import Audit, Bundle
from db.queues.claimed import read_claimed
from db.queues.leases import any_held, token
from db.queues.queue import LeasedQueue, ending_of, ending_values
from db.session import Database
from db.storing.citations import CitedAudit, store_citations
from db.storing.examples import storable_name
from db.storing.intake import PRIORITY
from db.storing.setups import KnownSetups, Setup
from db.storing.vectors import store_vectors
from wherefrom.records import Attribution, AuditState, Claim, ClaimedAudit, Lease, sha256_of_json

#: Of so many claims that a process makes of a bundle, one is for audits that are not the most urgent.
FAIR_EVERY = 8
#: Priorities of audits, most urgent first.
PRIORITIES = tuple(sorted(PRIORITY.values()))


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
    #: What it was computed with.
    setup: Setup | None = None


class AuditQueue(LeasedQueue[AuditState]):
    """Audits, most urgent first and then oldest first."""

    row = Audit
    subject = "audit"
    order = (Audit.priority, Audit.id)
    pending = AuditState.PENDING
    dead = AuditState.DEAD
    refused = AuditState.REJECTED
    ended: ClassVar[Mapping[str, TrailKind]] = {
        AuditState.DEAD: TrailKind.AUDIT_DEAD,
        AuditState.REJECTED: TrailKind.AUDIT_REJECTED,
    }
    retried, released = TrailKind.AUDIT_RETRIED, TrailKind.AUDIT_RELEASED

    #: A batch is claimed together and worked one pack after the other: what was not in work when its process died pays nothing.
    claims_count = False

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._setups = KnownSetups()
        #: Claims that took something, by bundle: with one count, bundles that take turns would fix whose claim is the fair one.
        self._claims: Counter[int] = Counter()

    def claim(
        self, bundle_id: int, *, owner: str, limit: int, lease_s: float, max_attempts: int | None = None
    ) -> Claim | None:
        """Take audits of one bundle: pending ones that are due, and running ones whose lease ran out.

        Args:
            bundle_id: The bundle that the claimer can work with.
            owner: Name of the claimer, unique among all that live.
            limit: Most audits taken.
            lease_s: How long the audits stay taken without `extend`, seconds.
            max_attempts: Leave expired leases whose attempts are spent to `release_expired`, which makes them dead.

        Returns:
            The audits in the order of the queue; None when there is nothing to do.
        """
        while True:
            with self._database.writing() as session:
                take = partial(
                    self._take,
                    session,
                    bundle_id,
                    owner=owner,
                    limit=limit,
                    lease_s=lease_s,
                    max_attempts=max_attempts,
                )
                turn = _turn_of(self._claims[bundle_id] + 1)
                taken = (take(only=(Audit.priority == turn,)) if turn is not None else ()) or take()
                self._claims[bundle_id] += bool(taken)
                read = read_claimed(session, taken, owner)
                _forget_handed_back(session, read.audits)
                for one in read.unreadable:
                    self._end(session, one.lease, self.refused, code=one.code, reason=one.reason)
            if read.audits:
                return Claim(
                    owner=owner, bundle_id=bundle_id, bundle_name=read.bundle_name, audits=tuple(read.audits)
                )
            if not taken:
                return None  # else none of these can be answered, which says nothing of those behind them

    def finish(self, finished: Sequence[Finished]) -> set[int]:
        """Store attributions with their citations and close their audits in one transaction, each fenced on its own.

        Costs five to seven statements however many audits there are, two more where there are similarity vectors, and two more the first time with a setup.

        Returns:
            Ids of the audits that were stored; for the others another worker is responsible by now, and nothing was written.
        """
        self._setups.rolled_back()
        with self._database.writing() as session:
            corpora = _lock_held(session, [one.claimed.lease for one in finished])
            stored = [one for one in finished if _token(one) in corpora]
            _close(session, [(one, self._setups.id_of(session, one.setup)) for one in stored])
            cited = [
                CitedAudit(one.claimed.audit_id, corpora[_token(one)], one.attribution.citations)
                for one in stored
            ]
            store_citations(session, cited)
            _store_vectors(session, stored)
            record_events(session, [_finished_event(one) for one in stored])
        self._setups.committed()
        return {one.claimed.audit_id for one in stored}


def _forget_handed_back(session: Session, claimed: Sequence[ClaimedAudit]) -> None:
    """An audit is innocent in the one claim that follows: if its process dies, nobody knows what killed it."""
    back = [one.audit_id for one in claimed if one.handed_back]
    if back:
        session.execute(update(Audit).where(Audit.id.in_(back)).values(code=None, reason=None))


def _turn_of(claim: int) -> int | None:
    """The priority whose turn a claim is; None for the usual order, most urgent first.

    Urgent outputs that never end would keep all others waiting for ever. So one claim of `FAIR_EVERY` is for one of the less urgent classes, each in turn.
    """
    if claim % FAIR_EVERY:
        return None
    return PRIORITIES[-1 - (claim // FAIR_EVERY - 1) % (len(PRIORITIES) - 1)]


def _store_vectors(session: Session, finished: Sequence[Finished]) -> None:
    """Store the vectors of outputs that were said."""
    by_bundle: dict[int, dict[int, bytes]] = defaultdict(dict)
    for one in finished:
        if one.attribution.vector is not None and not one.claimed.hypothetical:
            by_bundle[one.claimed.bundle_id][one.claimed.output_id] = one.attribution.vector
    for bundle_id, vectors in sorted(by_bundle.items()):
        store_vectors(session, bundle_id, vectors)


#: Audit, attempt and owner.
Token = tuple[int, int, str | None]


def _token(one: Finished) -> Token:
    return one.claimed.audit_id, one.claimed.attempt, one.claimed.owner


def _lock_held(session: Session, leases: Sequence[Lease]) -> dict[Token, int]:
    """Lock the audits that are still held as claimed: the corpus that their citations point into. What is missing is fenced."""
    if not leases:
        return {}
    mine = (
        select(Audit.id, Audit.attempt, Audit.lease_owner, Bundle.corpus_id)
        .join(Bundle, Bundle.id == Audit.bundle_id)
        .where(any_held(Audit, leases))
        .order_by(Audit.id)
        .with_for_update(of=Audit)
    )
    return {(number, attempt, owner): corpus for number, attempt, owner, corpus in session.execute(mine)}


#: Closes audits with their answers. Made once and executed often: SQLAlchemy takes longer to build it than SQLite to run it.
_CLOSE = ending_of(
    Audit,
    "truncated",
    "tokens",
    "loss_nats",
    "candidates",
    "seconds",
    "top_source",
    "top_score",
    "conformal_p",
    "novelty_p",
    "noise_level",
    "noise_best",
    "weak",
    "setup_id",
)


def _close(session: Session, stored: Sequence[tuple[Finished, int | None]]) -> None:
    """Close audits that `_lock_held` has locked, each with the id of its setup, by one statement for all of them.

    Raises:
        RuntimeError: the fence did not match one of them, which the lock makes impossible; nothing is stored then.
    """
    if not stored:
        return
    # Past the ORM, which would take a list of values for rows that it finds by their ids alone.
    closed = session.connection().execute(_CLOSE, [_closing_values(*one) for one in stored]).rowcount
    if closed != len(stored):
        raise RuntimeError(f"{closed} of {len(stored)} locked audits were closed")


def _closing_values(one: Finished, setup_id: int | None) -> dict[str, Any]:
    """The fence of an audit and what closes it."""
    answer = one.attribution
    first = next((citation for citation in answer.citations if citation.rank == 1), None)
    return token(one.claimed.lease) | ending_values(
        one.state,
        one.code,
        one.reason,
        truncated=answer.truncated,
        tokens=answer.tokens,
        loss_nats=answer.loss_nats,
        candidates=answer.candidates,
        seconds=one.seconds,
        top_source=None if first is None else storable_name(first.example.source),
        top_score=None if first is None else first.score,
        conformal_p=answer.conformal_p,
        novelty_p=answer.novelty_p,
        noise_level=answer.noise_level,
        noise_best=answer.noise_best,
        weak=answer.weak,
        setup_id=setup_id,
    )


def _finished_event(one: Finished) -> Event:
    """The trail keeps a digest of what was cited, by ids: enough to prove it, and no text can be tried out against it."""
    cited = [[draft.rank, draft.example.example_id, draft.score] for draft in one.attribution.citations]
    payload = {
        "state": one.state.value,
        "attempt": one.claimed.attempt,
        "citations": len(cited),
        "citations_sha256": sha256_of_json(cited),
    }
    return Event(TrailKind.AUDIT_FINISHED, f"audit:{one.claimed.audit_id}", payload)
