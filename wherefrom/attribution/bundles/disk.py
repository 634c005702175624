"""Tells a full disk from other failures while a bundle is written, whichever library met it."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from wherefrom.errors import DiskFull


@contextmanager
def disk_errors(out: Path) -> Iterator[None]:
    """Turn the errors of a full disk into one.

    Raises:
        DiskFull: there was no space left while `out` was written.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        if not _tells_full_disk(error):
            raise
        raise DiskFull(
            f"the disk is full while building {out}; free some space and run the same command again"
        ) from error


def _tells_full_disk(error: Exception) -> bool:
    """Safetensors hands the number of the system's error over as text only, numpy not at all when a part was written."""
    numbers = {errno.ENOSPC, errno.EDQUOT}
    if isinstance(error, OSError):
        return error.errno in numbers or (error.errno is None and "requested and" in str(error))
    return any(f"os error {number})" in str(error) for number in numbers)
