"""Refuses texts that no SQL text column, or no record, can hold."""

from collections.abc import Iterator, Mapping
from typing import Any

from wherefrom.errors import InvalidRecord
from wherefrom.records.bounds import MAX_SHORT_CHARS, MAX_TEXT_CHARS


def check_texts(values: Mapping[str, Any]) -> None:
    """Refuse what no SQL text column can hold.

    Raises:
        InvalidRecord: names the field.
    """
    for name, value in values.items():
        for text in (name, *_texts(value)):
            check_storable(text, name)


def check_storable(text: str, name: str) -> None:
    """Refuse one text that no SQL text column can hold, or that is longer than any text may be.

    Raises:
        InvalidRecord: names the field.
    """
    if len(text) > MAX_TEXT_CHARS:
        raise InvalidRecord(
            f"field {name[:MAX_SHORT_CHARS]!r} has {len(text)} characters, the limit is {MAX_TEXT_CHARS}"
        )
    if "\x00" in text:
        raise InvalidRecord(f"field {name!r} contains U+0000 (NUL)")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidRecord(
            f"field {name!r} contains a lone surrogate at position {error.start}; the text is not valid Unicode"
        ) from error


def _texts(value: Any) -> Iterator[str]:
    """All strings of a decoded JSON value, the names of its fields included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, one in value.items():
            yield str(name)
            yield from _texts(one)
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)
