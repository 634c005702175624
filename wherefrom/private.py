"""Files that only their owner reads, whatever the umask: all that hold flagged texts, addresses with passwords, or point to them.

Files get mode 0600 and the folders that are made for them 0700. SQLite gives its `-wal` and `-shm` the mode of the database. A
folder that is there already belongs to the operator and stays as it is, unless it is ours alone (`own_folder`). Files that are
written whole get their mode from `wherefrom.atomic`.
"""

import errno
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Literal

from wherefrom.atomic import PRIVATE

FOLDER_MODE = 0o700


def private_folder(folder: Path) -> None:
    """Make a folder and what is missing above it, each for the owner alone.

    Raises:
        OSError: it cannot be made, or there is a file of that name.
    """
    missing = []
    for one in (folder, *folder.parents):
        if one.is_dir():
            break
        missing.append(one)
    for one in reversed(missing):
        try:
            one.mkdir(FOLDER_MODE)
        except FileExistsError:
            if not one.is_dir():  # somebody else was faster, or it is a file
                raise
        else:
            one.chmod(FOLDER_MODE)  # a umask may have taken too much
    if not folder.is_dir():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(folder))


def own_folder(folder: Path) -> None:
    """Make a folder that nothing but the service uses, and close it to others where it was open before.

    Raises:
        OSError: it cannot be made.
    """
    private_folder(folder)
    with suppress(PermissionError):  # another user's: it is theirs to close
        folder.chmod(FOLDER_MODE)


def private_file(file: Path) -> None:
    """Make an empty file for the owner alone where there is none; a file that is there stays as it is.

    Raises:
        OSError: it cannot be made.
    """
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL, PRIVATE)
    except FileExistsError:
        return
    try:
        _close_to_others(descriptor)
    finally:
        os.close(descriptor)


def open_private(file: Path, mode: Literal["w", "wb", "a", "ab"]) -> IO[Any]:
    """Open a file for writing that only its owner reads; text is UTF-8 with line breaks as they are given.

    Raises:
        OSError: it cannot be opened.
    """
    binary = "b" in mode
    opened: IO[Any] = open(  # noqa: SIM115 - the caller closes it; Path.open takes no opener
        file,
        mode,
        encoding=None if binary else "utf-8",
        newline=None if binary else "",
        opener=_opener,
    )
    return opened


def _opener(path: str, flags: int) -> int:
    descriptor = os.open(path, flags, PRIVATE)
    _close_to_others(descriptor)
    return descriptor


def _close_to_others(descriptor: int) -> None:
    if sys.platform == "win32":  # there the folder's list of rights decides
        return
    with suppress(PermissionError):  # another user's file, which we may write to
        os.fchmod(descriptor, PRIVATE)
