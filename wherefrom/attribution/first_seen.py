"""Remembers where each key was first met, on disk: a dictionary of a corpus' ids would take some hundred bytes of memory a row."""

import errno
import os
import sqlite3
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

Value = TypeVar("Value", str, int)

#: Nothing is kept beyond the run, so nothing is to be saved from a crash.
_SETTINGS = ("journal_mode = OFF", "synchronous = OFF", "locking_mode = EXCLUSIVE")
#: Also text that is no Unicode: SQLite takes none with half a surrogate pair, and names of files whose bytes are not UTF-8 have such.
_ANY = "surrogatepass"


class FirstSeen(Generic[Value]):
    """The first value of each key, in a file that SQLite keeps; whoever opens it removes the file."""

    def __init__(self, file: Path | None = None) -> None:
        """`file`: a new one; None keeps the keys in memory."""
        self._database = sqlite3.connect(file or ":memory:", isolation_level=None)
        for setting in _SETTINGS:
            self._database.execute(f"PRAGMA {setting}")
        self._database.execute("CREATE TABLE seen (key BLOB PRIMARY KEY, value NOT NULL) WITHOUT ROWID")
        self._database.execute("BEGIN")  # never ended: pages are written when the cache is full

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()

    def first(self, key: str, value: Value) -> Value | None:
        """The value that a key was met with before; None where this is the first time, and `value` is kept.

        Raises:
            OSError: the disk is full.
        """
        name, kept = _stored(key), _stored(value)
        try:
            added = self._database.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", (name, kept))
            if added.rowcount == 1:
                return None
            row = self._database.execute("SELECT value FROM seen WHERE key = ?", (name,)).fetchone()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
            raise
        found: Value = _given(row[0])
        return found


def _given(stored: Any) -> Any:
    return stored.decode("utf-8", _ANY) if isinstance(stored, bytes) else stored


def _stored(value: str | int) -> bytes | int:
    return value.encode("utf-8", _ANY) if isinstance(value, str) else value
