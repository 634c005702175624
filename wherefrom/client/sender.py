"""The background thread that empties a spool into the service: batches, backoff, `Retry-After`, refusals.

Of all senders on one spool, in any process, one sends at a time (a file lock that dies with its process). A batch is
forgotten only after the service answered, so a killed sender sends it again, which the idempotency keys make harmless.
"""

import logging
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass

from wherefrom.atomic import PRIVATE
from wherefrom.backoff import backoff_seconds
from wherefrom.client.connection import Connection
from wherefrom.client.service import post_records
from wherefrom.client.spool import Refusal, RefusedRecord, Spool, WaitingRecord
from wherefrom.errors import ServiceUnavailable, SpoolUnavailable, TransientError, WherefromError
from wherefrom.records import IntakeResult
from wherefrom.traceparent import MOST_LISTED

if sys.platform != "win32":
    import fcntl

_log = logging.getLogger(__name__)

#: So many records alone answered with HTTP 500, and none taken between: the service itself is broken.
BROKEN_IN_A_ROW = 3

OnRefused = Callable[[Sequence[RefusedRecord]], None]


@dataclass(frozen=True)
class SendingOptions:
    """How a spool is emptied; times in seconds."""

    batch_records: int = 100
    batch_bytes: int = 1_000_000
    #: Wait after the first failure; doubles, and each wait is shortened by up to half at random.
    backoff_base_s: float = 0.5
    backoff_cap_s: float = 60.0
    #: How often an idle sender looks for records of other processes.
    poll_s: float = 0.5


