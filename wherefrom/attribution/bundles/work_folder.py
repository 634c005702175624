"""The folders in which a bundle is made: what they hold stays for the next try, and a try that came to nothing leaves nothing."""

import fcntl
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import IO

from wherefrom.atomic import write_text
from wherefrom.errors import ConfigurationError
from wherefrom.private import private_folder


def check_out(out: Path) -> None:
    """Refuse a place that cannot be written before anything is read.

    Raises:
        ConfigurationError: `out` exists, or cannot be made.
    """
    if out.exists():
        raise ConfigurationError(f"{out} already exists and bundles are never changed; choose another folder")
    home = next(folder for folder in out.absolute().parents if folder.exists())
    if not (home.is_dir() and os.access(home, os.W_OK | os.X_OK)):
        raise ConfigurationError(
            f"{out} cannot be created: {home} is not a folder that you may write to; choose another --out"
        )


def claim_folder(work: Path, identity: str, *, finished: str) -> None:
    """Take a work folder, or go on in it if it belongs to the same inputs.

    Args:
        work: the folder; made where it is missing.
        identity: hash of the inputs.
        finished: pattern of the files that a build goes on from; one that was killed before it had any claims nothing.

    Raises:
        ConfigurationError: it belongs to others.
    """
    work.mkdir(parents=True, exist_ok=True)
    file = work / "inputs.sha256"
    begun = any(work.glob(finished))
    if not (begun and file.exists()):
        write_text(file, identity)  # a full disk must not leave an empty mark behind
    if file.read_text(encoding="utf-8") != identity:
        raise ConfigurationError(
            f"{work} holds an unfinished build with another model, corpus or options; delete it or choose another --out"
        )


def open_to_readers(folder: Path, model: str, *, but: Collection[Path] = ()) -> None:
    """Give every file the mode of the one named: safetensors writes files that their owner alone can read, and services run as somebody else.

    Args:
        folder: a bundle that is being made.
        model: name of the file whose mode the others get.
        but: files that another bundle shares; they have their mode.
    """
    mode = (folder / model).stat().st_mode
    for file in folder.rglob("*"):
        if file.is_file() and file not in but:
            file.chmod(mode)


@contextmanager
def sole_use(work: Path) -> Iterator[None]:
    """Keep a work folder for this process. The lock is a file beside the folder; the system lets go of it when its process dies.

    Args:
        work: may be made in the block; so may the folders above it, and they go again where they stay empty.

    Raises:
        ConfigurationError: another process works in it.
    """
    made = [one for one in work.absolute().parents if not one.exists()]
    work.parent.mkdir(parents=True, exist_ok=True)
    file = work.with_name(f"{work.name}.lock")
    try:
        lock = _locked(file)
    except BlockingIOError as error:
        raise ConfigurationError(
            f"another process works in {work}; wait for it, stop it, or choose another --out"
        ) from error
    try:
        with lock:
            try:
                yield
            finally:
                file.unlink(missing_ok=True)  # while it is held
    finally:
        _remove_empty(made)


def _locked(file: Path) -> IO[bytes]:
    """A lock file, held. Who held it before may have removed it between our opening and our locking it: then it is opened anew.

    Raises:
        BlockingIOError: another process holds it.
    """
    while True:
        opened, is_ours = file.open("ab"), False
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(FileNotFoundError):
                is_ours = os.path.samestat(os.fstat(opened.fileno()), file.stat())
        finally:
            if not is_ours:
                opened.close()
        if is_ours:
            return opened


@contextmanager
def nothing_left_of(folder: Path, *, unless: str) -> Iterator[None]:
    """Remove a folder that this block made, and the empty ones above it, where the block ended before anything was finished.

    Args:
        folder: may be made in the block; one that was there before is left alone.
        unless: pattern of the files in it that are worth keeping.
    """
    made = [one for one in (folder, *folder.absolute().parents) if not one.exists()]
    try:
        yield
    finally:
        if made and folder.is_dir() and not any(folder.glob(unless)):
            shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            _remove_empty(made[1:])


@contextmanager
def passing_folder(folder: Path) -> Iterator[Path]:
    """A new folder that is there within the block alone; what a killed process left in its place is removed."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


@contextmanager
def slot_folder(base: Path) -> Iterator[Path]:
    """An empty folder that is there within the block alone: the first of `base/1`, `base/2`, ... that no other process holds.

    What a killed process left goes when its number is taken again, so at most as many folders are left behind as processes work at once.

    Args:
        base: a folder for this use alone; made where it is missing.

    Raises:
        ConfigurationError: `base` belongs to another user, who may change what is in it.
    """
    private_folder(base)
    if base.lstat().st_uid != os.getuid():
        raise ConfigurationError(f"{base} belongs to another user; remove it, or set TMPDIR")
    for number in count(1):
        with ExitStack() as held:
            try:
                held.enter_context(sole_use(base / str(number)))
            except ConfigurationError:
                continue
            yield held.enter_context(passing_folder(base / str(number)))
            return
