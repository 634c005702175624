"""Reads JSON that others wrote: nesting beyond what Python reads is an error of the text, like any other."""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from wherefrom.errors import InvalidRecord


def read_json(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        JSONDecodeError: no JSON, or nested too deeply.
        UnicodeDecodeError: bytes that are no UTF-8, UTF-16 or UTF-32.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise json.JSONDecodeError("Nested too deeply", "", 0) from error


def finite_numbers(value: Any) -> Any:
    """A JSON value with None in place of every number that JSON has no form for: NaN and the infinities."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case Mapping():
            return {key: finite_numbers(one) for key, one in value.items()}
        case list() | tuple():
            return [finite_numbers(one) for one in value]
        case _:
            return value


def objects_in(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The JSON objects of a file, one a line, each with its place; blank lines are passed over.

    Lines end where the file says so, never at a line separator (U+2028) inside a text.

    Raises:
        InvalidRecord: the file cannot be read, or a line is no JSON object; the text names it.
    """
    try:
        lines = file.read_bytes().splitlines()
    except OSError as error:
        raise InvalidRecord(f"{file}: cannot be read: {error}") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        place = f"{file}, line {number}"
        try:
            value = read_json(line)
        except ValueError as error:
            raise InvalidRecord(f"{place}: malformed JSON") from error
        if not isinstance(value, dict):
            raise InvalidRecord(f"{place}: must be a JSON object")
        yield place, value
