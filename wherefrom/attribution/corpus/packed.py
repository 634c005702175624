"""Opens text files that may be compressed: .gz, .bz2 and .zst are unpacked while they are read."""

import bz2
import gzip
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from wherefrom.errors import InvalidRecord

#: An open file, packed or not.
Lines = IO[bytes] | gzip.GzipFile | bz2.BZ2File | io.BufferedReader
#: Longest line of a file of rows. A file without line breaks would else be taken into memory whole, to be refused there.
MAX_LINE_BYTES = 2**26
_SKIPPED_BYTES = 2**20
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


@contextmanager
def opened(file: Path) -> Iterator[Lines]:
    """The bytes of a file, unpacked.

    Raises:
        InvalidRecord: it is damaged, not compressed as its name says, or UTF-16.
    """
    try:
        with _open(file) as content:
            yield content
    except (gzip.BadGzipFile, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise InvalidRecord(
            f"{file}: cannot be unpacked: {error}; it may be truncated or have the wrong file name extension"
        ) from error


def lines_of(content: Lines) -> Iterator[bytes]:
    """The lines; of one that is too long (`is_cut`) its beginning, whose rest is skipped and never held."""
    while line := content.readline(MAX_LINE_BYTES + 1):
        yield line
        part = line
        while part and not part.endswith(b"\n"):
            part = content.readline(_SKIPPED_BYTES)


def is_cut(line: bytes) -> bool:
    """Whether this is only the beginning of a line that is too long."""
    return len(line) > MAX_LINE_BYTES and not line.endswith(b"\n")


def check_encoding(start: bytes, file: Path) -> None:
    """Refuse a file that begins as UTF-16 does.

    Raises:
        InvalidRecord: says what to do.
    """
    if start.startswith(_UTF16):
        raise InvalidRecord(f"{file}: not UTF-8 but UTF-16, by its first bytes; save the file as UTF-8")


def _open(file: Path) -> Lines:
    ending = file.suffix.lower()
    if ending == ".gz":
        return gzip.open(file, "rb")
    if ending == ".bz2":
        return bz2.open(file, "rb")
    if ending == ".zst":
        import pyarrow as pa  # noqa: PLC0415 - optional extra

        return io.BufferedReader(pa.input_stream(str(file), compression="zstd"))
    return file.open("rb")
