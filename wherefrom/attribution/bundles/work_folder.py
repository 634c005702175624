"""The folder in which a bundle is made: what it holds stays for the next try, and a try that came to nothing leaves nothing."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
