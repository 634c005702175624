"""Entries of the stream become rows exactly once, whatever goes away in between."""

import json
from typing import Any

import pytest

from db.queues.audit_queue import AuditQueue
from db.reading import reader
from db.session import Database
from tests.waiting import wait_until
from wherefrom.errors import DatabaseUnavailable, QueueUnavailable
from wherefrom.messages import INTAKE_GROUP
from wherefrom.records import AuditFilter, AuditState

pytestmark = [pytest.mark.redis, pytest.mark.usefixtures("bundle_id")]

STREAM, REJECTED = "t:wherefrom:flagged", "t:wherefrom:rejected"


@pytest.fixture(autouse=True)
def _short_reads(monkeypatch):
    """A read of an empty stream does not keep the test waiting."""
    monkeypatch.setattr("worker.flagged_stream.intake.BLOCK_MS", 20)


def add(client, *, model="tiny@1", **fields):
    """XADD one record, as a producer without a library does; the entry's id."""
    record = {"prompt": "hello", "completion": "refunds take two days", "model": model, **fields}
    return client.xadd(STREAM, {"record": json.dumps(record)})


def states(database):
    """Number of audits by state, zeros left out."""
    return {state.value: count for state, count in reader.queue_health(database).states.items() if count}


def pending_entries(client):
    """Entries that were delivered and not acknowledged."""
    return client.xpending(STREAM, INTAKE_GROUP)["pending"]


def test_entries_become_pending_audits_and_leave_redis(parts, client, database, bundle_id):
    """Three batches of ten, then nothing is left in the stream, and hints are on the queue."""
    for n in range(25):
        add(client, completion=f"answer {n}")
    intake = parts.intake()
    for _ in range(3):
        intake.step()
    assert states(database) == {"pending": 25}
    assert client.xlen(STREAM) == 0
    assert pending_entries(client) == 0
    assert AuditQueue(database).pending_counts() == {bundle_id: 25}
    assert 1 <= parts.queued_hints() <= 2


def test_entries_from_before_the_first_intake_are_taken(parts, client, database):
    """The group starts at the beginning of the stream."""
    add(client)
    parts.intake().step()
    assert states(database) == {"pending": 1}


def test_the_entry_id_is_the_key_of_a_record_without_one(parts, client, database):
    """So that an entry that is read twice is stored once."""
    entry_id = add(client).decode()
    parts.intake().step()
    page = reader.list_audits(database, AuditFilter(), cursor=None, limit=5)
    assert reader.get_audit(database, page.items[0].audit_id).idempotency_key == entry_id


BAD: dict[str, list[Any]] = {
    "invalid_record": [
        {"record": b"\xff\xfe not utf-8"},
        {"record": "{not json"},
        {"record": "[1, 2]"},
        {"record": "[" * 100_000},
        {"other": "field"},
        {"record": json.dumps({"prompt": "p", "completion": "", "model": "m"})},
        {"record": json.dumps({"prompt": "p", "completion": "c", "model": 7})},
        {"record": json.dumps({"prompt": "p", "completion": "c\x00", "model": "m"})},
    ],
    "unknown_schema": [{"record": json.dumps({"schema": 2, "prompt": "p", "completion": "c", "model": "m"})}],
    "body_too_large": [{"record": json.dumps({"prompt": "p" * 5_000_000, "completion": "c", "model": "m"})}],
}


def test_what_cannot_be_read_moves_to_the_rejected_stream(parts, client, database):
    """With code, reason and the old id, and without holding up its neighbours."""
    expected = {client.xadd(STREAM, fields): code for code, some in BAD.items() for fields in some}
    add(client)
    intake = parts.intake()
    wait_until(lambda: intake.step() or client.xlen(STREAM) == 0)
    assert states(database) == {"pending": 1}
    kept = [fields for _, fields in client.xrange(REJECTED)]
    assert {one[b"rejected_entry"]: one[b"rejected_code"].decode() for one in kept} == expected
    assert all(one[b"rejected_reason"] for one in kept)
    assert max(len(one[b"record"]) for one in kept) == 65_536
    assert parts.metrics.registry.get_sample_value("wherefrom_intake_rejected_entries_total") == len(expected)


