"""The folders in which a bundle is made: what they hold stays for the next try, and a try that came to nothing leaves nothing."""

import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from wherefrom.errors import ConfigurationError


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
