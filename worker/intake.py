"""Takes flagged outputs from the Redis stream into SQL: read by consumer group, commit, then acknowledge and delete.

An entry leaves Redis only after the SQL commit, in the same MULTI that acknowledges it. Whatever dies in between, the
entry is read again: by this process from its own unacknowledged entries, or by another one with XAUTOCLAIM. Reading an
entry twice is harmless, for its id is its idempotency key. What cannot be read moves to the rejected stream with the
reason. Waiting for an absent Redis or database is left to `worker.rounds`.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import redis

from db import catalogue
from db.intake import accept, check_writable
from db.session import Database
from wherefrom.errors import PermanentError, TransientError
from wherefrom.logs import get_logger
from wherefrom.messages import INTAKE_GROUP, RECORD_FIELD
from wherefrom.metrics import Metrics
from wherefrom.records import AuditState, FlaggedRecord, IntakeResult
from wherefrom.settings import Settings
from worker.entries import read_entry
from worker.hints import HintSender
from worker.redis_link import flagged_stream, redis_errors, rejected_stream

log = get_logger(__name__)

#: Producer and channel of what comes over the stream.
STREAM = "stream"
#: Longest wait for new entries in one read; also how long a stop may take.
BLOCK_MS = 1000
#: Newest entries that the rejected stream keeps; older ones make room, so that a broken producer cannot fill Redis.
REJECTED_KEPT = 10_000
#: Most bytes of one field that are copied to the rejected stream.
REJECTED_FIELD_BYTES = 65_536


@dataclass(frozen=True)
class Entry:
    """One entry of the stream; `fields` is empty where the entry was deleted under our hands."""

    entry_id: bytes
    fields: dict[bytes, bytes]


@dataclass(frozen=True)
class RejectedEntry:
    """An entry that cannot be taken, with the code and the reason."""

    entry: Entry
    code: str
    reason: str


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
        self._redis = client
        self._database = database
        self._settings = settings
        self._metrics = metrics
        self._hints = hints
        self._consumer = consumer
        self._stream = flagged_stream(settings)
        self._rejected = rejected_stream(settings)
        self._has_group = False
        # Entries may be assigned to us that we do not know of: after a failed answer, or taken over from the dead.
        self._has_backlog = False
        self._take_over_at = 0.0

    def step(self) -> None:
        """Read one batch, waiting up to a second for it, and take it.

        Raises:
            QueueUnavailable: Redis does not answer; entries already committed are acknowledged in a later step.
            DatabaseUnavailable: nothing was committed; the entries stay in the stream.
        """
        try:
            self._ensure_group()
            self._take_over_if_due()
            entries = self._read()
            if entries:
                self._take(entries)
        except TransientError:
            self._has_backlog = True
            self._has_group = False  # a Redis that came back empty has no group either
            raise

    def leave(self) -> None:
        """Remove this consumer from the group, unless entries are still assigned to it."""
        with redis_errors():
            consumers = self._redis.xinfo_consumers(self._stream, INTAKE_GROUP)
            mine = [one for one in consumers if one["name"] == self._consumer.encode()]
            if mine and mine[0]["pending"] == 0:
                self._redis.xgroup_delconsumer(self._stream, INTAKE_GROUP, self._consumer)

    def _ensure_group(self) -> None:
        """Make the stream's consumer group, from its first entry on."""
        if self._has_group:
            return
        with redis_errors():
            try:
                self._redis.xgroup_create(self._stream, INTAKE_GROUP, id="0", mkstream=True)
            except redis.ResponseError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise
        self._has_group = True

    def _take_over_if_due(self) -> None:
        """Assign to us what a consumer has held for too long: it died, or an answer to us was lost."""
        if time.monotonic() < self._take_over_at:
            return
        idle_s = self._settings.intake_idle_claim_seconds
        cursor, taken = b"0-0", 0
        with redis_errors():
            while True:
                answer = self._redis.xautoclaim(
                    self._stream,
                    INTAKE_GROUP,
                    self._consumer,
                    min_idle_time=int(idle_s * 1000),
                    start_id=cursor,
                    count=self._settings.intake_batch,
                )
                cursor = answer[0]
                taken += len(answer[1])  # read again below, with what else is ours
                if cursor == b"0-0":
                    break
        if taken:
            log.info("entries_taken_over", entries=taken)
            self._has_backlog = True
        self._take_over_at = time.monotonic() + idle_s / 2

    def _read(self) -> list[Entry]:
        """The next entries: first those that are already assigned to us, then new ones."""
        if self._has_backlog:
            entries = self._read_from("0", block_ms=None)
            if entries:
                return entries
            self._has_backlog = False
        return self._read_from(">", block_ms=BLOCK_MS)

    def _read_from(self, start: str, *, block_ms: int | None) -> list[Entry]:
        with redis_errors():
            # One stream was asked for; with nothing to read the answer is empty.
            answer: Any = self._redis.xreadgroup(
                INTAKE_GROUP,
                self._consumer,
                {self._stream: start},
                count=self._settings.intake_batch,
                block=block_ms,
            )
        return [Entry(entry_id, fields or {}) for _, entries in answer or [] for entry_id, fields in entries]

    def _take(self, entries: Sequence[Entry]) -> None:
        """Commit what can be read, then let go of all entries in one MULTI, then hint at the work."""
        readable: list[tuple[Entry, FlaggedRecord]] = []
        rejected: list[RejectedEntry] = []
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
                rejected.append(RejectedEntry(entry, error.code, str(error)))
            else:
                readable.append((entry, record))
        results = self._accept(readable)
        for (entry, _), result in zip(readable, results, strict=True):
            self._metrics.count("intake_records_total", channel=STREAM, status=result.status)
            if result.status in {"conflict", "invalid"}:
                rejected.append(
                    RejectedEntry(entry, result.code or result.status, result.reason or result.status)
                )
        self._let_go(entries, rejected)
        log.info("entries_taken", entries=len(entries), rejected=len(rejected))
        self._hint([record for _, record in readable], results)

    def _accept(self, readable: Sequence[tuple[Entry, FlaggedRecord]]) -> list[IntakeResult]:
        """What the database did with each record; one that it refuses as such does not keep out the others."""
        records = [record for _, record in readable]
        if not records:
            return []
        try:
            return accept(self._database, records, producer=STREAM, channel=STREAM)
        except PermanentError as error:
            check_writable(self._database)  # while that fails, no record is to blame
            if len(records) == 1:
                return [IntakeResult(status="invalid", code=error.code, reason=str(error))]
        middle = len(readable) // 2
        return self._accept(readable[:middle]) + self._accept(readable[middle:])

    def _let_go(self, entries: Sequence[Entry], rejected: Sequence[RejectedEntry]) -> None:
        """Acknowledge and delete; what is rejected is copied to its stream in the same step as it is deleted.

        The readable entries go first, in a step of their own: a full Redis refuses the copies, and letting go is what frees it.
        """
        refused = [one.entry.entry_id for one in rejected]
        with redis_errors():
            if kept := [entry.entry_id for entry in entries if entry.entry_id not in refused]:
                pipeline = self._redis.pipeline(transaction=True)
                pipeline.xack(self._stream, INTAKE_GROUP, *kept)
                pipeline.xdel(self._stream, *kept)
                pipeline.execute()
            if not refused:
                return
            pipeline = self._redis.pipeline(transaction=True)
            for one in rejected:
                log.warning(
                    "entry_rejected", entry_id=one.entry.entry_id.decode(), code=one.code, reason=one.reason
                )
                pipeline.xadd(self._rejected, rejected_fields(one), maxlen=REJECTED_KEPT, approximate=True)
            pipeline.xack(self._stream, INTAKE_GROUP, *refused)
            pipeline.xdel(self._stream, *refused)
            pipeline.execute()
        self._metrics.count("intake_rejected_entries_total", len(rejected))

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
            bundles = catalogue.active_bundles(self._database)
        except TransientError as error:  # all is committed and acknowledged: the sweeper sends the hints
            log.info("hint_not_sent", sender="intake", reason=str(error))
            return
        self._hints.notify(bundle.id for bundle in bundles if bundle.model in models)


def rejected_fields(rejected: RejectedEntry) -> dict[Any, Any]:
    """Fields (bytes) of the entry in the rejected stream: what came (cut where it is huge), the code, the reason, the old id."""
    kept = {name: value[:REJECTED_FIELD_BYTES] for name, value in rejected.entry.fields.items()}
    kept.setdefault(RECORD_FIELD.encode(), b"")
    return {
        **kept,
        b"rejected_code": rejected.code.encode(),
        b"rejected_reason": rejected.reason.encode("utf-8", "replace"),
        b"rejected_entry": rejected.entry.entry_id,
    }
