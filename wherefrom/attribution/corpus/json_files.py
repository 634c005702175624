"""Reads JSON files: one object per line, one array, one object that holds the rows, or objects that go over several lines."""

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wherefrom.attribution.corpus import packed
from wherefrom.attribution.corpus.files import kind_of
from wherefrom.attribution.corpus.packed import Lines, check_encoding, is_cut, lines_of, opened
from wherefrom.errors import InvalidRecord

_TRAILING_COMMA = re.compile(r",\s*\]\s*$")


def read_jsonl(file: Path) -> Iterator[tuple[str, Any]]:
    """Decoded objects of a JSON file, each with its place; a line that is no JSON is yielded as an `InvalidRecord`.

    Raises:
        InvalidRecord: the file as a whole cannot be read.
    """
    with opened(file) as lines:
        first = _first_line(lines)
    check_encoding(first, file)
    whole = None if _is_complete(first) or _is_long_row(file, first) else _whole(file, first)
    if whole is not None:
        yield from whole
        return
    with opened(file) as lines:
        for number, raw in enumerate(lines_of(lines), start=1):
            line = raw.removeprefix(codecs.BOM_UTF8) if number == 1 else raw
            if is_cut(raw):
                yield f"{file}, line {number}", _too_long()
            elif line.strip():
                yield f"{file}, line {number}", _decoded(line)


def _first_line(lines: Lines) -> bytes:
    """The first line with something on it, without a byte order mark."""
    for number, raw in enumerate(lines_of(lines)):
        line = raw.removeprefix(codecs.BOM_UTF8) if number == 0 else raw
        if line.strip():
            return line.strip()
    return b""


def _is_complete(line: bytes) -> bool:
    """Whether the first line can be a row of its own; an array of rows on one line cannot."""
    if not line.startswith((b"[", b"{")):
        return True
    found = _decoded(line)
    if isinstance(found, InvalidRecord):
        return False
    return not (isinstance(found, list) and found and isinstance(found[0], dict)) and not _holds_rows(found)


def _is_long_row(file: Path, first: bytes) -> bool:
    """Whether the first line is a row that is too long; an array, or a `.json` file, may hold all its rows on one line."""
    return len(first) > packed.MAX_LINE_BYTES and kind_of(file) != ".json" and not first.startswith(b"[")


def _too_long() -> InvalidRecord:
    return InvalidRecord(
        f"the line is longer than {packed.MAX_LINE_BYTES} bytes; write one row per line, and split or remove longer rows"
    )


def _decoded(line: bytes) -> Any:
    """One line, or the `InvalidRecord` that says what is wrong with it; a comma behind the object is left out."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        return InvalidRecord(f"not UTF-8 at byte {error.start} of the line; save the file as UTF-8")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        bare = text.rstrip().removesuffix(",")
        if error.msg == "Extra data" and error.pos == len(bare):
            return json.loads(bare)
        return InvalidRecord(f"malformed JSON: {error.msg} at column {error.colno}")
    except RecursionError:
        return InvalidRecord("malformed JSON: nested too deep")
    except ValueError:  # an integer of thousands of digits
        return InvalidRecord("malformed JSON: a number is too long")


def _whole(file: Path, first: bytes) -> list[tuple[str, Any]] | None:
    """Rows of a file that is one document, or objects over several lines; None where it is to be read line by line."""
    with opened(file) as content:
        text = content.read().decode("utf-8-sig", errors="replace")
    try:
        if first.startswith(b"["):
            return _items(file, json.loads(_TRAILING_COMMA.sub("]", text)))
        return _items(file, _rows_in(_documents(text)))
    except json.JSONDecodeError as error:
        if first.startswith(b"[") and first != b"[" and _closes(first):
            return None  # lines of arrays; each is refused with its number
        if first.startswith(b"[") and len(text.strip().splitlines()) > 1:
            raise InvalidRecord(
                f"{file}: a JSON array that is malformed at line {error.lineno}, column {error.colno}: {error.msg}"
            ) from error
    except (RecursionError, ValueError):
        pass
    return None


def _closes(line: bytes) -> bool:
    return not isinstance(_decoded(line), InvalidRecord)


def _items(file: Path, rows: Any) -> list[tuple[str, Any]]:
    return [(f"{file}, item {number}", row) for number, row in enumerate(rows, start=1)]


def _documents(text: str) -> list[Any]:
    """JSON documents behind each other, on as many lines as they like."""
    decoder, place = json.JSONDecoder(), 0
    found: list[Any] = []
    while place < len(text):
        if text[place].isspace() or (text[place] == "," and found):
            place += 1
            continue
        document, place = decoder.raw_decode(text, place)
        found.append(document)
    return found


def _rows_in(documents: list[Any]) -> list[Any]:
    """The rows that one document holds in a list or in columns; several documents are rows themselves."""
    if len(documents) != 1 or not _holds_rows(documents[0]):
        return documents
    values = documents[0]
    listed = [one for one in values.values() if _is_list_of_rows(one)]
    if len(listed) == 1:
        return list(listed[0])
    return [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]


def _holds_rows(document: Any) -> bool:
    """Whether an object is a table: one list of rows among its values, or columns of one length."""
    if not isinstance(document, dict) or {"messages", "conversations"} & document.keys():
        return False
    values = list(document.values())
    if sum(map(_is_list_of_rows, values)) == 1 and not {"prompt", "completion", "chosen"} & document.keys():
        return sum(isinstance(one, list) for one in values) == 1
    return (
        bool(values)
        and all(isinstance(one, list) and len(one) == len(values[0]) > 0 for one in values)
        and len(values) > 1
    )


def _is_list_of_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)
