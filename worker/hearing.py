"""Each worker watches its own ear: one that has gone deaf beside healthy ones ends, so that its supervisor starts it again.

A worker with room for a hint asks its queue all the time, and the queue answers within a second or two, be it with nothing. So a
worker that has room, whose Redis answers somebody else, and that hears no answer is deaf, whatever the others get done. The
watchdog (`worker.watchdog`) looks at progress in the database instead: it sees what this cannot, and needs longer for it.
"""

import threading
import time
from collections.abc import Callable
from typing import Protocol

from tasks.attribute import Clock
from wherefrom.errors import QueueUnavailable
from wherefrom.logs import get_logger
from worker.rounds import guarded

log = get_logger(__name__)

#: Seconds between two looks.
LISTEN_S = 2.0
#: An answer this long ago is fresh: a question waits for a second, and a busy machine takes its time.
FRESH_S = 5.0
#: A worker that hears nothing for this long, while it could, is deaf.
DEAF_S = 12.0


class Ear(Protocol):
    """What is known of a worker's connection to its queue."""

    @property
    def heard_at(self) -> float | None:
        """When the queue last answered, by the clock; None before the first time, and without a connection."""

    def has_room(self) -> bool:
        """Whether the worker would take a hint now."""


class Hearing:
    """Decides whether a worker is deaf; of several looks in a row, so that a short pause is none."""

    def __init__(
        self, ear: Callable[[], Ear | None], ask: Callable[[], None], *, clock: Clock = time.monotonic
    ) -> None:
        """Prepare.

        Args:
            ear: The worker's present connection, None while it has none.
            ask: Returns when Redis answers; raises `QueueUnavailable` when it does not.
            clock: Seconds, as those of `Ear.heard_at`.
        """
        self._ear = ear
        self._ask = ask
        self._clock = clock
        self._has_heard = False
        self._deaf_since: float | None = None

    def silent_s(self) -> float:
        """Look once; for how many seconds the worker has been deaf."""
        if self._hears():
            self._deaf_since = None
            return 0.0
        now = self._clock()
        if self._deaf_since is None:
            self._deaf_since = now
        return now - self._deaf_since

    def run(self, *, stop: threading.Event, end: Callable[[], None]) -> None:
        """Look until `stop` is set; call `end` when the worker is deaf."""
        while not stop.wait(LISTEN_S):
            silent_s = guarded(self.silent_s, name="hearing", otherwise=0.0)
            if silent_s >= DEAF_S:
                log.error("worker_deaf", seconds=round(silent_s), limit_s=DEAF_S)
                end()
                return

    def _hears(self) -> bool:
        """It heard lately, or it cannot now: it starts, it is full, or Redis is away."""
        ear = self._ear()
        heard_at = None if ear is None else ear.heard_at
        if heard_at is not None:
            self._has_heard = True
            if self._clock() - heard_at <= FRESH_S:
                return True
        if not self._has_heard or (ear is not None and not ear.has_room()):
            return True
        try:
            self._ask()
        except QueueUnavailable:
            return True
        return False
