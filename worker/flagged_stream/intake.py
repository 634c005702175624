"""Takes flagged outputs from the Redis stream into SQL: read by consumer group, commit, then acknowledge and delete.

An entry leaves the stream only after the SQL commit. Whatever dies in between, the entry is read again: by this process from its
own unacknowledged entries, or by another one that takes them over. Reading an entry twice is harmless, for its id is its
idempotency key. What cannot be read moves to the rejected stream with the reason.

Who is to blame when storing fails? The database, while it cannot take a probe: then nothing is acknowledged and everybody waits
(`worker.loop`). Otherwise the batch is split until the culprit stands alone. A value that the database refuses is rejected; what
fails for another reason is put off, and goes to the quarantine when it has failed often enough while others were stored.
"""

import time
from collections.abc import Iterator, Sequence

import redis
import structlog

from db.session import Database
from db.storing.intake import accept, active_bundle_ids, check_writable
from wherefrom.errors import DatabaseUnavailable, PermanentError, QuarantineFull, TransientError
from wherefrom.logs import get_logger
from wherefrom.metrics import Metrics
from wherefrom.records import AuditState, FlaggedRecord, IntakeResult
from wherefrom.settings import Settings
from worker.broker.hints import HintSender
from worker.flagged_stream.entries import read_entry, trace_of
from worker.flagged_stream.poison_suspects import PoisonSuspects
from worker.flagged_stream.stream import Entry, FlaggedStream, Verdict

log = get_logger(__name__)

#: Producer and channel of what comes over the stream.
STREAM = "stream"
#: Longest wait for new entries in one read; also how long a stop may take.
BLOCK_MS = 1000
#: Transactions that may fail in one step before it gives way to the next, so that signs of life are given in between.
FAILURES_PER_STEP = 16
#: Where the entries that are assigned to us begin.
_FIRST = b"0"

#: One readable entry and its record.
Readable = tuple[Entry, FlaggedRecord]


