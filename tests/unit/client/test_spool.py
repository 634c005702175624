"""The spool file: bounded, shared, never half-written."""

import sqlite3
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from wherefrom.client.spool import SPOOL_FORMAT, Refusal, Spool
from wherefrom.errors import IdempotencyConflict, SpoolFull, SpoolUnavailable


def record(key: str, completion: str = "text") -> str:
    """A record as the client writes it."""
    return f'{{"schema":1,"idempotency_key":"{key}","prompt":"p","completion":"{completion}","model":"m"}}'


def fill(spool: Spool, *, refuse: bool = False) -> None:
    """Add more than the spool holds; with `refuse`, each record is refused at once."""
    for number in range(1000):
        spool.add(f"k{number}", record(f"k{number}"))
        if refuse:
            batch = spool.next_batch(max_records=1, max_bytes=1)
            spool.settle([], [Refusal(one, "invalid_record", "why") for one in batch])


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    """A spool of 100,000 bytes in a folder that does not exist yet."""
    one = Spool(tmp_path / "deep" / "spool.db", max_bytes=100_000)
    yield one
    one.close()


def test_order_and_batches(spool: Spool) -> None:
    """Batches are the oldest records in order, bounded by count and by bytes, never empty."""
    for number in range(5):
        spool.add(f"k{number}", record(f"k{number}"))
    assert [one.idempotency_key for one in spool.next_batch(max_records=3, max_bytes=10**6)] == [
        "k0",
        "k1",
        "k2",
    ]
    assert len(spool.next_batch(max_records=3, max_bytes=1)) == 1


def test_full(spool: Spool) -> None:
    """A full spool refuses the record with a text that says how full it is, and takes one again when there is room."""
    with pytest.raises(
        SpoolFull, match=r"is full: \d+ records wait .* limit 100000; the service is unavailable"
    ):
        fill(spool)
    assert spool.status().waiting_bytes <= 100_000
    assert spool.path.stat().st_size <= 2 * 100_000
    spool.settle(spool.next_batch(max_records=10, max_bytes=10**6), [])
    spool.add("again", record("again"))


def test_record_larger_than_spool(spool: Spool) -> None:
    """A record that can never fit is refused with its own size."""
    with pytest.raises(SpoolFull, match=r"needs \d+ bytes"):
        spool.add("k", record("k", "x" * 200_000))


def test_refused_fill_and_are_forgotten(spool: Spool) -> None:
    """Refused records stay, count for the limit, and make room when forgotten."""
    with pytest.raises(SpoolFull, match=r"Client.refused\(\)"):
        fill(spool, refuse=True)
    refused = spool.refused()
    assert refused[0].code == "invalid_record"
    assert refused[0].record == record("k0")
    spool.forget_refused([one.id for one in refused])
    status = spool.status()
    assert (status.refused_records, status.refused_bytes) == (0, 0)


def test_same_key(spool: Spool) -> None:
    """The same record under its key is there already, whatever the order of its fields; another one is a conflict."""
    spool.add("k", record("k"))
    spool.add("k", '{"model":"m","completion":"text","prompt":"p","idempotency_key":"k","schema":1}')
    assert spool.status().waiting_records == 1
    with pytest.raises(IdempotencyConflict):
        spool.add("k", record("k", "other"))


def test_postponed_records_are_passed(spool: Spool) -> None:
    """A postponed record lets the others pass and stays in the spool."""
    spool.add("a", record("a"))
    spool.add("b", record("b"))
    spool.postpone(spool.next_batch(max_records=1, max_bytes=1)[0], base_s=60, cap_s=600)
    assert [one.idempotency_key for one in spool.next_batch(max_records=9, max_bytes=10**6)] == ["b"]
    assert spool.status().waiting_records == 2


