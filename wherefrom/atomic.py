"""Writes files and folders whole or not at all: whoever reads the path finds the old content or the new one, never a part.

What is written stands beside the path under a hidden name of its own, is handed to the disk (`fsync`), gets its mode and then takes the path's place in one step; where
the work fails, it vanishes. This is the only place of the project that does so. Errors other than a full disk pass through as they are.
"""

import errno
import glob
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from wherefrom.errors import DiskFull

#: Mode of a file that everybody on the machine may read, whatever the umask.
PUBLIC = 0o644
#: Mode of a file that its owner alone may read: flagged texts, keys.
PRIVATE = 0o600
#: An unfinished file or folder that nobody wrote to for this long was left by a killed process.
LEFT_OVER_S = 86400.0

_FULL = (errno.ENOSPC, errno.EDQUOT)


class disk_errors:  # noqa: N801 - used as a context manager, like contextlib's
    """Turn the errors of a full disk into one, whichever library met them; others pass.

    Raises:
        DiskFull: there was no space left; the text names the path and says what to do.
    """

    def __init__(self, path: Path, *, doing: str = "writing") -> None:
        self._path = path
        self._doing = doing

    def __enter__(self) -> None:
        """Nothing is done before an error."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and tells_full_disk(error):
            raise DiskFull(
                f"the disk is full while {self._doing} {self._path}; free some space and rerun the command"
            ) from error


def tells_full_disk(error: BaseException) -> bool:
    """Whether an error means that the disk, or the user's share of it, is full.

    Libraries written in Rust hand the number of the system's error over as text only, numpy none at all when a part was written.
    """
    if isinstance(error, DiskFull):
        return True
    if isinstance(error, OSError):
        return error.errno in _FULL or (error.errno is None and "requested and" in str(error))
    return any(f"os error {number})" in str(error) for number in _FULL)


@contextmanager
def atomic_file(path: Path, *, mode: int = PUBLIC, durable: bool = True) -> Iterator[Path]:
    """A file beside `path`, there and empty, that takes its place at the end.

    Args:
        path: the file to write or replace; its folder exists.
        mode: the permission bits of the new file, whatever the umask. Nobody gets more while it is written.
        durable: whether it is handed to the disk before it takes the place. Without, a power cut may bring back the old content.

    Raises:
        DiskFull: `path` is as it was.
        OSError: the folder is missing or may not be written to.
    """
    _remove_left_over(path)
    with disk_errors(path), _beside(path) as unfinished:
        os.close(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY, PRIVATE))
        yield unfinished
        unfinished.chmod(mode)
        if durable:
            _sync(unfinished)
        unfinished.replace(path)
        if durable:
            _sync(path.parent)


def write_bytes(path: Path, content: bytes, *, mode: int = PUBLIC) -> None:
    """Write a file whole or not at all; see `atomic_file`."""
    with atomic_file(path, mode=mode) as unfinished:
        unfinished.write_bytes(content)


def write_text(path: Path, text: str, *, mode: int = PUBLIC) -> None:
    """Write a UTF-8 file whole or not at all; see `atomic_file`."""
    write_bytes(path, text.encode("utf-8"), mode=mode)


def write_json(path: Path, content: object, *, mode: int = PUBLIC) -> None:
    """Write an indented JSON file whole or not at all; see `atomic_file`."""
    write_text(path, json.dumps(content, indent=2) + "\n", mode=mode)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A new folder beside `path` that takes its place at the end.

    Raises:
        DiskFull: there is nothing at `path`.
        OSError: a folder that holds something is there already, or its parent may not be written to.
    """
    _remove_left_over(path)
    with disk_errors(path), _beside(path) as unfinished:
        unfinished.mkdir()
        yield unfinished
        move_folder(unfinished, path)


def move_folder(finished: Path, path: Path) -> None:
    """Hand a finished folder to the disk and give it its name; both lie on one file system.

    Raises:
        OSError: a folder that holds something is there already, or the parent may not be written to.
    """
    for one in [finished, *finished.rglob("*")]:
        if one.is_dir() or one.is_file():
            _sync(one)
    finished.rename(path)
    _sync(path.parent)


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A free hidden name in the same folder; what stands there at the end is removed."""
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        yield unfinished
    finally:
        _remove(unfinished)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _remove_left_over(path: Path) -> None:
    """Remove what killed processes left of earlier attempts at this path: it takes space and nobody reads it."""
    oldest = time.time() - LEFT_OVER_S
    for one in path.parent.glob(f".{glob.escape(path.name)}.????????.part"):
        with suppress(FileNotFoundError):  # another process removes it as well
            if one.stat().st_mtime < oldest:
                _remove(one)


def _sync(path: Path) -> None:
    """Hand a file or a folder to the disk; file systems that know no `fsync` of a folder are left alone."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)
