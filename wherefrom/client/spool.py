"""The client's file of records that are not sent yet: one SQLite file in WAL mode, bounded by bytes.

Shared by any number of threads and processes of one machine. A record that `add` took survives a killed process
(`synchronous=NORMAL`: a power cut may take the last moments). What the service refused stays in the file, with the
reason, until it is forgotten. When and where to send is left to `wherefrom.client.sender`.
"""

import math
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from wherefrom.backoff import backoff_seconds
from wherefrom.errors import DiskFull, IdempotencyConflict, SpoolFull, SpoolUnavailable
from wherefrom.private import private_file, private_folder
from wherefrom.records import FlaggedRecord

SPOOL_FORMAT = 1
#: Longest wait for another process that is writing to the spool.
BUSY_TIMEOUT_S = 10.0
_BUSY_PAUSE_S = 0.01
#: Longest wait of a postponed record, where the caller says nothing else.
LONGEST_WAIT_S = 60.0
#: Bytes that one row costs beside its record: indexes, numbers, page slack.
ROW_OVERHEAD_BYTES = 200

_SCHEMA = """
CREATE TABLE waiting (
    id INTEGER PRIMARY KEY AUTOINCREMENT, idempotency_key TEXT NOT NULL UNIQUE, record TEXT NOT NULL,
    size_bytes INTEGER NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, not_before REAL NOT NULL DEFAULT 0,
    traceparent TEXT);
CREATE INDEX waiting_order ON waiting (attempts, id);
CREATE TABLE refused (
    id INTEGER PRIMARY KEY AUTOINCREMENT, idempotency_key TEXT NOT NULL, record TEXT NOT NULL,
    size_bytes INTEGER NOT NULL, code TEXT NOT NULL, reason TEXT NOT NULL, refused_at REAL NOT NULL);
CREATE TABLE total (kind TEXT PRIMARY KEY, records INTEGER NOT NULL, bytes INTEGER NOT NULL);
INSERT INTO total VALUES ('waiting', 0, 0), ('refused', 0, 0);
CREATE TRIGGER waiting_added AFTER INSERT ON waiting BEGIN
    UPDATE total SET records = records + 1, bytes = bytes + new.size_bytes WHERE kind = 'waiting'; END;
CREATE TRIGGER waiting_gone AFTER DELETE ON waiting BEGIN
    UPDATE total SET records = records - 1, bytes = bytes - old.size_bytes WHERE kind = 'waiting'; END;
CREATE TRIGGER refused_added AFTER INSERT ON refused BEGIN
    UPDATE total SET records = records + 1, bytes = bytes + new.size_bytes WHERE kind = 'refused'; END;
CREATE TRIGGER refused_gone AFTER DELETE ON refused BEGIN
    UPDATE total SET records = records - 1, bytes = bytes - old.size_bytes WHERE kind = 'refused'; END;
"""


@dataclass(frozen=True)
class WaitingRecord:
    """A record of the spool that is to be sent."""

    id: int
    idempotency_key: str
    #: Record v1 as JSON, key included.
    record: str
    #: Where its trace goes on; None where it has none.
    traceparent: str | None = None


@dataclass(frozen=True)
class RefusedRecord:
    """A record that the service will never take, and why."""

    id: int
    idempotency_key: str
    #: Record v1 as JSON, key included.
    record: str
    #: The service's code and text.
    code: str
    reason: str
    refused_at: datetime


@dataclass(frozen=True)
class Refusal:
    """The service's verdict on one waiting record."""

    waiting: WaitingRecord
    code: str
    reason: str


@dataclass(frozen=True)
class SpoolStatus:
    """How full a spool is."""

    waiting_records: int
    waiting_bytes: int
    refused_records: int
    refused_bytes: int
    max_bytes: int