class Sender:
    """One daemon thread; `start` it once, then `stop` it or let it `retire`. It must not hold what it belongs to.

    Args:
        spool: What is to be sent; closed when the thread ends.
        connect: Makes the thread's own connection to the service.
        options: How to send.
        on_refused: Called in the thread, after they are stored, with the records that the service refused.
    """

    def __init__(
        self,
        spool: Spool,
        connect: Callable[[], Connection],
        options: SendingOptions,
        on_refused: OnRefused | None,
    ) -> None:
        self._spool = spool
        self._connect = connect
        self._options = options
        self._on_refused = on_refused
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="wherefrom-sender", daemon=True)
        self._stopping = False
        self._retiring = False
        self._work = True
        self._failures = 0
        self._broken_in_a_row = 0
        self._resume_at = 0.0
        self._asked_to_wait_until = 0.0
        self._batch_records = options.batch_records
        self._lock_file: int | None = None
        #: Why the last attempt failed; None after one that did not.
        self.last_error: WherefromError | None = None

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def wake(self) -> None:
        """There is a new record; does not shorten a backoff."""
        with self._changed:
            self._work = True
            self._changed.notify_all()

    def hurry(self) -> None:
        """Try now, but not before the time that the service asked for."""
        with self._changed:
            self._resume_at = min(self._resume_at, self._asked_to_wait_until)
            self._work = True
            self._changed.notify_all()

    def wait_for_progress(self, timeout_s: float) -> None:
        """Return when a batch was settled, or after `timeout_s`."""
        with self._changed:
            self._changed.wait(timeout_s)

    def stop(self) -> None:
        """End after the request that is under way."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def retire(self) -> None:
        """End by itself: after what can be sent now, or with the first attempt that fails. The rest stays in the spool."""
        with self._changed:
            self._retiring = True
            self._changed.notify_all()

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread's end; True where it ended."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def abandon_after_fork(self) -> None:
        """In a forked child, where the thread does not exist: let go of the parent's lock file without unlocking it."""
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    def _run(self) -> None:
        with closing(self._connect()) as connection, closing(self._spool):
            while not self._stopping:
                self._work = False
                delay_s = self._round(connection)
                if (
                    self._retiring and delay_s > 0
                ):  # nothing is left, another one sends, or the service is away
                    return
                self._pause(delay_s)
                if self._retiring and time.monotonic() < self._asked_to_wait_until:
                    return

    def _round(self, connection: Connection) -> float:
        """Send one batch; how long to wait before the next one, seconds."""
        try:
            with self._alone() as alone:
                more = self._send_batch(connection) if alone else False
        except WherefromError as error:
            return self._note_failure(error)
        except Exception:  # noqa: BLE001 - the thread's one boundary: a bug must not end the sending without a word
            _log.exception("sender_failed spool=%s", self._spool.path)
            return self._note_failure(
                TransientError("the sender or its callback failed; the log has the traceback")
            )
        return 0.0 if more else self._options.poll_s

    def _send_batch(self, connection: Connection) -> bool:
        """Send and settle the oldest records; True where there may be more."""
        batch = self._spool.next_batch(
            max_records=self._batch_records,
            max_bytes=self._options.batch_bytes,
            longest_wait_s=self._options.backoff_cap_s,
        )
        if not batch:
            return False
        if any(one.traceparent for one in batch):
            batch = batch[:MOST_LISTED]
        try:
            results = post_records(
                connection, [one.record for one in batch], [one.traceparent for one in batch]
            )
        except ServiceUnavailable as error:
            if error.status != 500:
                raise
            self._isolate(batch, error)
            return True
        self._note_success()
        refusals = [
            _refusal(one, result) for one, result in zip(batch, results, strict=True) if _is_refused(result)
        ]
        refused_ids = {one.waiting.id for one in refusals}
        self._spool.settle([one for one in batch if one.id not in refused_ids], refusals)
        self._batch_records = min(self._options.batch_records, self._batch_records * 2)
        with self._changed:
            self._changed.notify_all()
        if refusals:
            self._report(refusals)
        return True

    def _isolate(self, batch: Sequence[WaitingRecord], error: ServiceUnavailable) -> None:
        """Close in on a record that breaks the service (HTTP 500), and let the others pass it."""
        if len(batch) > 1:
            self._batch_records = len(batch) // 2
            return
        _log.warning("record_postponed idempotency_key=%s reason=%s", batch[0].idempotency_key, error)
        self._spool.postpone(batch[0], base_s=self._options.backoff_base_s, cap_s=self._options.backoff_cap_s)
        self._broken_in_a_row += 1
        if self._broken_in_a_row >= BROKEN_IN_A_ROW:  # it is the service, not these records
            raise error

    def _report(self, refusals: Sequence[Refusal]) -> None:
        for one in refusals:
            _log.error(
                "record_refused idempotency_key=%s code=%s reason=%s",
                one.waiting.idempotency_key,
                one.code,
                one.reason,
            )
        if self._on_refused is not None:
            keys = {one.waiting.idempotency_key for one in refusals}
            self._on_refused([one for one in self._spool.refused() if one.idempotency_key in keys])

    def _note_success(self) -> None:
        if self._failures:
            _log.info("sending_resumed after_failures=%d", self._failures)
        self._failures = 0
        self._broken_in_a_row = 0
        self.last_error = None

    def _note_failure(self, error: WherefromError) -> float:
        """Remember a failure; the wait before the next attempt, seconds."""
        options = self._options
        self.last_error = error
        # A wrong API key or address waits for a person; the records stay.
        base_s = options.backoff_base_s if isinstance(error, TransientError) else options.backoff_cap_s
        delay_s = backoff_seconds(self._failures + 1, base_s=base_s, cap_s=options.backoff_cap_s)
        asked_s = error.retry_after_s if isinstance(error, ServiceUnavailable) else None
        if asked_s is not None:
            delay_s = asked_s + random.uniform(0.0, options.backoff_base_s)  # noqa: S311 - jitter, no secret
            self._asked_to_wait_until = time.monotonic() + asked_s
        if self._failures == 0:
            _log.warning("sending_failed code=%s retry_in_s=%.1f reason=%s", error.code, delay_s, error)
        self._failures += 1
        return delay_s

    def _pause(self, delay_s: float) -> None:
        """Wait: shortened by new work when all is well, by `hurry` after a failure, by `stop` and `retire` always."""
        with self._changed:
            self._resume_at = time.monotonic() + delay_s
            while (
                not (self._stopping or self._retiring) and (left_s := self._resume_at - time.monotonic()) > 0
            ):
                if self._work and self.last_error is None:
                    return
                self._changed.wait(left_s)

    @contextmanager
    def _alone(self) -> Iterator[bool]:
        """True while no other sender sends from this spool."""
        if sys.platform == "win32":  # every process sends; what is sent twice is answered as a duplicate
            yield True
            return
        path = self._spool.path.with_name(self._spool.path.name + "-sender")
        try:
            self._lock_file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
        except OSError as error:
            raise SpoolUnavailable(f"the lock file {path} cannot be opened: {error.strerror}") from error
        try:
            yield _locked(self._lock_file)
        finally:
            if self._lock_file is not None:
                os.close(self._lock_file)
                self._lock_file = None


def _locked(lock_file: int) -> bool:
    if sys.platform == "win32":
        return True
    try:
        fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_refused(result: IntakeResult) -> bool:
    return result.status in ("conflict", "invalid")


def _refusal(record: WaitingRecord, result: IntakeResult) -> Refusal:
    fallback = "idempotency_conflict" if result.status == "conflict" else "invalid_record"
    return Refusal(record, result.code or fallback, result.reason or f"the service answered {result.status}")
