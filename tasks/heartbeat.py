"""Keeps leases alive from a thread while the work behind them goes on: of claimed batches, or of one measurement."""

import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from types import TracebackType
from typing import Protocol, Self

from wherefrom.errors import DatabaseUnavailable
from wherefrom.logs import get_logger
from wherefrom.records import Lease
from wherefrom.settings import Settings

log = get_logger(__name__)

#: Extends these leases once; the ids that are still held.
Extend = Callable[[Sequence[Lease]], set[int]]


class ExtendsLeases(Protocol):
    """A queue, as far as leases go; `db.queues.queue` says how."""

    def extend(self, leases: Sequence[Lease], *, lease_s: float) -> set[int]:
        """Renew leases; the ids that are still held."""


class LeaseLost(Exception):
    """Another worker holds the work by now; what was computed here is of no use."""


class Heartbeat:
    """Renews leases every `every_s` seconds, and knows what was lost to another worker.

    A context manager: the thread runs inside the block. Leases may come and go meanwhile, from any thread. The database being away is no loss:
    the lease still stands, and the fence decides at the commit.
    """

    def __init__(self, extend: Extend, leases: Iterable[Lease], *, every_s: float, bundle_id: int) -> None:
        """Prepare; the thread starts with the block.

        Args:
            extend: Extends leases in the database.
            leases: What is held at the start.
            every_s: Seconds between two beats.
            bundle_id: Whose work it is, for the log.
        """
        self._extend = extend
        self._every_s = every_s
        self._bundle_id = bundle_id
        self._leases = {one.id: one for one in leases}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"heartbeat-{bundle_id}", daemon=True)

    @classmethod
    def of(cls, queue: ExtendsLeases, leases: Iterable[Lease], *, settings: Settings, bundle_id: int) -> Self:
        """The heartbeat of what was claimed from a queue, as the settings have it."""
        extend = partial(queue.extend, lease_s=settings.lease_seconds)
        return cls(extend, leases, every_s=settings.heartbeat_seconds, bundle_id=bundle_id)

    def holds(self, lease: Lease) -> bool:
        """Was this unfinished work still held as claimed at the last heartbeat? Not where it was claimed anew since, by this worker too."""
        return self._leases.get(lease.id) == lease

    def require(self, lease: Lease) -> None:
        """Return where `holds` says so.

        Raises:
            LeaseLost: it does not.
        """
        if not self.holds(lease):
            raise LeaseLost

    def take_on(self, leases: Iterable[Lease]) -> None:
        """Keep these alive too."""
        with self._lock:
            self._leases |= {one.id: one for one in leases}

    def let_go(self, leases: Iterable[Lease]) -> None:
        """Keep these alive no longer: the work is done, or somebody else's. What was claimed anew since then is held under another attempt, and stays."""
        with self._lock:
            for one in leases:
                if self._leases.get(one.id) == one:
                    del self._leases[one.id]

    def beat(self) -> None:
        """Extend the leases once."""
        with self._lock:
            asked = list(self._leases.values())
        if not asked:
            return
        try:
            kept = self._extend(asked)
        except DatabaseUnavailable as error:
            log.warning("heartbeat_missed", bundle_id=self._bundle_id, reason=str(error))
        else:
            self.let_go(one for one in asked if one.id not in kept)

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
