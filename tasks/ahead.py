"""Claims the next batch of a bundle while this one is worked on, so that the engine does not wait for the queue.

One claim at a time is looked for, from a thread. What is found is held under a lease like any other, and what nobody takes is handed back. Whether there is to be
a next one at all is decided by whoever makes this (`tasks.hint`).
"""

import contextvars
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Self

from tasks.store import AuditStore
from wherefrom.errors import TransientError
from wherefrom.logs import get_logger
from wherefrom.records import Claim, ClaimedAudit, Lease

log = get_logger(__name__)

#: Claims up to so many audits; None where there are to be none.
Find = Callable[[int], Claim | None]
#: Keeps leases alive (`tasks.heartbeat`).
Hold = Callable[[Iterable[Lease]], None]


def never() -> bool:
    """Of a process that is not told to end."""
    return False


def unlimited() -> None:
    """Of work without a limit of time."""


class Ahead:
    """The claims that follow the one in hand; a context manager, which hands back what was found and not taken."""

    def __init__(
        self,
        store: AuditStore,
        *,
        find: Find | None = None,
        is_ending: Callable[[], bool] = never,
        on_taken: Callable[[], None] = unlimited,
    ) -> None:
        """Prepare; nothing is looked for yet.

        Args:
            store: Takes back what is not worked on.
            find: Claims the next batch; called from a thread. None: the claim in hand is the last one.
            is_ending: Whether this process is to end.
            on_taken: Called when work on another claim begins.
        """
        self._store = store
        self._find = find
        self._on_taken = on_taken
        self._asked: Future[Claim | None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="next-claim")
        self.is_ending = is_ending

    def ask(self, room: int, hold: Hold) -> None:
        """Begin to look for the next claim of up to `room` audits, which `hold` keeps alive from then on; nothing where one is looked for already."""
        if self._find is not None and self._asked is None and room > 0 and not self.is_ending():
            look = partial(self._look, self._find, room, hold)
            self._asked = self._thread.submit(contextvars.copy_context().run, look)

    def take(self) -> tuple[ClaimedAudit, ...]:
        """The audits of the claim that was found, after waiting for it; none where nobody asked, or there is to be none."""
        claim = self._found()
        if claim is None:
            return ()
        self._on_taken()
        return tuple(claim.audits)

    def hand_back(self, audits: Iterable[ClaimedAudit]) -> None:
        """Put audits back that nobody has begun to work on; where that fails, their leases run out."""
        back = tuple(audits)
        if not back:
            return
        suspects = {one.audit_id for one in back if one.is_suspect}
        try:
            count = self._store.hand_back([one.lease for one in back], suspects=suspects)
        except TransientError as error:
            log.warning("claim_not_handed_back", code=error.code, reason=str(error), audits=len(back))
        else:
            log.info("claim_handed_back", audits=count)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            claim = self._found()
            if claim is not None:
                self.hand_back(claim.audits)
        finally:
            self._thread.shutdown()

    def _found(self) -> Claim | None:
        asked, self._asked = self._asked, None
        return None if asked is None else asked.result()

    @staticmethod
    def _look(find: Find, room: int, hold: Hold) -> Claim | None:
        try:
            claim = find(room)
        except TransientError as error:  # the work in hand goes on; whether it can be stored shows then
            log.info("next_claim_put_off", code=error.code, reason=str(error))
            return None
        if claim is not None:
            hold([one.lease for one in claim.audits])
        return claim
