"""Reads a JSONL file of flagged outputs and checks every line of it before anything is sent.

Good lines go, as record v1 with their idempotency keys, into a temporary file that only this process can open: the
second pass then sends what the first one checked, from a pipe as well, and a large file needs no memory.
"""

import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import BinaryIO, NoReturn, Self

from wherefrom.client.records_in import read_record
from wherefrom.client.service import keyed_json
from wherefrom.errors import InvalidRecord
from wherefrom.records import FlaggedRecord

#: A longer line is no record; the service's own limit is lower.
MAX_LINE_BYTES = 32_000_000
#: More bad lines than this are only counted.
BAD_LINES_KEPT = 1000
#: Checked lines are kept in memory up to this size, and in a temporary file beyond.
MEMORY_BYTES = 16_000_000

_UTF8_MARK = b"\xef\xbb\xbf"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True)
class BadLine:
    """A line that is no flagged output."""

    line: int
    problem: str


@dataclass(frozen=True)
class GoodLine:
    """A checked record as JSON, key included."""

    line: int
    record: str


@dataclass
class CheckedFile:
    """All good lines of a file, to be read once or more, and what is wrong with the others."""

    num_good: int = 0
    num_bad: int = 0
    #: The first `BAD_LINES_KEPT` of them.
    bad: list[BadLine] = field(default_factory=list)
    _kept: "tempfile.SpooledTemporaryFile[bytes]" = field(
        default_factory=lambda: tempfile.SpooledTemporaryFile(max_size=MEMORY_BYTES)  # noqa: SIM115 - closed by `__exit__`
    )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kept.close()

    def refuse(self, line: int, problem: str) -> None:
        """Add a bad line."""
        self.num_bad += 1
        if len(self.bad) < BAD_LINES_KEPT:
            self.bad.append(BadLine(line, problem))

    def keep(self, line: int, record: str) -> None:
        """Add a good line."""
        self._kept.write(f"{line} {record}\n".encode())
        self.num_good += 1

    def batches(self, *, max_records: int, max_bytes: int) -> Iterator[list[GoodLine]]:
        """The good lines in order, in batches of at most `max_records` and about `max_bytes`."""
        self._kept.seek(0)
        batch: list[GoodLine] = []
        size_bytes = 0
        for kept in self._kept:
            if batch and (len(batch) == max_records or size_bytes + len(kept) > max_bytes):
                yield batch
                batch, size_bytes = [], 0
            line, record = kept.decode().split(" ", 1)
            batch.append(GoodLine(int(line), record.rstrip("\n")))
            size_bytes += len(kept)
        if batch:
            yield batch


def check_file(stream: BinaryIO, advance: Callable[[int], None]) -> CheckedFile:
    """Check every line; blank ones are passed over. The caller closes the result.

    Args:
        stream: The file, read to its end.
        advance: Told the bytes of each line, for a progress bar.
    """
    checked = CheckedFile()
    for number, offset, raw in _numbered(stream):
        advance(len(raw))
        try:
            record = parse_line(raw, offset=offset)
        except InvalidRecord as error:
            checked.refuse(number, str(error))
            continue
        if record is not None:
            checked.keep(number, keyed_json(record))
    return checked


def parse_line(raw: bytes, *, offset: int) -> FlaggedRecord | None:
    """The flagged output in one line; None for a blank line.

    Args:
        raw: The line.
        offset: Where it starts in the file, bytes.

    Raises:
        InvalidRecord: not UTF-8 (with the byte), not JSON (with the column), or not a record (with the field).
    """
    if len(raw) > MAX_LINE_BYTES:
        raise InvalidRecord(f"longer than {MAX_LINE_BYTES} bytes")
    if offset == 0 and raw.startswith(_UTF8_MARK):
        raw, offset = raw[len(_UTF8_MARK) :], len(_UTF8_MARK)
    text = _decode(raw, offset=offset)
    if not text.strip():
        return None
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise InvalidRecord(f"not JSON: {error.msg} at column {error.colno}") from error
    except RecursionError as error:
        raise InvalidRecord("nested too deeply") from error
    except ValueError as error:  # an integer of thousands of digits
        raise InvalidRecord("holds a number that is too long") from error
    if not isinstance(value, dict):
        raise InvalidRecord("not a record: each line must be one JSON object")
    return read_record(value)


def _numbered(stream: BinaryIO) -> Iterator[tuple[int, int, bytes]]:
    """Line number from 1, byte offset and content of each line; of an over-long one only a part."""
    number = offset = 0
    while raw := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        size_bytes = len(raw)
        while not raw.endswith(b"\n") and (rest := stream.readline(MAX_LINE_BYTES)):
            size_bytes += len(rest)
            if rest.endswith(b"\n"):
                break
        yield number, offset, raw
        offset += size_bytes


def _decode(raw: bytes, *, offset: int) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        hint = "; the file looks like UTF-16" if offset == 0 and raw.startswith(_UTF16_MARKS) else ""
        raise InvalidRecord(
            f"not UTF-8: byte 0x{raw[error.start]:02x} at offset {offset + error.start} of the file "
            f"(byte {error.start + 1} of the line){hint}"
        ) from error


def _refuse_constant(name: str) -> NoReturn:
    raise InvalidRecord(f"not JSON: {name}")