class Intake:
    """One consumer of the flagged stream."""

    def __init__(
        self,
        client: redis.Redis,
        database: Database,
        *,
        settings: Settings,
        metrics: Metrics,
        hints: HintSender,
        consumer: str,
    ) -> None:
        self._stream = FlaggedStream(client, settings, consumer)
        self._database = database
        self._settings = settings
        self._metrics = metrics
        self._hints = hints
        self._suspects = PoisonSuspects()
        # Entries may be assigned to us that we do not know of: after a failed answer, or taken over from the dead.
        # They are read behind this id; None when all of them have been seen.
        self._backlog: bytes | None = None
        self._take_over_at = 0.0
        self._failures = 0
        self._paused: str | None = None

    def step(self) -> None:
        """Read one batch, waiting up to a second for it, and take it.

        Raises:
            QueueUnavailable: Redis does not answer; entries already committed are acknowledged in a later step.
            DatabaseUnavailable: what was not committed stays in the stream.
            QuarantineFull: nothing is taken until an operator has made room.
        """
        self._failures = 0
        self._paused = None
        try:
            self._stream.ensure_group()
            self._stream.check_quarantine()
            self._take_over_if_due()
            self._try_suspects()
            self._take(self._next())
        except TransientError as error:
            self._paused = str(error) if isinstance(error, QuarantineFull) else None
            self._backlog = _FIRST
            self._stream.forget_group()
            raise

    def situation(self) -> dict[str, str]:
        """What the sign of life says besides that there is life: why intake pauses, where it does."""
        return {} if self._paused is None else {"paused": self._paused}

    def leave(self) -> None:
        """Remove this consumer from the group, unless entries are still assigned to it."""
        self._stream.leave()

    def _take_over_if_due(self) -> None:
        """Assign to us what a consumer has held for too long: it died, or an answer to us was lost."""
        if time.monotonic() < self._take_over_at:
            return
        idle_s = self._settings.intake_idle_claim_seconds
        taken = [
            one for one in self._stream.take_over(idle_ms=int(idle_s * 1000)) if one not in self._suspects
        ]
        if taken:
            log.info("entries_taken_over", entries=len(taken))
            self._backlog = _FIRST
        self._stream.remove_dead(idle_ms=int(idle_s * 1000))
        self._take_over_at = time.monotonic() + idle_s / 2

    def _next(self) -> list[Entry]:
        """The next entries: first those that are already assigned to us, then new ones. Suspects have their own turn."""
        if self._backlog is not None:
            entries = self._stream.read_mine(after=self._backlog)
            if entries:
                self._backlog = entries[-1].entry_id
                return [one for one in entries if one.entry_id not in self._suspects]
            self._backlog = None
        return self._stream.read_new(block_ms=BLOCK_MS)

    def _try_suspects(self) -> None:
        """Try those again whose wait is over, each alone."""
        for entry_id in self._suspects.due(FAILURES_PER_STEP // 2):
            entry = self._stream.read_one(entry_id)
            if not entry.fields:
                self._suspects.forget(entry_id)  # deleted by someone else, or stored by another intake
            self._take([entry])

    def _take(self, entries: Sequence[Entry]) -> None:
        """Store what can be read, then let go of the rest."""
        if not entries:
            return
        with structlog.contextvars.bound_contextvars(first_entry=entries[0].entry_id.decode()):
            self._take_in(entries)

    def _take_in(self, entries: Sequence[Entry]) -> None:
        readable: list[Readable] = []
        unreadable: list[Verdict] = []
        for entry in entries:
            if not entry.fields:
                continue  # deleted by someone else; only the acknowledgement is missing
            try:
                record = read_entry(
                    entry.fields,
                    entry_id=entry.entry_id.decode(),
                    limit_bytes=self._settings.body_limit_bytes,
                )
            except PermanentError as error:
                unreadable.append(Verdict(entry, error.code, str(error)))
            else:
                readable.append((entry, record))
        for group in _within(readable, self._settings.intake_batch_bytes):
            self._store(group)
        self._stream.let_go([entry.entry_id for entry in entries if not entry.fields])
        self._reject(unreadable)
        log.info("entries_taken", entries=len(entries), rejected=len(unreadable))

    def _store(self, readable: Sequence[Readable]) -> None:
        """Commit records and let go of their entries; where that fails, find out who is to blame."""
        try:
            results = accept(
                self._database,
                [record for _, record in readable],
                producer=STREAM,
                channel=STREAM,
                traces=[trace_of(entry.fields) for entry, _ in readable],
            )
        except (PermanentError, DatabaseUnavailable) as error:
            self._after_failure(readable, error)
        else:
            self._after_commit(readable, results)

    def _after_failure(
        self, readable: Sequence[Readable], error: PermanentError | DatabaseUnavailable
    ) -> None:
        """Split what failed until the culprit stands alone; while a probe fails, nobody is one.

        Raises:
            DatabaseUnavailable: the probe failed, or too much failed in this step.
        """
        check_writable(self._database)
        self._failures += 1
        if len(readable) > 1:
            if self._failures > FAILURES_PER_STEP:
                raise DatabaseUnavailable(f"too much failed in one step: {error}") from error
            middle = len(readable) // 2
            self._store(readable[:middle])
            self._store(readable[middle:])
            return
        entry = readable[0][0]
        verdict = Verdict(entry, error.code, str(error))
        if isinstance(error, PermanentError):
            self._metrics.count("intake_records_total", channel=STREAM, status="invalid")
            self._reject([verdict])
        elif self._suspects.failed(entry.entry_id):
            self._quarantine(verdict)
        else:
            log.warning("entry_put_off", entry_id=entry.entry_id.decode(), code=error.code, reason=str(error))

    def _after_commit(self, readable: Sequence[Readable], results: Sequence[IntakeResult]) -> None:
        """Let go of what was stored, reject what was not, hint at the work."""
        self._suspects.committed([entry.entry_id for entry, _ in readable])
        stored: list[bytes] = []
        refused: list[Verdict] = []
        for (entry, _), result in zip(readable, results, strict=True):
            self._metrics.count("intake_records_total", channel=STREAM, status=result.status)
            if result.status in {"conflict", "invalid"}:
                refused.append(Verdict(entry, result.code or result.status, result.reason or result.status))
            else:
                stored.append(entry.entry_id)
        self._stream.let_go(stored)  # first: it needs no room
        self._reject(refused)
        self._hint([record for _, record in readable], results)

    def _reject(self, verdicts: Sequence[Verdict]) -> None:
        if not verdicts:
            return
        self._stream.reject(verdicts)
        for one in verdicts:
            self._suspects.forget(one.entry.entry_id)
        self._metrics.count("intake_rejected_entries_total", len(verdicts))

    def _quarantine(self, verdict: Verdict) -> None:
        self._stream.quarantine(verdict)
        self._suspects.forget(verdict.entry.entry_id)
        self._metrics.count("intake_quarantined_entries_total")

    def _hint(self, records: Sequence[FlaggedRecord], results: Sequence[IntakeResult]) -> None:
        """Hint at the bundles that got pending audits."""
        models = {
            record.model
            for record, result in zip(records, results, strict=True)
            if result.status == "accepted" and result.state is AuditState.PENDING
        }
        if not models:
            return
        try:
            bundle_ids = active_bundle_ids(self._database, models)
        except TransientError as error:  # all is committed and acknowledged: the sweeper sends the hints
            log.info("hint_not_sent", sender="intake", reason=str(error))
            return
        self._hints.notify(bundle_ids)


def _within(readable: Sequence[Readable], budget_bytes: int) -> Iterator[list[Readable]]:
    """Groups of entries that stay within a budget of bytes, or hold one entry."""
    group: list[Readable] = []
    size = 0
    for one in readable:
        if group and size + one[0].size() > budget_bytes:
            yield group
            group, size = [], 0
        group.append(one)
        size += one[0].size()
    if group:
        yield group
