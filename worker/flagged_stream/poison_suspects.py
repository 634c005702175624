"""Remembers the entries that the database refused for no reason of their own, and says when one has had its chances.

An entry is put off when storing it fails while the database can be written. It is tried again alone, later and later. Only a
failure since whose predecessor *other* entries were committed counts: where nobody gets in, nobody is condemned.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from wherefrom.backoff import backoff_seconds

#: Failures that count before an entry goes to the quarantine.
CHANCES = 5
#: Waits between two tries of one entry.
RETRY_BASE_S = 0.5
RETRY_CAP_S = 30.0


@dataclass
class _Suspect:
    tries: int
    counted: int
    #: Commits of others that had been seen when its last failure was counted.
    commits: int
    retry_at: float


class PoisonSuspects:
    """The suspects of one intake. Forgotten when it ends; the entries themselves stay in the stream."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[bytes, _Suspect] = {}
        self._commits = 0

    def __contains__(self, entry_id: bytes) -> bool:
        return entry_id in self._known

    def committed(self, entry_ids: list[bytes]) -> None:
        """Entries were stored: they are cleared, and the database has shown that it takes others."""
        self._commits += 1
        for entry_id in entry_ids:
            self._known.pop(entry_id, None)

    def failed(self, entry_id: bytes) -> bool:
        """Storing this entry alone has failed; whether it has had its chances."""
        known = self._known.setdefault(
            entry_id, _Suspect(tries=0, counted=0, commits=self._commits - 1, retry_at=0.0)
        )
        known.tries += 1
        if self._commits > known.commits:
            known.counted += 1
            known.commits = self._commits
        known.retry_at = self._clock() + backoff_seconds(known.tries, base_s=RETRY_BASE_S, cap_s=RETRY_CAP_S)
        return known.counted >= CHANCES

    def forget(self, entry_id: bytes) -> None:
        """The entry left the stream."""
        self._known.pop(entry_id, None)

    def due(self, limit: int) -> list[bytes]:
        """Entries to be tried again now, those that wait longest first."""
        now = self._clock()
        waited = sorted(
            (one.retry_at, entry_id) for entry_id, one in self._known.items() if one.retry_at <= now
        )
        return [entry_id for _, entry_id in waited[:limit]]