class Spool:
    """The file at `path`, made with mode 0600 when it is first needed.

    The connection is closed before a fork and opened again after it, on both sides: SQLite's locks do not survive one.

    Args:
        path: The file; SQLite puts `-wal` and `-shm` beside it. Not on a network file system.
        max_bytes: Largest sum of all records, refused ones included, each with `ROW_OVERHEAD_BYTES`.
    """

    def __init__(self, path: Path, *, max_bytes: int) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        _guard_forks(self)

    def add(self, idempotency_key: str, record: str, *, traceparent: str | None = None) -> None:
        """Put a record (JSON, key included) at the end, with its trace; the same record under the same key is there already.

        Raises:
            SpoolFull: the record does not fit; nothing was written.
            IdempotencyConflict: another record waits under this key.
            SpoolUnavailable: the file cannot be used.
            DiskFull: the disk is full.
        """
        size_bytes = len(record.encode()) + 2 * len(idempotency_key.encode()) + ROW_OVERHEAD_BYTES
        with self._writing() as connection:
            query = "SELECT record FROM waiting WHERE idempotency_key = ?"
            if (found := connection.execute(query, (idempotency_key,)).fetchone()) is not None:
                _check_same(found[0], record, idempotency_key)
                return
            status = self._read_status(connection)
            if status.waiting_bytes + status.refused_bytes + size_bytes > self.max_bytes:
                raise SpoolFull(_why_full(self.path, status, size_bytes))
            connection.execute(
                "INSERT INTO waiting (idempotency_key, record, size_bytes, traceparent) VALUES (?, ?, ?, ?)",
                (idempotency_key, record, size_bytes, traceparent),
            )

    def next_batch(
        self, *, max_records: int, max_bytes: int, longest_wait_s: float = LONGEST_WAIT_S
    ) -> list[WaitingRecord]:
        """The oldest records that may be sent now, postponed ones last: at least one, then `max_bytes` in all at most.

        A record that waits for longer than `longest_wait_s` was postponed by a clock that was wrong, then or now: it may be sent.
        """
        now = time.time()
        batch: list[WaitingRecord] = []
        total_bytes = 0
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT id, idempotency_key, record, traceparent, size_bytes FROM waiting WHERE not_before NOT BETWEEN ? AND ? "
                "ORDER BY attempts, id LIMIT ?",
                (math.nextafter(now, math.inf), now + longest_wait_s, max_records),
            )
            for *fields, size_bytes in rows:
                total_bytes += size_bytes
                if batch and total_bytes > max_bytes:
                    break
                batch.append(WaitingRecord(*fields))
        return batch

    def settle(self, sent: Sequence[WaitingRecord], refusals: Sequence[Refusal]) -> None:
        """Forget what is stored by the service now, and keep what it refused apart; one transaction."""
        gone = [(one.id,) for one in [*sent, *(refusal.waiting for refusal in refusals)]]
        kept = [(one.code, one.reason, time.time(), one.waiting.id) for one in refusals]
        with self._writing() as connection:
            connection.executemany(
                "INSERT INTO refused (idempotency_key, record, size_bytes, code, reason, refused_at) "
                "SELECT idempotency_key, record, size_bytes, ?, ?, ? FROM waiting WHERE id = ?",
                kept,
            )
            connection.executemany("DELETE FROM waiting WHERE id = ?", gone)

    def postpone(self, record: WaitingRecord, *, base_s: float, cap_s: float) -> None:
        """Let the others pass a record that the service cannot handle now; the wait doubles with each attempt."""
        with self._writing() as connection:
            counted = connection.execute(
                "UPDATE waiting SET attempts = attempts + 1 WHERE id = ? RETURNING attempts", (record.id,)
            ).fetchone()
            if counted is not None:
                wait_s = backoff_seconds(counted[0], base_s=base_s, cap_s=cap_s)
                connection.execute(
                    "UPDATE waiting SET not_before = ? WHERE id = ?", (time.time() + wait_s, record.id)
                )

    def status(self) -> SpoolStatus:
        """How full the spool is, all processes together."""
        with self._reading() as connection:
            return self._read_status(connection)

    def refused(self) -> list[RefusedRecord]:
        """What the service refused, oldest first."""
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT id, idempotency_key, record, code, reason, refused_at FROM refused ORDER BY id"
            ).fetchall()
        return [
            RefusedRecord(one, key, record, code, reason, datetime.fromtimestamp(at, UTC))
            for one, key, record, code, reason, at in rows
        ]

    def forget_refused(self, ids: Sequence[int]) -> None:
        """Drop refused records by their ids; this makes room."""
        with self._writing() as connection:
            connection.executemany("DELETE FROM refused WHERE id = ?", [(one,) for one in ids])

    def close(self) -> None:
        """Close the file; any later call opens it again."""
        with self._lock:
            self._disconnect()

    def _read_status(self, connection: sqlite3.Connection) -> SpoolStatus:
        totals = {kind: (records, size) for kind, records, size in connection.execute("SELECT * FROM total")}
        return SpoolStatus(*totals["waiting"], *totals["refused"], max_bytes=self.max_bytes)

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock, _translated(self.path):
            if self._connection is None:
                self._connection = _connect(self.path)
            yield self._connection

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction; takes the write lock first, so that it never has to be upgraded."""
        with self._reading() as connection:
            connection.execute("BEGIN IMMEDIATE")
            with connection:
                yield connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def before_fork(self) -> None:
        """Finish what is being written and let go of the file; the lock stays taken until the fork is done."""
        self._lock.acquire()
        self._disconnect()

    def after_fork_in_parent(self) -> None:
        """Go on; the next call opens the file."""
        self._lock.release()

    def after_fork_in_child(self) -> None:
        """Go on with a lock of this process; the next call opens the file."""
        self._lock = threading.Lock()


def _guard_forks(spool: Spool) -> None:
    """Have the spool let go of its file around every fork of this process, for as long as the spool lives."""
    if not hasattr(os, "register_at_fork"):  # a platform without fork
        return
    alive = weakref.ref(spool)
    held: list[Spool] = []

    def before() -> None:
        if (one := alive()) is not None:
            one.before_fork()
            held.append(one)

    os.register_at_fork(
        before=before,
        after_in_parent=lambda: held.pop().after_fork_in_parent() if held else None,
        after_in_child=lambda: held.pop().after_fork_in_child() if held else None,
    )


def _connect(path: Path) -> sqlite3.Connection:
    """Open the spool, making it where it is missing."""
    private_folder(path.parent)
    private_file(path)  # the texts in it are not for every user of the machine
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    try:
        _prepare(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("PRAGMA synchronous = NORMAL")
    if _format_of(connection) == 0:
        _use_wal(connection)
        connection.execute("BEGIN IMMEDIATE")
        with connection:
            if _format_of(connection) == 0:  # no other process was faster
                for statement in _statements(_SCHEMA):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {SPOOL_FORMAT}")
    if (found := _format_of(connection)) != SPOOL_FORMAT:
        raise SpoolUnavailable(
            f"the spool {path} has format {found}, this release reads {SPOOL_FORMAT}; flush it with the release that wrote it"
        )
    _add_traces(connection)


def _add_traces(connection: sqlite3.Connection) -> None:
    """Add the column that the release before did not have; it goes on using the file, for it names its columns."""
    if _has_traces(connection):
        return
    connection.execute("BEGIN IMMEDIATE")
    with connection:
        if not _has_traces(connection):
            connection.execute("ALTER TABLE waiting ADD COLUMN traceparent TEXT")


def _has_traces(connection: sqlite3.Connection) -> bool:
    return any(name == "traceparent" for _, name, *_ in connection.execute("PRAGMA table_info(waiting)"))


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch to the write-ahead log. SQLite's own timeout does not cover this: two producers that make the spool together would fail at once."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(_BUSY_PAUSE_S)
        else:
            return


def _format_of(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _statements(script: str) -> Iterator[str]:
    """The statements of a script one by one: `executescript` would commit between them."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Errors of SQLite and of the file system as errors of wherefrom."""
    try:
        yield
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            raise DiskFull(f"the spool {path} cannot grow: the disk is full") from error
        raise SpoolUnavailable(f"the spool {path} cannot be used: {error}") from error
    except OSError as error:
        raise SpoolUnavailable(f"the spool {path} cannot be opened: {error.strerror or error}") from error


def _check_same(waiting: str, record: str, idempotency_key: str) -> None:
    """Nothing where both records say the same; their JSON may differ in the order of labels."""
    if waiting == record:
        return
    hashes = {FlaggedRecord.model_validate_json(one).content_sha256() for one in (waiting, record)}
    if len(hashes) > 1:
        raise IdempotencyConflict(
            f"another record waits in the spool under the idempotency key {idempotency_key!r}"
        )


def _why_full(path: Path, status: SpoolStatus, size_bytes: int) -> str:
    if size_bytes > status.max_bytes:
        return f"the record needs {size_bytes} bytes, but the spool {path} holds at most {status.max_bytes} (`spool_max_bytes`)"
    advice = "the service is unavailable or too slow"
    if status.refused_bytes > status.max_bytes // 2:
        advice = "read `Client.refused()` and make room with `Client.forget_refused()`"
    return (
        f"the spool {path} is full: {status.waiting_records} records wait ({status.waiting_bytes} bytes), "
        f"{status.refused_records} were refused ({status.refused_bytes} bytes), limit {status.max_bytes}; {advice}"
    )