def test_threads_and_connections(tmp_path: Path) -> None:
    """Several spools on one file, from several threads, lose nothing and agree on the total."""
    spools = [Spool(tmp_path / "spool.db", max_bytes=10**7) for _ in range(4)]

    def fill(number: int) -> None:
        for count in range(50):
            spools[number].add(f"{number}-{count}", record(f"{number}-{count}"))

    threads = [threading.Thread(target=fill, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {one.status().waiting_records for one in spools} == {200}
    for one in spools:
        one.close()


def test_spool_that_another_process_is_making(tmp_path: Path) -> None:
    """While another one holds the new file, the switch to the write-ahead log waits instead of failing."""
    path = tmp_path / "spool.db"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    threading.Timer(0.2, other.rollback).start()
    spool = Spool(path, max_bytes=10**6)
    spool.add("k", record("k"))
    assert spool.status().waiting_records == 1
    spool.close()
    other.close()


def test_private_file(spool: Spool) -> None:
    """Only the owner may read the texts in the spool."""
    spool.add("k", record("k"))
    assert stat.S_IMODE(spool.path.stat().st_mode) == 0o600


def test_not_a_spool(tmp_path: Path) -> None:
    """A file that is something else is an error of the spool, not of SQLite, and is left as it was."""
    path = tmp_path / "spool.db"
    path.write_bytes(b"this is no database, and it is long enough to be looked at " * 20)
    with pytest.raises(SpoolUnavailable, match=r"spool\.db cannot be used"):
        Spool(path, max_bytes=10**6).add("k", record("k"))
    assert path.read_bytes().startswith(b"this is no database")


def test_newer_format(tmp_path: Path) -> None:
    """A spool of another release is refused with what to do."""
    path = tmp_path / "spool.db"
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {SPOOL_FORMAT + 1}")
    connection.close()
    with pytest.raises(SpoolUnavailable, match="flush it with the release that wrote it"):
        Spool(path, max_bytes=10**6).status()


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """A path below a file is an error of the spool."""
    (tmp_path / "file").write_text("")
    with pytest.raises(SpoolUnavailable, match="cannot be opened"):
        Spool(tmp_path / "file" / "spool.db", max_bytes=10**6).status()


@pytest.mark.parametrize("ahead_s", [3600.0, 86_400.0 * 30, 86_400.0 * 36_500])
def test_a_wrong_clock_postpones_nothing_for_long(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, ahead_s: float
) -> None:
    """A record that was postponed while the clock was ahead may be sent when it is set right; one that waits its time may not."""
    right = time.time
    spool.add("k1", record("k1"))
    spool.add("k2", record("k2"))
    one, two = spool.next_batch(max_records=9, max_bytes=9999)
    spool.postpone(two, base_s=30.0, cap_s=60.0)
    monkeypatch.setattr("wherefrom.client.spool.time.time", lambda: right() + ahead_s)
    spool.postpone(one, base_s=0.5, cap_s=60.0)
    monkeypatch.setattr("wherefrom.client.spool.time.time", right)
    assert [each.idempotency_key for each in spool.next_batch(max_records=9, max_bytes=9999)] == ["k1"]
    assert [
        each.idempotency_key for each in spool.next_batch(max_records=9, max_bytes=9999, longest_wait_s=1.0)
    ] == ["k1", "k2"]


def test_a_spool_of_the_release_before_gets_traces(tmp_path: Path) -> None:
    """Its records are sent without traces, new ones with theirs; the release before can go on using the file."""
    path = tmp_path / "spool.db"
    old = Spool(path, max_bytes=100_000)
    old.add("old", record("old"))
    old.close()
    with sqlite3.connect(path) as connection:
        connection.execute("ALTER TABLE waiting DROP COLUMN traceparent")
    connection.close()
    spool = Spool(path, max_bytes=100_000)
    spool.add("new", record("new"), traceparent="a trace")
    batch = spool.next_batch(max_records=5, max_bytes=10**6)
    spool.close()
    assert [(one.idempotency_key, one.traceparent) for one in batch] == [("old", None), ("new", "a trace")]
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (SPOOL_FORMAT,)
        connection.execute(
            "INSERT INTO waiting (idempotency_key, record, size_bytes) VALUES ('k', 'r', 1)"
        )  # as the release before writes
    connection.close()
