"""Gives a process's signs of life to the database from a thread, so that `/today` shows who works, with which bundles, on every machine."""

import os
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Self

from db.session import Database
from db.signs import EVERY_S, Sign, give_sign, take_sign
from wherefrom.errors import DatabaseUnavailable
from wherefrom.logs import get_logger
from worker.loop import guarded

log = get_logger(__name__)


def no_bundles() -> Sequence[int]:
    """Of a process that loads none."""
    return ()


class Presence:
    """The signs of one process."""

    def __init__(
        self,
        database: Database,
        *,
        role: str,
        name: str,
        bundles: Callable[[], Sequence[int]] = no_bundles,
        every_s: float = EVERY_S,
    ) -> None:
        """Prepare.

        Args:
            database: Where the signs go.
            role: What the process does.
            name: The name under which it holds leases.
            bundles: Ids of the bundles that it has loaded by now.
            every_s: Seconds between two signs.
        """
        self._database, self._role, self._name = database, role, name
        self._bundles, self._every_s = bundles, every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="presence", daemon=True)

    def start(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def beat(self) -> None:
        """Give one sign; one that cannot be given now is no loss."""
        sign = Sign(self._name, self._role, socket.gethostname(), os.getpid(), self._bundles())
        try:
            give_sign(self._database, sign)
        except DatabaseUnavailable as error:
            log.debug("sign_not_given", reason=str(error))

    def close(self) -> None:
        """End the thread, and take the sign away."""
        self._stop.set()
        self._thread.join(timeout=self._every_s)
        guarded(self._leave, name="presence", otherwise=None)

    def _leave(self) -> None:
        try:
            take_sign(self._database, self._name)
        except DatabaseUnavailable as error:
            log.debug("sign_left_behind", reason=str(error))

    def _run(self) -> None:
        guarded(self.beat, name="presence", otherwise=None)
        while not self._stop.wait(self._every_s):
            guarded(self.beat, name="presence", otherwise=None)
