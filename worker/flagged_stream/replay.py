"""Takes entries of the rejected stream and of the quarantine back into the flagged stream, lists them, or drops them.

An entry keeps its first id as its idempotency key, so that taking it back twice stores it once. It moves in one MULTI: whatever
dies in between, it is in exactly one of the two streams.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import redis

from wherefrom.errors import ConfigurationError, NotFound
from wherefrom.messages import CUT_FIELD, RECORD_FIELD, REPLAYED_FIELD
from wherefrom.settings import Settings
from wherefrom.traceparent import TRACEPARENT
from worker.broker.redis_link import flagged_stream, quarantine_stream, redis_errors, rejected_stream
from worker.flagged_stream.entries import trace_of

#: Entries read at once: those of the quarantine are whole.
PAGE = 8


class Kept(StrEnum):
    """Where an entry is kept."""

    QUARANTINE = "quarantine"
    REJECTED = "rejected"


@dataclass(frozen=True)
class KeptEntry:
    """One entry, without what it holds."""

    id: str
    kept: Kept
    at: datetime
    code: str
    reason: str
    first_id: str
    record_bytes: int
    #: False where the record was cut when it was kept; there is no whole one to take back.
    whole: bool


@dataclass(frozen=True)
class Outcome:
    """What became of entries."""

    replayed: int = 0
    dropped: int = 0
    #: Left where they are, because their record was cut.
    cut: int = 0


class KeptEntries:
    """The entries that wait for an operator. Every method raises `QueueUnavailable` where Redis does not answer."""

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self._redis = client
        self._flagged = flagged_stream(settings)
        self._keys = {Kept.QUARANTINE: quarantine_stream(settings), Kept.REJECTED: rejected_stream(settings)}

    def counts(self) -> dict[Kept, int]:
        """How many entries each of the two holds."""
        with redis_errors():
            return {kept: int(self._redis.xlen(key)) for kept, key in self._keys.items()}

    def listed(self, kept: Sequence[Kept], *, limit: int) -> list[KeptEntry]:
        """The oldest entries, at most `limit` of each kind."""
        found: list[KeptEntry] = []
        for kind in kept:
            for number, (entry_id, fields) in enumerate(self._all(kind)):
                if number == limit:
                    break
                found.append(_described(kind, entry_id, fields))
        return found

    def take_back(self, kept: Sequence[Kept], ids: Sequence[str] | None) -> Outcome:
        """Put entries back into the flagged stream.

        Args:
            kept: Where to look.
            ids: Their ids as listed; None for all that are there now.

        Raises:
            NotFound: one of the ids is in none of the streams; nothing was moved.
        """
        replayed = cut = 0
        for kind, entry_id, fields in self._chosen(kept, ids):
            if CUT_FIELD.encode() in fields:
                cut += 1
            else:
                replayed += self._replay(kind, entry_id, fields)
        return Outcome(replayed=replayed, cut=cut)

    def drop(self, kept: Sequence[Kept], ids: Sequence[str] | None) -> Outcome:
        """Delete entries for good; arguments and errors as for `take_back`."""
        dropped = 0
        for kind, entry_id, _ in self._chosen(kept, ids):
            with redis_errors():
                dropped += int(self._redis.xdel(self._keys[kind], entry_id))
        return Outcome(dropped=dropped)

    def _replay(self, kind: Kept, entry_id: bytes, fields: dict[bytes, bytes]) -> int:
        again: dict[Any, Any] = {
            RECORD_FIELD: fields.get(RECORD_FIELD.encode(), b""),
            REPLAYED_FIELD: fields.get(b"rejected_entry", entry_id),
        }
        if (trace := trace_of(fields)) is not None:
            again[TRACEPARENT] = trace
        with redis_errors():
            pipeline = self._redis.pipeline(transaction=True)
            pipeline.xadd(self._flagged, again)
            pipeline.xdel(self._keys[kind], entry_id)
            return int(pipeline.execute()[1])

    def _chosen(
        self, kept: Sequence[Kept], ids: Sequence[str] | None
    ) -> Iterator[tuple[Kept, bytes, dict[bytes, bytes]]]:
        if ids is None:
            for kind in kept:
                for entry_id, fields in self._all(kind):
                    yield kind, entry_id, fields
            return
        places = {asked: self._place(kept, asked) for asked in dict.fromkeys(ids)}
        for asked, kind in places.items():
            for entry_id, fields in self._range(kind, asked, asked):
                yield kind, entry_id, fields

    def _place(self, kept: Sequence[Kept], asked: str) -> Kept:
        number, _, sequence = asked.partition("-")
        if not (_is_count(number) and _is_count(sequence)):
            raise ConfigurationError(f"{asked!r} is not the id of an entry; ids look like 1718000000000-0")
        for kind in kept:
            if self._range(kind, asked, asked):
                return kind
        raise NotFound(f"no stored entry has the id {asked!r}; list them with python -m worker replay --list")

    def _all(self, kind: Kept) -> Iterator[tuple[bytes, dict[bytes, bytes]]]:
        """All entries that are there now; what comes back meanwhile is left for the next time."""
        with redis_errors():
            newest: Any = self._redis.xrevrange(self._keys[kind], count=1)
        start = "-"
        while newest:
            page = self._range(kind, start, newest[0][0].decode(), count=PAGE)
            yield from page
            if len(page) < PAGE:
                return
            start = f"({page[-1][0].decode()}"

    def _range(
        self, kind: Kept, start: str, end: str, count: int | None = None
    ) -> list[tuple[bytes, dict[bytes, bytes]]]:
        with redis_errors():
            found: Any = self._redis.xrange(self._keys[kind], start, end, count=count)
        return list(found)


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 20


def _described(kind: Kept, entry_id: bytes, fields: dict[bytes, bytes]) -> KeptEntry:
    def text(name: bytes) -> str:
        return fields.get(name, b"").decode("utf-8", "replace")

    record = fields.get(RECORD_FIELD.encode(), b"")
    cut = text(CUT_FIELD.encode())
    return KeptEntry(
        id=entry_id.decode(),
        kept=kind,
        at=datetime.fromtimestamp(int(entry_id.partition(b"-")[0]) / 1000, UTC),
        code=text(b"rejected_code"),
        reason=text(b"rejected_reason"),
        first_id=text(b"rejected_entry"),
        record_bytes=int(cut) if _is_count(cut) else len(record),
        whole=not cut,
    )
