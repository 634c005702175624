"""The flagged stream as one consumer of its group sees it: reading within a budget of bytes, and letting go.

An entry leaves in the same step that acknowledges it: deleted, or moved to the rejected stream or to the quarantine. Where Redis
is full it refuses everything that adds, also in a MULTI; a script that deletes first is let through, so a full Redis is emptied.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import redis

from wherefrom.errors import QuarantineFull, QueueFull
from wherefrom.logs import get_logger
from wherefrom.messages import CUT_FIELD, INTAKE_GROUP, RECORD_FIELD, REPLAYED_FIELD
from wherefrom.settings import Settings
from worker.broker.redis_link import flagged_stream, quarantine_stream, redis_errors, rejected_stream

log = get_logger(__name__)

#: Entries read in one answer at most: nobody knows how large they are before they are here.
ENTRIES_AT_ONCE = 16
#: Pending entries looked at in one answer when the dead are taken over; only their ids.
PENDING_AT_ONCE = 500
#: Newest entries that the rejected stream keeps; older ones make room, so that a broken producer cannot fill Redis.
REJECTED_KEPT = 10_000
#: Most bytes of a record that are copied to the rejected stream, and where Redis is full.
REJECTED_RECORD_BYTES = 65_536
REJECTED_RECORD_BYTES_WHEN_FULL = 1024
#: Of the other fields of an entry: how many are copied, and most bytes of each and of its name.
OTHER_FIELDS = 16
OTHER_FIELD_BYTES = 1024

#: Moves one entry. XACK and XDEL come first: after a script has written, Redis lets it go on however full it is.
_MOVE = """
redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
if redis.call('XDEL', KEYS[1], ARGV[2]) == 0 then return 0 end
redis.call('XADD', KEYS[2], '*', unpack(ARGV, 3))
return 1
"""
#: Makes the group where a full Redis refuses XGROUP CREATE alone; deletes nothing.
_MAKE_GROUP = """
redis.call('XDEL', KEYS[1], '0-1')
redis.call('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM')
return 1
"""
#: Removes consumers that hold nothing and were not seen for long. In one step: one that reads meanwhile would lose its entries.
_REMOVE_DEAD = """
local gone = 0
for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local one = {}
  for i = 1, #consumer, 2 do one[consumer[i]] = consumer[i + 1] end
  if one['name'] ~= ARGV[2] and one['pending'] == 0 and one['idle'] >= tonumber(ARGV[3]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], one['name'])
    gone = gone + 1
  end
