"""Rows of one file by its kind, each with its place; here tables of text (CSV, TSV), elsewhere JSON and Arrow."""

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wherefrom.attribution.corpus.arrow_files import read_arrow
from wherefrom.attribution.corpus.files import kind_of
from wherefrom.attribution.corpus.json_files import read_jsonl
from wherefrom.attribution.corpus.packed import check_encoding, opened
from wherefrom.errors import InvalidRecord
from wherefrom.records.bounds import MAX_TEXT_CHARS

_DELIMITERS = {".csv": ",", ".tsv": "\t"}


def raw_rows(file: Path) -> Iterator[tuple[str, Any]]:
    """Rows of one file with the place to name in an error; an unreadable row is handed on as its `InvalidRecord`.

    Raises:
        InvalidRecord: the file is of an unknown kind, or cannot be read as what its name says.
    """
    kind = kind_of(file)
    if kind in {".jsonl", ".ndjson", ".json"}:
        yield from read_jsonl(file)
    elif kind in {".parquet", ".arrow"}:
        yield from read_arrow(file)
    elif kind in _DELIMITERS:
        yield from read_table(file, delimiter=_DELIMITERS[kind])
    else:
        raise InvalidRecord(
            f"{file}: unknown file type; a corpus is .jsonl, .parquet or a `datasets` folder, or .json, .csv, .tsv or .arrow"
        )


def read_table(file: Path, *, delimiter: str) -> Iterator[tuple[str, Any]]:
    """Rows of a table of text by its header; an empty cell is an absent value.

    Raises:
        InvalidRecord: the file is not UTF-8, or its quotes do not close.
    """
    with opened(file) as content:
        raw = content.read()
    check_encoding(raw[:2], file)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise InvalidRecord(f"{file}, line {line}: not UTF-8; save the file as UTF-8") from error
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=_delimiter(text, delimiter), strict=True)
    try:
        with _long_cells():
            for row in rows:
                place = f"{file}, line {rows.line_num}"
                if None in row:
                    header = len(rows.fieldnames or [])
                    yield place, InvalidRecord(f"has more cells than the header has names ({header})")
                else:
                    yield place, {name: value or None for name, value in row.items()}
    except csv.Error as error:
        raise InvalidRecord(
            f"{file}, line {rows.line_num}: malformed table: {error}; check the quotes around this line"
        ) from error


@contextmanager
def _long_cells() -> Iterator[None]:
    """Cells as long as a text may be; the default is shorter than some conversations. It holds for the whole process, so it is put back."""
    usual = csv.field_size_limit(MAX_TEXT_CHARS)
    try:
        yield
    finally:
        csv.field_size_limit(usual)


def _delimiter(text: str, usual: str) -> str:
    """The usual delimiter, unless the header has none of it and another one."""
    header = text.partition("\n")[0]
    return usual if usual in header else next((one for one in ";\t," if one in header), usual)
