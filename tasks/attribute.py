"""Turns one claimed batch into stored citations: prepare, pack, attribute, store; one bad item never sinks another.

What becomes of an item (docs/operations.md has the table):

- an answer with `abstained` set: abstained with code `no_support`; its citations are stored all the same.
- an error: rejected, pending again after a wait, or dead, as `tasks.failures` says.
- another worker holds it by now (fenced): dropped, nothing is recorded.

A pack that fails is split in two until the culprit stands alone. An item that was claimed before and not finished may have
killed its worker, so it runs alone, after the others, and is marked before: a death is charged to it and to nobody else. Claiming, leases and hints are left to the caller and to `tasks.heartbeat`.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import chain

import structlog

from db.queues.audit_queue import Finished
from db.storing.intake import PRIORITY
from db.storing.setups import Setup
from tasks.ahead import Ahead
from tasks.failures import AUDIT, attempt, record_failure
from tasks.heartbeat import Heartbeat
from tasks.preparing import prepare_audit
from tasks.store import AuditStore
from tasks.traces import AuditSpans, audit_logs, traces_of
from wherefrom.attribution.batching import pack_by_length
from wherefrom.attribution.interface import Attributor, PreparedQuery
from wherefrom.attribution.setup import setup_of
from wherefrom.errors import NO_SUPPORT, DatabaseUnavailable
from wherefrom.logs import get_logger
from wherefrom.metrics import Metrics
from wherefrom.records import (
    Attribution,
    AuditState,
    Claim,
    ClaimedAudit,
)
from wherefrom.settings import Settings
from wherefrom.spans import span

log = get_logger(__name__)

#: Seconds that only go forward, for durations.
Clock = Callable[[], float]


@dataclass(frozen=True)
class BatchReport:
    """What became of the audits of one batch."""

    done: int = 0
    #: Answered, but the engine does not stand by its citations.
    abstained: int = 0
    rejected: int = 0
    #: Back to pending after a transient failure.
    retried: int = 0
    dead: int = 0
    #: Dropped, because another worker held the audit by then.
    fenced: int = 0
    #: Claimed ahead, and put back because the process is to end.
    handed_back: int = 0
    #: How often a failed pack was split in two.
    bisections: int = 0

    def counts(self) -> dict[str, int]:
        """The numbers that are not zero, for the log."""
        return {name: number for name, number in asdict(self).items() if number}


def attribute_batch(
    claim: Claim,
    *,
    attributor: Attributor,
    store: AuditStore,
    settings: Settings,
    metrics: Metrics,
    clock: Clock,
    ahead: Ahead | None = None,
) -> BatchReport:
    """Attribute every audit of a claim, and of those that follow it, and record the outcome of each.

    Args:
        claim: What is worked on first.
        attributor: The engine over its bundle.
        store: Where outcomes are recorded.
        settings: Sizes, limits and waits.
        metrics: Of this process.
        clock: Seconds.
        ahead: Claims what follows; nothing where None.

    Raises:
        DatabaseUnavailable: outcomes cannot be recorded. What was not recorded stays running until its lease ends, and
            is then claimed again.
    """
    leases = [one.lease for one in claim.audits]
    heartbeat = Heartbeat.of(store, leases, settings=settings, bundle_id=claim.bundle_id)
    with AuditSpans(claim.audits) as spans, heartbeat, ahead or Ahead(store) as following:
        batch = _Batch(
            attributor=attributor,
            store=store,
            settings=settings,
            metrics=metrics,
            clock=clock,
            heartbeat=heartbeat,
            spans=spans,
            ahead=following,
        )
        return batch.run(claim.audits)


def _finished(audit: ClaimedAudit, answer: Attribution, seconds: float, setup: Setup) -> Finished:
    """How an answer closes its audit: done, or abstained for the reason that the engine gives."""
    if answer.abstained is None:
        return Finished(audit, answer, seconds, setup=setup)
    return Finished(
        audit,
        answer,
        seconds,
        state=AuditState.ABSTAINED,
        code=NO_SUPPORT,
        reason=answer.abstained,
        setup=setup,
    )


def _order_of_suspects(audit: ClaimedAudit) -> tuple[int, int]:
    """The least tried first, so that every innocent is stored before a culprit has its second try.

    Among equals the order turns round with each attempt: they may come from a release that charged whole batches.
    """
    return audit.spent, audit.audit_id * (1 if audit.attempt % 2 == 0 else -1)


def _urgency(pack: Sequence[ClaimedAudit]) -> int:
    """Place of a pack's most urgent audit in the order of the queue."""
    return min(PRIORITY[audit.record.severity] for audit in pack)


