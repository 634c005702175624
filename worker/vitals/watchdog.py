"""Ends a worker that has stopped consuming: pending work, and nobody works on anything, for too long.

A Celery worker can be alive and deaf after Redis was away (docs/operations.md). It cannot mend itself, so it ends, and the
supervisor starts it again. The watchdog runs in the worker's main process and also gives its sign of life. Work of a bundle that
was looked at and refused, or is being loaded, does not count: the worker hears well, and starting it again would not help.
"""

import threading
import time
from collections.abc import Callable

from db.queues.audit_queue import AuditQueue
from db.reading import reader
from db.session import Database
from db.storing import intake
from tasks.attribute import Clock
from wherefrom.errors import DatabaseUnavailable
from wherefrom.logs import get_logger
from worker.loop import guarded

log = get_logger(__name__)

#: Seconds between two looks; the limit may be shorter in tests.
LOOK_S = 15.0


class Watchdog:
    """Looks at the database for progress of anybody."""

    def __init__(
        self,
        database: Database,
        *,
        limit_s: float,
        clock: Clock = time.monotonic,
        is_excused: Callable[[int], bool] = lambda _: False,
    ) -> None:
        """Prepare.

        Args:
            database: Where progress is seen.
            limit_s: Longest time with work and without progress.
            clock: Seconds.
            is_excused: Whether a process of this worker is loading the bundle of this id, or refused it lately.
        """
        self._database = database
        self._is_excused = is_excused
        self._limit_s = limit_s
        self._clock = clock
        self._last_end: int | None = -1
        self._progress_at = clock()

    def look(self) -> float:
        """Seconds since the last progress: nothing usable was pending, somebody held a live lease, or an audit was finished."""
        try:
            idle = self._is_idle_with_work()
            if idle:
                intake.check_writable(self._database)  # nobody can claim on a standby either
        except DatabaseUnavailable as error:
            # Nobody can claim now, and starting again would not help.
            log.warning("watchdog_blind", reason=str(error))
            idle = False
        if not idle:
            self._progress_at = self._clock()
        return self._clock() - self._progress_at

    def run(self, *, beat: Callable[[], None], stop: threading.Event, end: Callable[[], None]) -> None:
        """Look until `stop` is set; call `end` when the limit is passed."""
        while not stop.wait(min(LOOK_S, self._limit_s / 4)):
            guarded(beat, name="watchdog", otherwise=None)
            stalled_s = guarded(self.look, name="watchdog", otherwise=0.0)
            if stalled_s >= self._limit_s:
                log.error("worker_stalled", seconds=round(stalled_s), limit_s=self._limit_s)
                end()
                return

    def _is_idle_with_work(self) -> bool:
        if all(
            self._is_excused(bundle_id) for bundle_id in AuditQueue(self._database).pending_counts(at_most=1)
        ):
            return False
        at_work = reader.is_worked_on(self._database)
        last_end = reader.last_end(self._database)
        moved, self._last_end = last_end != self._last_end, last_end
        return not at_work and not moved
