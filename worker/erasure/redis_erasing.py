"""Looks through the streams of Redis for copies of erased outputs: entries that wait, that were rejected, that are in quarantine.

An entry is a copy where it has the key under which the output came from the stream; one that waits for an operator also where it says the same. Redis only marks an entry of a
stream as deleted, and its bytes stay beside those of its neighbours. So a stream that lost one is written anew, and then the files on Redis' disk are. The flagged stream is not: it has a consumer group,
and its neighbours leave within seconds, when intake has stored them.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import redis

from db.access.producers import STREAM
from db.erasure.erasing import ErasedOutput
from wherefrom.errors import QueueUnavailable
from wherefrom.json_text import read_json
from wherefrom.logs import get_logger
from wherefrom.messages import INTAKE_GROUP, RECORD_FIELD
from wherefrom.settings import Settings
from worker.broker.redis_link import flagged_stream, quarantine_stream, redis_errors, rejected_stream

log = get_logger(__name__)

#: How long a file that Redis is writing already is waited for, and between two looks, seconds.
WAIT_S, _PAUSE_S = 10.0, 0.1
#: Entries read in one answer.
PAGE = 32
#: A shorter answer is said by many; only its key tells a copy.
_TELLING_CHARS = 16
#: Of a longer answer so much is looked for: records are cut where they are kept.
_LOOKED_FOR_CHARS = 200

#: Writes a stream anew under another key, with the ids that it has, and puts it in its place; in one step, because others add to it.
_REWRITE = """
redis.call('DEL', KEYS[2])
local start = '-'
while true do
  local page = redis.call('XRANGE', KEYS[1], start, '+', 'COUNT', 100)
  for _, entry in ipairs(page) do redis.call('XADD', KEYS[2], entry[1], unpack(entry[2])) end
  if #page < 100 then break end
  start = '(' .. page[#page][1]
end
redis.call('DEL', KEYS[1])
if redis.call('EXISTS', KEYS[2]) == 1 then redis.call('RENAME', KEYS[2], KEYS[1]) end
return 1
"""


class CopiesInRedis:
    """The streams of one Redis. Every method raises `QueueUnavailable` where Redis does not answer."""

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self._redis = client
        self._flagged = flagged_stream(settings)
        self._kept = (rejected_stream(settings), quarantine_stream(settings))

    def erase(self, erased: Sequence[ErasedOutput]) -> int:
        """Delete entries that are copies of erased outputs, and have Redis write its files anew; how many there were."""
        marks = _Marks(erased)
        gone = {key: self._erase_in(key, marks) for key in (self._flagged, *self._kept)}
        for key in self._kept:
            if gone[key]:
                self._rewrite(key)
        if any(gone.values()):
            self.rewrite_files()
        return sum(gone.values())

    def _erase_in(self, key: str, marks: "_Marks") -> int:
        return sum(
            self._delete(key, entry_id)
            for entry_id, fields in self._entries(key)
            if marks.have_key(fields) or (key in self._kept and marks.are_said(fields))
        )

    def _rewrite(self, key: str) -> None:
        try:
            with redis_errors():
                self._redis.eval(_REWRITE, 2, key, f"{key}:rewritten")
        except QueueUnavailable as error:
            self._say_left(error, f"delete the stream {key}, or its entries all together")

    def _entries(self, key: str) -> Iterator[tuple[bytes, dict[bytes, bytes]]]:
        start: Any = "-"
        while True:
            with redis_errors():
                page: Any = self._redis.xrange(key, start, "+", count=PAGE)
            yield from page
            if len(page) < PAGE:
                return
            start = b"(" + page[-1][0]

    def _delete(self, key: str, entry_id: bytes) -> int:
        with redis_errors():
            if key == self._flagged:
                self._redis.xack(key, INTAKE_GROUP, entry_id)
            return int(self._redis.xdel(key, entry_id))

    def rewrite_files(self) -> None:
        """Have Redis write its append-only file and its snapshot anew, where it keeps them; a refusal is logged."""
        try:
            with redis_errors():
                facts: Any = self._redis.info("persistence")
                if facts.get("aof_enabled"):
                    _when_free(self._redis.bgrewriteaof)
                kept: Any = self._redis.config_get("save")
                if kept.get("save"):
                    _when_free(partial(self._redis.bgsave, schedule=True))
        except QueueUnavailable as error:
            self._say_left(error, "run BGREWRITEAOF and BGSAVE on Redis")

    @staticmethod
    def _say_left(error: QueueUnavailable, advice: str) -> None:
        """What Redis refused to do, as it may to a user with few rights; what is erased cannot be read any more."""
        log.warning("bytes_left_in_redis", reason=str(error), advice=advice)


def _when_free(command: Callable[[], object]) -> None:
    """Run a command that Redis refuses while it does the same in the background: what began before the deletion has the bytes."""
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            command()
        except redis.ResponseError as error:
            if "in progress" not in str(error) or time.monotonic() >= deadline:
                raise
            time.sleep(_PAUSE_S)
        else:
            return


class _Marks:
    """What tells a copy."""

    def __init__(self, erased: Sequence[ErasedOutput]) -> None:
        self._keys = {one.key for one in erased if one.producer == STREAM}
        said = (one.completion.strip()[:_LOOKED_FOR_CHARS] for one in erased)
        self._said = [one for one in said if len(one) >= _TELLING_CHARS]

    def have_key(self, fields: dict[bytes, bytes]) -> bool:
        """Whether an entry has the key of an erased output that came from the stream."""
        try:
            record = read_json(fields.get(RECORD_FIELD.encode(), b""))
        except ValueError:
            return False
        key = record.get("idempotency_key") if isinstance(record, dict) else None
        return isinstance(key, str) and key in self._keys

    def are_said(self, fields: dict[bytes, bytes]) -> bool:
        """Whether an entry, which may be cut or no JSON at all, says what an erased output said."""
        text = b"\x00".join(fields.values()).decode("utf-8", "replace")
        return any(
            form in text
            for one in self._said
            for form in (one, json.dumps(one)[1:-1], json.dumps(one, ensure_ascii=False)[1:-1])
        )