class _Batch:
    """The work on one claim, and on those that follow it."""

    def __init__(
        self,
        *,
        attributor: Attributor,
        store: AuditStore,
        settings: Settings,
        metrics: Metrics,
        clock: Clock,
        heartbeat: Heartbeat,
        spans: AuditSpans,
        ahead: Ahead,
    ) -> None:
        self._attributor = attributor
        self._store = store
        self._settings = settings
        self._metrics = metrics
        self._clock = clock
        self._heartbeat = heartbeat
        self._spans = spans
        self._ahead = ahead
        self._setup = setup_of(attributor, settings)
        #: By audit id: the queries of the audits that can be attributed.
        self._prepared: dict[int, PreparedQuery] = {}
        self._outcomes: Counter[str] = Counter()

    def run(self, audits: Sequence[ClaimedAudit]) -> BatchReport:
        """Prepare, pack and attribute, the most urgent first; suspects alone, the least tried first.

        During each pass as many are claimed as it takes away, so passes are full, and what is urgent is at most two passes away while claims go on. Beside the pass in work no
        more than one batch is held. Nothing follows a claim with suspects.
        """
        suspects = [audit for audit in audits if audit.is_suspect]
        waiting = [audit for audit in audits if not audit.is_suspect and self._is_prepared(audit)]
        first = {audit.audit_id for audit in audits}
        while waiting:
            pack, *others = self._packs(waiting)
            left = list(chain.from_iterable(others))
            if not suspects:
                self._ahead.ask(self._settings.batch_audits - len(left), self._heartbeat.take_on)
            self._attribute(pack)
            self._let_go(pack)
            wanted = self._still_wanted([*left, *self._following()], first)
            suspects += [audit for audit in wanted if audit.is_suspect]
            waiting = [audit for audit in wanted if not audit.is_suspect and self._is_prepared(audit)]
        alone = sorted(suspects, key=_order_of_suspects)
        while alone := self._still_wanted(alone, first):
            self._attribute_alone(alone.pop(0))
        return BatchReport(**self._outcomes)

    def _packs(self, audits: Sequence[ClaimedAudit]) -> list[list[ClaimedAudit]]:
        packs = pack_by_length(
            audits,
            length=lambda audit: self._prepared[audit.audit_id].tokens,
            completion=lambda audit: self._prepared[audit.audit_id].completion_tokens,
            budget_tokens=self._settings.batch_tokens,
        )
        return sorted(packs, key=_urgency)

    def _following(self) -> Sequence[ClaimedAudit]:
        """What was claimed ahead."""
        audits = self._ahead.take()
        self._spans.begin(audits)
        return audits

    def _still_wanted(self, left: list[ClaimedAudit], first: set[int]) -> list[ClaimedAudit]:
        """What is worked on of what is left: a process that is to end finishes its first claim, and hands back what it claimed ahead."""
        if not self._ahead.is_ending():
            return left
        later = [audit for audit in left if audit.audit_id not in first]
        self._ahead.hand_back(later)
        self._let_go(later)
        for audit in later:
            self._spans.end(audit, "handed_back")
        self._outcomes["handed_back"] += len(later)
        return [audit for audit in left if audit.audit_id in first]

    def _let_go(self, audits: Sequence[ClaimedAudit]) -> None:
        """Nothing is left to do for these."""
        self._heartbeat.let_go(audit.lease for audit in audits)
        for audit in audits:
            self._prepared.pop(audit.audit_id, None)

    def _attribute_alone(self, audit: ClaimedAudit) -> None:
        """Attribute an audit that may kill this process: it is marked first, and nothing of others is in work."""
        if not self._heartbeat.holds(audit.lease) or not self._store.begin(audit.lease):
            self._drop(audit)
        elif self._prepare(audit):
            self._attribute([audit])

    def _is_prepared(self, audit: ClaimedAudit) -> bool:
        return audit.audit_id in self._prepared or self._prepare(audit)

    def _prepare(self, audit: ClaimedAudit) -> bool:
        """Turn an audit's output into tokens; where that fails, its failure is recorded."""
        with audit_logs(audit):
            prepared = attempt(
                lambda: prepare_audit(audit, attributor=self._attributor, settings=self._settings)
            )
            if isinstance(prepared, Exception):
                self._settle(audit, prepared)
                return False
        self._prepared[audit.audit_id] = prepared
        return True

    def _attribute(self, pack: Sequence[ClaimedAudit]) -> None:
        """Attribute one pack in one pass and store each answer; split the pack where the pass fails."""
        held = [audit for audit in pack if self._heartbeat.holds(audit.lease)]
        for audit in pack:
            if audit not in held:
                self._drop(audit)
        if not held:
            return
        with structlog.contextvars.bound_contextvars(audit_ids=[audit.audit_id for audit in held]):
            self._work(held)

    def _work(self, held: Sequence[ClaimedAudit]) -> None:
        started = self._clock()
        with span("attribute", links=traces_of(held), audits=len(held)) as working:
            answers = attempt(lambda: self._pass(held))
            working.fail_with(answers)
        seconds = self._clock() - started
        if isinstance(answers, Exception):
            self._after_failure(held, answers)
            return
        self._metrics.observe("batch_seconds", seconds, stage="attribute")
        share_s = seconds / len(held)
        self._store_answers(
            [
                _finished(audit, answer, share_s, self._setup)
                for audit, answer in zip(held, answers, strict=True)
            ]
        )

    def _pass(self, pack: Sequence[ClaimedAudit]) -> list[Attribution]:
        """One pass of the engine; its answers must belong to the queries in their order."""
        answers = self._attributor.attribute(
            [self._prepared[audit.audit_id] for audit in pack],
            top_k=self._settings.top_k,
            opponents=self._settings.opponents,
        )
        asked = [str(audit.audit_id) for audit in pack]
        answered = [answer.key for answer in answers]
        if asked != answered:
            raise RuntimeError(f"the engine was asked for audits {asked} and answered for {answered}")
        return answers

    def _after_failure(self, pack: Sequence[ClaimedAudit], error: Exception) -> None:
        if len(pack) == 1:
            self._settle(pack[0], error)
            return
        log.warning("pack_split", audit_ids=[audit.audit_id for audit in pack], error=type(error).__name__)
        self._outcomes["bisections"] += 1
        self._metrics.count("batch_bisections_total")
        middle = len(pack) // 2
        self._attribute(pack[:middle])
        self._attribute(pack[middle:])

    def _store_answers(self, finished: Sequence[Finished]) -> None:
        """Store the answers of one pass in one transaction; one by one where that fails."""
        started = self._clock()
        with span("store", audits=len(finished)) as storing:
            stored = self._finish(finished)
            storing.fail_with(stored)
        self._metrics.observe("batch_seconds", self._clock() - started, stage="store")
        if isinstance(stored, Exception):
            if len(finished) == 1:
                self._settle(finished[0].claimed, stored)
            else:
                self._store_one_by_one(finished)
            return
        for one in finished:
            if one.claimed.audit_id in stored:
                self._count(one.claimed, one.state, one.state.value)
            else:
                self._drop(one.claimed)

    def _finish(self, finished: Sequence[Finished]) -> set[int] | Exception:
        """Store answers; a failure of the database is the audit's own where a probe is stored and others were.

        Raises:
            DatabaseUnavailable: the database takes nothing, or nothing is known yet about who is to blame.
        """
        try:
            return attempt(lambda: self._store.finish(finished))
        except DatabaseUnavailable as error:
            self._store.check_writable()
            others_stored = self._outcomes["done"] + self._outcomes["abstained"]
            if len(finished) == 1 and not others_stored:
                raise
            return error

    def _store_one_by_one(self, finished: Sequence[Finished]) -> None:
        """Store each answer alone; what fails is tried again behind the others, when they have shown what the database takes."""
        late: list[Finished] = []
        for one in finished:
            try:
                self._store_answers([one])
            except DatabaseUnavailable:
                self._store.check_writable()
                late.append(one)
        for one in late:
            self._store_answers([one])

    def _settle(self, audit: ClaimedAudit, error: Exception) -> None:
        """Record the failure of one audit."""
        with audit_logs(audit):
            state = record_failure(
                error, queue=self._store, work=AUDIT, lease=audit.lease, settings=self._settings
            )
        if state is None:
            self._drop(audit)
        else:
            self._count(audit, state, "retried" if state.is_open else state.value)

    def _count(self, audit: ClaimedAudit, state: AuditState, outcome: str) -> None:
        self._outcomes[outcome] += 1
        self._spans.end(audit, outcome, failed=state is AuditState.DEAD)
        if not audit.hypothetical:
            self._metrics.count("audits_finished_total", state=state.value)

    def _drop(self, audit: ClaimedAudit) -> None:
        """Somebody holds the audit under another attempt; what was computed here is discarded."""
        log.warning("audit_fenced", audit_id=audit.audit_id, attempt=audit.attempt)
        self._outcomes["fenced"] += 1
        self._spans.end(audit, "fenced")
        self._metrics.count("fence_rejects_total")
