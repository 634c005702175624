"""Seals the trail every second, from a thread of the sweeper: moves the reads of this machine, chains what is new, puts anchors outside.

Several sweepers may run; one seals at a time (`db.audit_trail.trail_chain`).
"""

import threading
from typing import Self

from db.audit_trail import trail_chain
from db.session import Database
from wherefrom.errors import TransientError
from wherefrom.journal import journal_folder
from wherefrom.logs import get_logger
from wherefrom.metrics import Metrics
from wherefrom.settings import Settings
from worker.loop import guarded
from worker.pool.owners import owner_name
from worker.sweeper.anchors import Anchors, anchor_file
from worker.sweeper.journal_mover import JournalMover

log = get_logger(__name__)

#: Seconds between two rounds; an event waits at most a round and the sealing of what is before it.
EVERY_S = 1.0


class Sealer:
    """Seals what is there."""

    def __init__(self, database: Database, settings: Settings, *, metrics: Metrics) -> None:
        self._database, self._metrics = database, metrics
        self._owner = owner_name()
        self._mover = JournalMover(database, journal_folder(settings), metrics=metrics)
        self._anchors = Anchors(
            (anchor_file(settings),), every_s=settings.trail_anchor_seconds, metrics=metrics
        )

    def step(self) -> int:
        """One round; how many events were sealed.

        Raises:
            DatabaseUnavailable, DatabaseReadOnly: the rest is sealed later.
            OSError: a journal cannot be read.
        """
        self._mover.step()
        sealed = 0
        while True:
            done = trail_chain.seal(self._database, owner=self._owner)
            self._anchors.saw(done.head)
            sealed += done.sealed
            if done.sealed < trail_chain.AT_ONCE:
                break
        if sealed:
            self._metrics.count("trail_sealed_total", sealed)
        return sealed

    def close(self) -> None:
        """Put the end of the chain outside, so that a stop leaves nothing without an anchor."""
        self._anchors.keep()


class RoundThread:
    """Calls a step of the trail every second, from a thread of its own, whatever is away."""

    def __init__(self, step: "Sealer | JournalMover", *, name: str, every_s: float = EVERY_S) -> None:
        self._step, self._name, self._every_s = step, name, every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def close(self) -> None:
        """End the thread, after one more round."""
        self._stop.set()
        self._thread.join(timeout=10 * self._every_s)
        guarded(self._round, name=self._name, otherwise=None)

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            guarded(self._round, name=self._name, otherwise=None)

    def _round(self) -> None:
        try:
            self._step.step()
        except TransientError as error:
            log.debug("trail_waits", thread=self._name, code=error.code, reason=str(error))
        except OSError as error:
            log.error("journal_unreadable", thread=self._name, reason=str(error))  # noqa: TRY400 - its text says it