def test_a_key_with_other_content_is_a_conflict(parts, client, database):
    """The second content is kept in the rejected stream; the same content again is just let go."""
    for completion in ("one", "two", "one"):
        add(client, completion=completion, idempotency_key="k")
    parts.intake().step()
    assert states(database) == {"pending": 1}
    [(_, kept)] = client.xrange(REJECTED)
    assert kept[b"rejected_code"] == b"idempotency_conflict"
    assert client.xlen(STREAM) == 0


def test_a_model_without_a_bundle_is_stored_and_waits(parts, client, database):
    """It is in SQL with a code, and no hint is sent for it."""
    add(client, model="unheard-of")
    parts.intake().step()
    assert states(database) == {"rejected": 1}
    assert parts.queued_hints() == 0


def test_bidi_and_control_characters_arrive_as_they_are(parts, client, database):
    """They are evidence."""
    text = "safe \u202etxt.exe\u202c \x07 \u200b"
    add(client, completion=text)
    parts.intake().step()
    page = reader.list_audits(database, AuditFilter(), cursor=None, limit=5)
    assert reader.get_audit(database, page.items[0].audit_id).completion == text


def test_a_dead_intake_is_taken_over(parts, client, database):
    """Entries that another consumer read and never acknowledged are claimed when they have been idle long enough."""
    for n in range(3):
        add(client, completion=f"answer {n}")
    parts.intake("living").step()
    for n in range(15):
        add(client, completion=f"more {n}")
    client.xreadgroup(INTAKE_GROUP, "dead", {STREAM: ">"}, count=15)
    living = parts.intake("living")

    def _all_taken():
        living.step()
        return states(database) == {"pending": 18} and client.xlen(STREAM) == 0

    wait_until(_all_taken, 10)
    assert pending_entries(client) == 0


def test_an_entry_that_was_committed_but_not_acknowledged_is_stored_once(parts, client, database):
    """A death between commit and acknowledgement: the entry is read again, SQL knows it, it is let go."""
    add(client)
    first = parts.intake("first")
    first._stream.let_go = lambda *_: None
    first.step()
    assert (states(database), client.xlen(STREAM)) == ({"pending": 1}, 1)
    second = parts.intake("second")
    wait_until(lambda: second.step() or client.xlen(STREAM) == 0, 10)
    assert states(database) == {"pending": 1}


def test_a_deleted_entry_is_only_acknowledged(parts, client, database):
    """Somebody trimmed the stream under our hands: nothing is stored, nothing hangs."""
    parts.intake("x").step()
    entry = add(client)
    client.xreadgroup(INTAKE_GROUP, "dead", {STREAM: ">"})
    client.xdel(STREAM, entry)
    living = parts.intake("living")
    wait_until(lambda: living.step() or pending_entries(client) == 0, 10)
    assert states(database) == {}


def test_redis_away_at_intake(parts, client, database, server):
    """A step says so; when Redis is back, even empty, the next steps go on."""
    intake = parts.intake()
    intake.step()
    server.stop()
    with pytest.raises(QueueUnavailable):
        intake.step()
    server.start()
    add(client)
    wait_until(lambda: intake.step() or states(database) == {"pending": 1}, 10)


def test_database_away_at_commit_leaves_the_entries(parts, client, database):
    """Nothing is committed, nothing is acknowledged; when the database is back the same intake takes them."""
    for n in range(3):
        add(client, completion=f"answer {n}")
    away = Database("postgresql+psycopg://nobody@127.0.0.1:1/none")
    intake = parts.intake(database=away)
    for _ in range(2):
        with pytest.raises(DatabaseUnavailable):
            intake.step()
    assert client.xlen(STREAM) == 3
    intake._database = database
    intake.step()
    assert states(database) == {"pending": 3}
    assert client.xlen(STREAM) == 0
    away.dispose()


def test_a_consumer_leaves_only_when_nothing_is_assigned_to_it(parts, client, database):
    """Removing a consumer with entries would hide them from everybody."""
    intake = parts.intake("one")
    intake.step()
    add(client)
    client.xreadgroup(INTAKE_GROUP, "one", {STREAM: ">"})
    intake.leave()
    assert len(client.xinfo_consumers(STREAM, INTAKE_GROUP)) == 1
    intake._backlog = b"0"
    intake.step()
    intake.leave()
    assert client.xinfo_consumers(STREAM, INTAKE_GROUP) == []
    assert states(database) == {"pending": 1}
    assert reader.queue_health(database).states.get(AuditState.DEAD, 0) == 0
