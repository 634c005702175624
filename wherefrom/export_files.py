"""Rows as the bytes of a file, a piece at a time: JSON lines, CSV, Parquet, and a ZIP of a file with its manifest.

No piece holds more than `GROUP_ROWS` rows or about `GROUP_CHARS` characters, however long the export is. Which rows there are is left to others.
"""

import hashlib
import importlib
import io
import json
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from types import ModuleType

from wherefrom.csv_text import csv_line
from wherefrom.errors import FormatUnavailable
from wherefrom.export_rows import COLUMNS, FLOATS, INTEGERS, TRUTHS, Row
from wherefrom.records import BundleInfo, ExportedBundle, ExportFormat, ExportManifest, ExportRows

#: Rows, and characters of text, of one piece of a file; a row group of Parquet.
GROUP_ROWS, GROUP_CHARS = 5000, 8_000_000
#: Bytes after which a piece of a ZIP is handed on.
_PIECE_BYTES = 256 * 1024
#: Name of the manifest in a ZIP.
MANIFEST = "manifest.json"
#: Times of the files in a ZIP; the manifest has the real ones. ZIP knows none before.
_NO_TIME = (1980, 1, 1, 0, 0, 0)


@dataclass
class Tally:
    """What went through an export: counted and hashed on its way."""

    num_rows: int = 0
    size_bytes: int = 0
    digest: "hashlib._Hash" = field(default_factory=hashlib.sha256)

    def counted(self, rows: Iterable[Row]) -> Iterator[Row]:
        """The rows, counted."""
        for row in rows:
            self.num_rows += 1
            yield row

    def hashed(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """The pieces, hashed."""
        for piece in pieces:
            self.size_bytes += len(piece)
            self.digest.update(piece)
            yield piece


@dataclass
class Origins:
    """Where the rows of an export come from, noted on their way."""

    bundles: set[str] = field(default_factory=set)
    corpora: set[str] = field(default_factory=set)

    def among(self, known: Iterable[BundleInfo]) -> tuple[ExportedBundle, ...]:
        """Those bundles that answered the audits, or explain the corpora of the training examples."""
        return tuple(
            ExportedBundle(name=one.name, model=one.model, corpus_sha256=one.corpus_sha256)
            for one in known
            if one.name in self.bundles or one.corpus_sha256 in self.corpora
        )


def check_format(form: ExportFormat) -> None:
    """Nothing where a file of the format can be written.

    Raises:
        FormatUnavailable: pyarrow is not installed.
    """
    if form is ExportFormat.PARQUET:
        _arrow()


def pieces_of(
    rows: Iterable[Row], kind: ExportRows, form: ExportFormat, columns: tuple[str, ...] | None = None
) -> Iterator[bytes]:
    """The bytes of a file with these rows.

    Args:
        rows: The rows; JSON lines hold them as they are, tables their columns.
        kind: What they are, which decides on the columns.
        form: The format.
        columns: Other columns of a table.

    Raises:
        FormatUnavailable: pyarrow is not installed.
    """
    wanted = columns or COLUMNS[kind]
    if form is ExportFormat.PARQUET:
        return _parquet(rows, wanted)
    return _csv(rows, wanted) if form is ExportFormat.CSV else _json_lines(rows)


def zipped(name: str, pieces: Iterable[bytes], manifest: Callable[[], ExportManifest]) -> Iterator[bytes]:
    """The bytes of a ZIP with one file and its manifest, which is asked for when the file is whole."""
    drain = _Drain()
    with zipfile.ZipFile(drain, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open(_entry(name), "w", force_zip64=True) as file:
            for piece in pieces:
                file.write(piece)
                if drain.held > _PIECE_BYTES:
                    yield drain.take()
        text = manifest().model_dump_json(indent=2) + "\n"
        archive.writestr(_entry(MANIFEST), text)
    yield drain.take()


def file_name(kind: ExportRows, form: ExportFormat, at: datetime) -> str:
    """The name of a file: what it holds, and when it was begun."""
    return f"wherefrom-{kind.value}-{at:%Y%m%dT%H%M%SZ}.{form.value}"


class _Drain(io.RawIOBase):
    """A file that is written once and never held: what was written is taken away as it comes."""

    def __init__(self) -> None:
        super().__init__()
        self._pieces: list[bytes] = []
        self.held = 0

    def writable(self) -> bool:
        return True

    def write(self, data: "bytes | bytearray | memoryview") -> int:  # type: ignore[override]  # as every writer calls it
        piece = bytes(data)
        self._pieces.append(piece)
        self.held += len(piece)
        return len(piece)

    def take(self) -> bytes:
        """All that was written since the last time."""
        whole = b"".join(self._pieces)
        self._pieces.clear()
        self.held = 0
        return whole


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, date_time=_NO_TIME)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o600 << 16
    return entry


def _json_lines(rows: Iterable[Row]) -> Iterator[bytes]:
    for row in rows:
        yield (json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n").encode("utf-8", "replace")


def _csv(rows: Iterable[Row], columns: tuple[str, ...]) -> Iterator[bytes]:
    yield csv_line(columns).encode()
    for row in rows:
        yield csv_line(row[name] for name in columns).encode("utf-8", "replace")


def _parquet(rows: Iterable[Row], columns: tuple[str, ...]) -> Iterator[bytes]:
    arrow, parquet = _arrow()
    kinds = dict.fromkeys(INTEGERS, arrow.int64()) | dict.fromkeys(FLOATS, arrow.float64())
    kinds |= dict.fromkeys(TRUTHS, arrow.bool_())
    schema = arrow.schema([(name, kinds.get(name, arrow.string())) for name in columns])
    drain = _Drain()

    def written() -> Iterator[bytes]:
        with parquet.ParquetWriter(drain, schema) as file:
            for group in _groups(rows):
                file.write_table(arrow.Table.from_pylist(group, schema=schema))
                group.clear()  # or it would be held beside the next one
                yield drain.take()
        yield drain.take()

    return written()


def _groups(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """The rows in groups that fit the memory."""
    group: list[Row] = []
    characters = 0
    for row in rows:
        group.append(row)
        characters += sum(len(value) for value in row.values() if isinstance(value, str))
        if len(group) >= GROUP_ROWS or characters >= GROUP_CHARS:
            yield group
            group, characters = [], 0
    if group:
        yield group


def _arrow() -> tuple[ModuleType, ModuleType]:
    """Pyarrow and its Parquet; imported when it is needed, because it is large and an extra.

    Raises:
        FormatUnavailable: it is not installed.
    """
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ModuleNotFoundError as error:
        raise FormatUnavailable(
            'Parquet needs pyarrow: pip install "wherefrom[parquet]", or ask for jsonl or csv'
        ) from error
