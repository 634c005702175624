"""Files that commands write: whole or not at all, and readable by their owner alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wherefrom.atomic import PRIVATE, atomic_file
from wherefrom.errors import ConfigurationError


@contextmanager
def output_file(path: Path) -> Iterator[Path]:
    """What is written into; it takes the place of `path` at the end. It holds flagged texts, so its owner alone may read it.

    Raises:
        ConfigurationError: the folder is missing, or may not be written to.
        DiskFull: the disk is full.
    """
    try:
        with atomic_file(path, mode=PRIVATE) as unfinished:
            yield unfinished
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror or error}") from error