end
return gone
"""


@dataclass(frozen=True)
class Entry:
    """One entry of the stream; `fields` is empty where the entry was deleted under our hands."""

    entry_id: bytes
    fields: dict[bytes, bytes]

    def size(self) -> int:
        """Bytes of its fields."""
        return sum(len(name) + len(value) for name, value in self.fields.items())


@dataclass(frozen=True)
class Verdict:
    """Why an entry leaves without having been stored."""

    entry: Entry
    code: str
    reason: str


class FlaggedStream:
    """The stream for one consumer. Every method raises `QueueUnavailable` where Redis does not answer or refuses."""

    def __init__(self, client: redis.Redis, settings: Settings, consumer: str) -> None:
        self._redis = client
        self._settings = settings
        self._consumer = consumer
        self._key = flagged_stream(settings)
        self._rejected = rejected_stream(settings)
        self._quarantine = quarantine_stream(settings)
        self._has_group = False
        #: Largest entry seen lately, bytes: how many more are asked for depends on it.
        self._largest = 0

    def ensure_group(self) -> None:
        """Make the stream's consumer group, from its first entry on."""
        if self._has_group:
            return
        try:
            self._make_group(
                lambda: self._redis.xgroup_create(self._key, INTAKE_GROUP, id="0", mkstream=True)
            )
        except QueueFull:
            self._make_group(lambda: self._redis.eval(_MAKE_GROUP, 1, self._key, INTAKE_GROUP))
        self._has_group = True

    def _make_group(self, make: Callable[[], object]) -> None:
        with redis_errors():
            try:
                make()
            except redis.ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise

    def forget_group(self) -> None:
        """Look again whether there is a group: a Redis that came back empty has none."""
        self._has_group = False

    def read_new(self, *, block_ms: int) -> list[Entry]:
        """Entries that nobody has read, waiting for the first one; fewer than a batch where they are large."""
        return self._read_within_budget(b">", block_ms=block_ms)

    def read_mine(self, *, after: bytes) -> list[Entry]:
        """Entries that are assigned to us, behind an id, also those that we do not know of."""
        return self._read_within_budget(after, block_ms=None)

    def read_one(self, entry_id: bytes) -> Entry:
        """One entry by its id."""
        with redis_errors():
            found: Any = self._redis.xrange(self._key, entry_id, entry_id)
        return Entry(entry_id, found[0][1] if found else {})

    def _read_within_budget(self, start: bytes, *, block_ms: int | None) -> list[Entry]:
        """Read in growing steps until the batch is full, the budget is used up, or nothing is left."""
        entries: list[Entry] = []
        most, left = 1, self._settings.intake_batch_bytes
        self._largest //= 2
        while left > 0 and len(entries) < self._settings.intake_batch:
            room = self._settings.intake_batch - len(entries)
            asked = max(1, min(most, room, left // max(1, self._largest)))
            got = self._read(start, count=asked, block_ms=None if entries else block_ms)
            entries += got
            if len(got) < asked:
                break
            start = start if start == b">" else got[-1].entry_id
            left -= sum(one.size() for one in got)
            self._largest = max(self._largest, *(one.size() for one in got))
            most = min(2 * most, ENTRIES_AT_ONCE)
        return entries

    def _read(self, start: bytes, *, count: int, block_ms: int | None) -> list[Entry]:
        with redis_errors():
            # One stream was asked for; with nothing to read the answer is empty.
            answer: Any = self._redis.xreadgroup(
                INTAKE_GROUP, self._consumer, {self._key: start}, count=count, block=block_ms
            )
        return [Entry(entry_id, fields or {}) for _, entries in answer or [] for entry_id, fields in entries]

    def take_over(self, *, idle_ms: int) -> list[bytes]:
        """Assign to us what any consumer has held for too long; ids only, they are read like our own."""
        taken: list[bytes] = []
        start = "-"
        with redis_errors():
            while True:
                page: Any = self._redis.xpending_range(
                    self._key, INTAKE_GROUP, min=start, max="+", count=PENDING_AT_ONCE, idle=idle_ms
                )
                ids = [one["message_id"] for one in page]
                if ids:
                    claimed: Any = self._redis.xclaim(
                        self._key, INTAKE_GROUP, self._consumer, idle_ms, ids, justid=True
                    )
                    taken += claimed
                if len(ids) < PENDING_AT_ONCE:
                    break
                start = f"({ids[-1].decode()}"
        return taken

    def remove_dead(self, *, idle_ms: int) -> None:
        """Remove consumers from the group that hold nothing and have not been seen for that long."""
        with redis_errors():
            try:
                removed = self._redis.eval(_REMOVE_DEAD, 1, self._key, INTAKE_GROUP, self._consumer, idle_ms)
            except redis.ResponseError as error:  # scripts may be forbidden; a dead consumer is only untidy
                log.info("consumers_not_removed", reason=str(error))
                return
        if removed:
            log.info("consumers_removed", consumers=removed)

    def let_go(self, entry_ids: Sequence[bytes]) -> None:
        """Acknowledge and delete what is stored."""
        if not entry_ids:
            return
        try:
            with redis_errors():
                pipeline = self._redis.pipeline(transaction=True)
                pipeline.xack(self._key, INTAKE_GROUP, *entry_ids)
                pipeline.xdel(self._key, *entry_ids)
                pipeline.execute()
        except QueueFull:
            with (
                redis_errors()
            ):  # a full Redis opens no MULTI; an entry that is only deleted is acknowledged later
                self._redis.xdel(self._key, *entry_ids)
                self._redis.xack(self._key, INTAKE_GROUP, *entry_ids)

    def reject(self, verdicts: Sequence[Verdict]) -> None:
        """Move entries to the rejected stream; a full Redis gets the shortest copies, and loses the oldest ones."""
        for one in verdicts:
            log.warning(
                "entry_rejected", entry_id=one.entry.entry_id.decode(), code=one.code, reason=one.reason
            )
            try:
                self._move(one, self._rejected, rejected_fields(one), maxlen=REJECTED_KEPT)
            except QueueFull:
                short = rejected_fields(one, record_bytes=REJECTED_RECORD_BYTES_WHEN_FULL)
                self._make_room()
                self._move_when_full(one, self._rejected, short)

    def quarantine(self, verdict: Verdict) -> None:
        """Move an entry to the quarantine, whole; nothing is ever trimmed there.

        Raises:
            QuarantineFull: the quarantine holds as many as it may.
        """
        self.check_quarantine()
        fields = rejected_fields(verdict, record_bytes=None)
        try:
            self._move(verdict, self._quarantine, fields, maxlen=None)
        except QueueFull:
            self._move_when_full(verdict, self._quarantine, fields)

    def check_quarantine(self) -> None:
        """Let pass where the quarantine has room.

        Raises:
            QuarantineFull: see above.
        """
        with redis_errors():
            held = int(self._redis.xlen(self._quarantine))
        if held >= self._settings.quarantine_limit:
            raise QuarantineFull(
                f"{held} entries are in the quarantine ({self._quarantine}), and the limit is {self._settings.quarantine_limit}: "
                "intake pauses. List them with `python -m worker replay --list`, then replay or drop them"
            )

    def leave(self) -> None:
        """Remove this consumer from the group, unless entries are still assigned to it."""
        with redis_errors():
            consumers = self._redis.xinfo_consumers(self._key, INTAKE_GROUP)
            mine = [one for one in consumers if one["name"] == self._consumer.encode()]
            if mine and mine[0]["pending"] == 0:
                self._redis.xgroup_delconsumer(self._key, INTAKE_GROUP, self._consumer)

    def _move(self, verdict: Verdict, target: str, fields: dict[Any, Any], *, maxlen: int | None) -> None:
        """Copy to another stream and let go, in one MULTI.

        Raises:
            QueueFull: nothing was moved.
        """
        entry_id = verdict.entry.entry_id
        with redis_errors():
            pipeline = self._redis.pipeline(transaction=True)
            pipeline.xadd(target, fields, maxlen=maxlen, approximate=True)
            pipeline.xack(self._key, INTAKE_GROUP, entry_id)
            pipeline.xdel(self._key, entry_id)
            pipeline.execute()

    def _move_when_full(self, verdict: Verdict, target: str, fields: dict[Any, Any]) -> None:
        pairs = [part for pair in fields.items() for part in pair]
        with redis_errors():
            self._redis.eval(_MOVE, 2, self._key, target, INTAKE_GROUP, verdict.entry.entry_id, *pairs)

    def _make_room(self) -> None:
        """Drop the older half of the rejected stream: Redis is full, and producers of good entries wait."""
        with redis_errors():
            kept = int(self._redis.xlen(self._rejected)) // 2
            dropped = self._redis.xtrim(self._rejected, maxlen=kept, approximate=False)
        if dropped:
            log.warning("rejected_entries_dropped", entries=dropped, reason="Redis is full")


def rejected_fields(verdict: Verdict, *, record_bytes: int | None = REJECTED_RECORD_BYTES) -> dict[Any, Any]:
    """Fields (bytes) of the entry in another stream: what came (cut where it is huge), the code, the reason, the old id."""
    came = verdict.entry.fields
    record = came.get(RECORD_FIELD.encode(), b"")
    others = [name for name in came if name != RECORD_FIELD.encode()][:OTHER_FIELDS]
    fields: dict[Any, Any] = {name[:OTHER_FIELD_BYTES]: came[name][:OTHER_FIELD_BYTES] for name in others}
    if record_bytes is not None and len(record) > record_bytes:
        fields[CUT_FIELD.encode()] = b"%d" % len(record)
    return {
        **fields,
        RECORD_FIELD.encode(): record[:record_bytes],
        b"rejected_code": verdict.code.encode(),
        b"rejected_reason": verdict.reason.encode("utf-8", "replace"),
        b"rejected_entry": came.get(REPLAYED_FIELD.encode(), verdict.entry.entry_id),
    }
