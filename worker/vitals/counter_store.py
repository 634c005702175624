"""Hands what a process counts to the database every few seconds, from a thread, so that `/metrics` shows the whole service."""

import threading
from typing import Self

from db import counters
from db.session import Database
from wherefrom.errors import DatabaseUnavailable
from wherefrom.logs import get_logger
from wherefrom.metrics import Metrics
from worker.loop import guarded

log = get_logger(__name__)

#: Seconds between two times; what was counted since is lost with a process that is killed.
STORE_S = 5.0


class CounterStore:
    """Stores the increments of one process."""

    def __init__(self, metrics: Metrics, database: Database, *, every_s: float = STORE_S) -> None:
        self._metrics = metrics
        self._database = database
        self._every_s = every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="counters", daemon=True)

    def start(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def store(self) -> None:
        """Store once; what cannot be stored now is stored later."""
        with self._metrics.moving:
            increments = self._metrics.increments()
            try:
                counters.add_to_totals(self._database, increments)
            except DatabaseUnavailable as error:
                log.debug("counters_kept", reason=str(error))
            else:
                self._metrics.stored()

    def close(self) -> None:
        """End the thread and store the rest."""
        self._stop.set()
        self._thread.join(timeout=self._every_s)
        guarded(self.store, name="counters", otherwise=None)

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            guarded(self.store, name="counters", otherwise=None)
