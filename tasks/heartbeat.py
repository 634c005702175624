"""Keeps leases alive from a thread while the work behind them goes on: of a claimed batch, or of one measurement."""

import threading
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

from wherefrom.errors import DatabaseUnavailable
from wherefrom.logs import get_logger

log = get_logger(__name__)

#: Extends the leases once; the ids that are still held.
Renew = Callable[[], set[int]]


class Heartbeat:
    """Renews leases every `every_s` seconds, and knows what was lost to another worker.

    A context manager: the thread runs inside the block. The database being away is no loss: the lease still stands,
    and the fence decides at the commit.
    """

    def __init__(self, renew: Renew, held: Iterable[int], *, every_s: float, bundle_id: int) -> None:
        """Prepare; the thread starts with the block.

        Args:
            renew: Extends the leases in the database.
            held: Ids of what is held at the start.
            every_s: Seconds between two beats.
            bundle_id: Whose work it is, for the log.
        """
        self._renew = renew
        self._every_s = every_s
        self._bundle_id = bundle_id
        self._held = set(held)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"heartbeat-{bundle_id}", daemon=True)

    def holds(self, number: int) -> bool:
        """Did this worker still hold the unfinished work with this id at the last heartbeat?"""
        return number in self._held

    def beat(self) -> None:
        """Extend the leases once."""
        try:
            self._held = self._renew()
        except DatabaseUnavailable as error:
            log.warning("heartbeat_missed", bundle_id=self._bundle_id, reason=str(error))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            try:
                self.beat()
            except Exception:  # the thread's boundary: a beat that failed is told, and the next one may do
                log.exception("heartbeat_failed", bundle_id=self._bundle_id)
