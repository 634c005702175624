"""The journal of reads: lines in files of this machine that are on the disk before a text is shown, and in the trail a moment later.

A web process appends; many requests share one `fsync`. The file that it appends to is locked while the process lives, so whoever moves
the lines into the trail can tell a file that is finished, or whose writer was killed, and remove it. Each line has an id of its own, and the
trail takes an id once: moving the same lines twice changes nothing.

A line that has no line break at its end was never promised to anybody: its writer was killed, or the disk was full.
"""

import fcntl
import json
import os
import queue
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from wherefrom.errors import ReadNotRecorded
from wherefrom.private import open_private, own_folder
from wherefrom.settings import Settings

#: Size from which a file is finished and a new one begun, bytes.
FILE_BYTES = 4_000_000
#: Lines that may wait for the disk; a disk that hangs must not fill the memory.
MOST_WAITING = 10_000
#: Lines that one `fsync` takes at most.
MOST_AT_ONCE = 1000

_PATTERN = "reads-*.jsonl"


@dataclass(frozen=True)
class Line:
    """One event that is not in the trail yet; ids and keyed digests, no texts."""

    id: str
    at: datetime
    kind: str
    subject: str
    actor: str
    payload: dict[str, Any]

    def to_bytes(self) -> bytes:
        """The line as it is written, with its line break."""
        values = asdict(self) | {"at": self.at.isoformat()}
        return json.dumps(values, separators=(",", ":")).encode() + b"\n"

    @classmethod
    def from_bytes(cls, written: bytes) -> Self:
        """The line as it was written.

        Raises:
            ValueError: it is damaged.
        """
        values = json.loads(written)
        try:
            line = cls(**values | {"at": datetime.fromisoformat(values["at"])})
        except (TypeError, KeyError) as error:
            raise ValueError("no line of a journal") from error
        if line.at.tzinfo is None or not isinstance(line.payload, dict):
            raise ValueError("no line of a journal")
        return line


def journal_folder(settings: Settings) -> Path:
    """Where the web processes of this machine keep their journals."""
    return settings.state_dir / "trail"


def new_id() -> str:
    """An id that no other line has."""
    return secrets.token_hex(16)


class Journal:
    """Appends lines to files of a folder; one thread writes, everybody else waits for it. Opens nothing before the first line.

    Args:
        folder: Made where it is missing, for the owner alone.
        file_bytes: Size from which a file is finished.
        sync: Hands a file to the disk.
    """

    def __init__(
        self, folder: Path, *, file_bytes: int = FILE_BYTES, sync: Callable[[int], None] = os.fsync
    ) -> None:
        self._folder, self._file_bytes, self._sync = folder, file_bytes, sync
        self._asked: queue.Queue[tuple[bytes, Future[None]] | None] = queue.Queue(MOST_WAITING)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._file: int | None = None

    def append(self, line: Line) -> "Future[None]":
        """Ask for a line to be written; the future is done when it is on the disk, and fails with `ReadNotRecorded` where it is not."""
        written: Future[None] = Future()
        self._begin()
        try:
            self._asked.put_nowait((line.to_bytes(), written))
        except queue.Full:
            written.set_exception(ReadNotRecorded("the disk of the journal does not keep up"))
        return written

    def close(self) -> None:
        """Write what waits, and finish the file."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._asked.put(None)
            thread.join()

    def _begin(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            taken = [self._asked.get()]
            with suppress(queue.Empty):
                while len(taken) < MOST_AT_ONCE:
                    taken.append(self._asked.get_nowait())
            some = [one for one in taken if one is not None]
            if some:
                self._write(some)
            if len(some) < len(taken):
                self._finish()
                return

    def _write(self, some: list[tuple[bytes, "Future[None]"]]) -> None:
        try:
            self._put(b"".join(line for line, _ in some))
        except OSError as error:
            self._finish()  # what it holds at its end is not known
            for _, written in some:
                _fail(written, error)
        else:
            for _, written in some:
                if written.set_running_or_notify_cancel():
                    written.set_result(None)

    def _put(self, lines: bytes) -> None:
        if self._file is None:
            self._file = _new_file(self._folder)
        before = os.fstat(self._file).st_size
        try:
            _write_all(self._file, lines)
            self._sync(self._file)
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._file, before)
            raise
        if before + len(lines) >= self._file_bytes:
            self._finish()

    def _finish(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _fail(written: "Future[None]", error: OSError) -> None:
    if written.set_running_or_notify_cancel():
        told = ReadNotRecorded(f"the journal cannot be written: {error.strerror}")
        told.__cause__ = error
        written.set_exception(told)


def _write_all(file: int, lines: bytes) -> None:
    rest = memoryview(lines)
    while rest:
        rest = rest[os.write(file, rest) :]


def _new_file(folder: Path) -> int:
    """A new file that is locked before anybody who moves lines can find it."""
    own_folder(folder)
    name = f"reads-{time.time_ns():020d}-{secrets.token_hex(4)}.jsonl"
    hidden = folder / f".{name}"
    with open_private(hidden, "ab") as made:
        file = os.dup(made.fileno())
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    hidden.rename(folder / name)
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    return file


@dataclass(frozen=True)
class Part:
    """Lines of one file that were not read before."""

    lines: list[Line]
    #: Where in the file they end, bytes.
    end: int
    #: Whole lines that cannot be read.
    damaged: int
    #: No process appends to the file any more.
    finished: bool


def files_of(folder: Path) -> list[Path]:
    """The files of a journal, oldest first."""
    return sorted(folder.glob(_PATTERN))


def size_of(folder: Path) -> int:
    """Bytes that are in files of a journal."""
    total = 0
    for file in files_of(folder):
        with suppress(FileNotFoundError):
            total += file.stat().st_size
    return total


@contextmanager
def reading(file: Path, start: int) -> Iterator[Part | None]:
    """The whole lines of a file from a byte on; while the block runs, no other process finds the file finished. None where it is gone, or being moved.

    Raises:
        OSError: it cannot be read.
    """
    try:
        handle = os.open(file, os.O_RDONLY)
    except FileNotFoundError:
        yield None
        return
    try:
        yield _part(handle, start, finished=_lock(handle))
    finally:
        os.close(handle)


def _lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _part(handle: int, start: int, *, finished: bool) -> Part:
    os.lseek(handle, start, os.SEEK_SET)
    with os.fdopen(os.dup(handle), "rb") as opened:
        content = opened.read()
    whole = content[: content.rfind(b"\n") + 1]
    lines, damaged = [], 0
    for written in whole.splitlines():
        try:
            lines.append(Line.from_bytes(written))
        except ValueError:
            damaged += 1
    return Part(lines, start + len(whole), damaged, finished)
