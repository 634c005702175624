"""Each worker checks its own connection to the queue: one that has gone deaf beside healthy ones ends, so that its supervisor starts it again.

A worker with room for a hint asks its queue all the time, and the queue answers within a second or two, be it with nothing. So a
worker that has room, whose Redis answers somebody else, and that hears no answer is deaf, whatever the others get done. The
watchdog (`worker.vitals.watchdog`) looks at progress in the database instead: it sees what this cannot, and needs longer for it.
"""

import threading
import time
from collections.abc import Callable
from typing import Protocol

from tasks.attribute import Clock
from wherefrom.errors import QueueUnavailable
from wherefrom.logs import get_logger
from worker.loop import guarded

log = get_logger(__name__)

#: Seconds between two looks.
CHECK_S = 2.0
#: An answer this long ago is fresh: a question waits for a second, and a busy machine takes its time.
FRESH_S = 5.0
#: A worker that hears nothing for this long, while it could, is deaf.
DEAF_S = 12.0


class QueueConnection(Protocol):
    """What is known of a worker's connection to its queue."""

    @property
    def heard_at(self) -> float | None:
        """When the queue last answered, by the clock; None before the first time, and without a connection."""

    def has_room(self) -> bool:
        """Whether the worker would take a hint now."""


class ConnectionCheck:
    """Decides whether a worker is deaf; of several looks in a row, so that a short pause is none."""

    def __init__(
        self,
        connection: Callable[[], QueueConnection | None],
        ask_redis: Callable[[], None],
        *,
        clock: Clock = time.monotonic,
    ) -> None:
        """Prepare.

        Args:
            connection: The worker's present connection, None while it has none.
            ask_redis: Returns when Redis answers; raises `QueueUnavailable` when it does not.
            clock: Seconds, as those of `Ear.heard_at`.
        """
        self._connection = connection
        self._ask_redis = ask_redis
        self._clock = clock
        self._was_connected = False
        self._deaf_since: float | None = None

    def silent_s(self) -> float:
        """Look once; for how many seconds the worker has been deaf."""
        if self._is_connected():
            self._deaf_since = None
            return 0.0
        now = self._clock()
        if self._deaf_since is None:
            self._deaf_since = now
        return now - self._deaf_since

    def run(self, *, stop: threading.Event, end: Callable[[], None]) -> None:
        """Look until `stop` is set; call `end` when the worker is deaf."""
        while not stop.wait(CHECK_S):
            silent_s = guarded(self.silent_s, name="hearing", otherwise=0.0)
            if silent_s >= DEAF_S:
                log.error("worker_deaf", seconds=round(silent_s), limit_s=DEAF_S)
                end()
                return

    def _is_connected(self) -> bool:
        """It heard lately, or it cannot now: it starts, it is full, or Redis is away."""
        connection = self._connection()
        heard_at = None if connection is None else connection.heard_at
        if heard_at is not None:
            self._was_connected = True
            if self._clock() - heard_at <= FRESH_S:
                return True
        if not self._was_connected or (connection is not None and not connection.has_room()):
            return True
        try:
            self._ask_redis()
        except QueueUnavailable:
            return True
        return False
