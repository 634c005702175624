"""Bounds what a page shows of a text: its beginning, marked stretches with what stands around them, and how much is left out in between.

A flagged output may have megabytes, and an audit shows it beside each of its citations. The whole text is one link away.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Protocol, TypeVar

#: Characters that a page shows of the flagged output, and of each text of a citation.
OUTPUT_CHARACTERS, CITED_CHARACTERS = 8_000, 3_000
#: Characters that a page shows of all turns before the output together.
TURNS_CHARACTERS = 24_000
#: Characters kept before and behind a mark.
AROUND = 400


class Part(Protocol):
    """A piece of a text on a page; a dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def text(self) -> str:
        """Its characters."""

    @property
    def marked(self) -> bool:
        """It is shown with a mark."""

    @property
    def left_out(self) -> int:
        """Characters behind it that are not shown."""


P = TypeVar("P", bound=Part)


def shortened(parts: Iterable[P], limit: int) -> tuple[P, ...]:
    """At most `limit` characters of a text in parts; every cut says how many characters it left out.

    A text within the limit stays as it is. Of a longer one the beginning is kept, and what stands around the first marks.
    """
    whole = tuple(parts)
    if sum(len(part.text) for part in whole) <= limit:
        return whole
    kept: list[P] = []
    room = limit
    for part in _around_marks(whole):
        shown = part.text[:room]
        missing = len(part.text) - len(shown) + part.left_out
        room -= len(shown)
        if shown or not kept:
            kept.append(replace(part, text=shown, left_out=missing))
        else:
            kept[-1] = replace(kept[-1], left_out=kept[-1].left_out + missing)
    return tuple(kept)


def _around_marks(parts: Sequence[P]) -> Iterator[P]:
    """The parts, long ones that stand before a mark without their middle."""
    last_mark = max((number for number, part in enumerate(parts) if part.marked), default=-1)
    for number, part in enumerate(parts):
        if number > last_mark or len(part.text) <= 2 * AROUND:
            yield part
        else:
            yield replace(part, text=part.text[:AROUND], left_out=len(part.text) - 2 * AROUND)
            yield replace(part, text=part.text[-AROUND:])


def last_that_fit(texts: Sequence[str], limit: int) -> int:
    """How many texts at the beginning do not fit: the last ones that have `limit` characters together do, and always the last."""
    room = limit
    for number in range(len(texts) - 1, -1, -1):
        room -= len(texts[number])
        if room < 0:
            return min(number + 1, len(texts) - 1)
    return 0
