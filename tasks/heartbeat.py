"""Keeps the leases of a claimed batch alive from a thread while the batch is worked on."""

import threading
from types import TracebackType
from typing import Self

from tasks.store import AuditStore
from wherefrom.errors import DatabaseUnavailable
from wherefrom.logs import get_logger
from wherefrom.records import Claim

log = get_logger(__name__)


class Heartbeat:
    """Extends the leases of a claim every `every_s` seconds, and knows which audits were lost to another worker.

    A context manager: the thread runs inside the block. The database being away is no loss: the lease still stands,
    and the fence decides at the commit.
    """

    def __init__(self, store: AuditStore, claim: Claim, *, every_s: float, lease_s: float) -> None:
        self._store = store
        self._claim = claim
        self._every_s = every_s
        self._lease_s = lease_s
        self._held = {one.audit_id for one in claim.audits}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"heartbeat-{claim.bundle_name}", daemon=True)

    def holds(self, audit_id: int) -> bool:
        """Did this worker still hold the unfinished audit at the last heartbeat?"""
        return audit_id in self._held

    def beat(self) -> None:
        """Extend the leases once."""
        try:
            self._held = self._store.extend(self._claim, lease_s=self._lease_s)
        except DatabaseUnavailable as error:
            log.warning("heartbeat_missed", bundle_id=self._claim.bundle_id, reason=str(error))

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
            self.beat()
