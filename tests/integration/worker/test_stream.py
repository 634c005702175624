"""The stream itself: a full Redis is emptied, dead consumers go, and no read brings more than its budget."""

import json
from pathlib import Path

import pytest
from redis.exceptions import OutOfMemoryError

from tests.waiting import wait_until
from wherefrom.messages import INTAKE_GROUP
from wherefrom.records import AuditState
from worker.flagged_stream.stream import ENTRIES_AT_ONCE, FlaggedStream, Verdict

pytestmark = [pytest.mark.redis, pytest.mark.usefixtures("bundle_id")]

STREAM, REJECTED, QUARANTINE = "t:wherefrom:flagged", "t:wherefrom:rejected", "t:wherefrom:quarantine"


@pytest.fixture
def database_url(sqlite_url):
    """What happens in Redis does not depend on the database."""
    return sqlite_url


@pytest.fixture(autouse=True)
def _short_reads(monkeypatch):
    """A read of an empty stream does not keep the test waiting."""
    monkeypatch.setattr("worker.flagged_stream.intake.BLOCK_MS", 5)


@pytest.fixture
def full(client):
    """Makes Redis full from now on, whatever it holds; the limit is taken back at the end."""

    def fill(room_bytes=0):
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", int(client.info("memory")["used_memory"]) + room_bytes)

    yield fill
    client.config_set("maxmemory", 0)


def good(number, size=20, **fields):
    """A record as JSON."""
    return json.dumps({"prompt": "p", "completion": f"{number} {'x' * size}", "model": "tiny@1", **fields})


@pytest.mark.parametrize("size", [300, 5000, 100_000])
def test_a_full_redis_with_only_bad_entries_is_emptied(parts, client, full, size):
    """Every bad entry leaves, the rejected stream does not take the room, and producers of good entries get in again."""
    for number in range(max(20, 400_000 // size)):
        client.xadd(STREAM, {"record": good(number, size, no_such_field=1)})
    full()
    with pytest.raises(OutOfMemoryError):
        client.xadd(STREAM, {"record": good(0)})
    intake = parts.intake()
    wait_until(lambda: intake.step() or client.xlen(STREAM) == 0, 20)
    assert client.xlen(REJECTED) >= 1
    assert b"no_such_field" in client.xrevrange(REJECTED, count=1)[0][1][b"rejected_reason"]
    client.xadd(STREAM, {"record": good(1)})
    wait_until(lambda: intake.step() or client.xlen(STREAM) == 0)
    assert parts.count(AuditState.PENDING) == 1


def test_a_redis_that_was_full_before_the_first_intake(parts, client, full):
    """The group can be made all the same, and good and bad entries leave."""
    for number in range(30):
        client.xadd(STREAM, {"record": good(number, 5000, **({} if number % 2 else {"bad": 1}))})
    full()
    intake = parts.intake()
    wait_until(lambda: intake.step() or client.xlen(STREAM) == 0, 20)
    assert parts.count(AuditState.PENDING) == 15


def test_a_full_redis_does_not_keep_an_entry_from_the_quarantine(parts, client, full):
    """It moves whole, for what it needs is what it frees."""
    stream = FlaggedStream(client, parts.settings, "one")
    stream.ensure_group()
    client.xadd(STREAM, {"record": good(1, 200_000)})
    [entry] = stream.read_new(block_ms=1)
    full()
    stream.quarantine(Verdict(entry, "database_unavailable", "not this row"))
    assert (client.xlen(STREAM), client.xlen(QUARANTINE)) == (0, 1)
    assert len(client.xrange(QUARANTINE)[0][1][b"record"]) > 200_000
    assert client.xpending(STREAM, INTAKE_GROUP)["pending"] == 0


def test_dead_consumers_are_removed_when_they_hold_nothing(parts, client):
    """First their entries are taken over, then they go; a living one stays, and so does one that holds entries."""
    parts.intake("living").step()
    for number in range(3):
        client.xadd(STREAM, {"record": good(number)})
    client.xreadgroup(INTAKE_GROUP, "dead-1", {STREAM: ">"}, count=2)
    client.xreadgroup(INTAKE_GROUP, "dead-2", {STREAM: ">"}, count=1)
    client.xreadgroup(INTAKE_GROUP, "dead-3", {STREAM: ">"}, count=1)
    living = parts.intake("living")

    def names():
        living.step()
        return {one["name"] for one in client.xinfo_consumers(STREAM, INTAKE_GROUP)}

    wait_until(lambda: names() == {b"living"})
    assert parts.count(AuditState.PENDING) == 3


def test_a_consumer_with_entries_is_not_removed(parts, client):
    """Its entries would be hidden from everybody."""
    stream = FlaggedStream(client, parts.settings, "one")
    stream.ensure_group()
    client.xadd(STREAM, {"record": good(1)})
    client.xreadgroup(INTAKE_GROUP, "slow", {STREAM: ">"}, count=1)
    stream.remove_dead(idle_ms=0)
    assert [one["name"] for one in client.xinfo_consumers(STREAM, INTAKE_GROUP)] == [b"slow"]


@pytest.mark.parametrize("order", ["large", "small first", "large first"])
def test_no_read_brings_more_than_its_budget(parts, client, order):
    """Large entries come one by one; after small ones the budget is passed by one short answer at most."""
    large, budget = 400_000, 1_000_000
    small = [good(number, 10) for number in range(40)]
    huge = [good(number, large) for number in range(20)]
    for record in {"large": huge, "small first": small + huge, "large first": huge + small}[order]:
        client.xadd(STREAM, {"record": record})
    settings = parts.settings.model_copy(update={"intake_batch_bytes": budget, "intake_batch": 100})
    stream = FlaggedStream(client, settings, "one")
    stream.ensure_group()
    sizes = []
    while entries := stream.read_new(block_ms=1):
        sizes.append(sum(one.size() for one in entries))
        stream.let_go([one.entry_id for one in entries])
    assert client.xlen(STREAM) == 0
    over = ENTRIES_AT_ONCE * large if order == "small first" else large
    assert max(sizes) <= budget + over + 1000
    assert len(sizes) >= 20 * large / (budget + over)


def test_many_large_entries_need_little_memory(parts, client):
    """Entries of 4 MiB, a hundred of which took 906 MiB when they were read at once; measured: 55 MiB."""
    entries, size = 25, 4 * 2**20  # a quarter of them: what is read at once does not grow with them
    for number in range(entries):
        client.xadd(STREAM, {"record": good(number, size)})
    before = _peak_mib(reset=True)
    intake = parts.intake()
    intake._stream._settings = intake._settings = parts.settings.model_copy(update={"intake_batch": 100})
    wait_until(lambda: intake.step() or client.xlen(STREAM) == 0, 60)
    assert parts.count(AuditState.PENDING) == entries
    assert _peak_mib() - before < 200


def _peak_mib(*, reset=False):
    """Largest resident size of this process since the last reset, MiB."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    line = next(one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmHWM"))
    return int(line.split()[1]) / 1024
