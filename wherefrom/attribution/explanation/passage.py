"""A completion as people read it: words with their characters, and which tokens make up which word.

Two divisions of a text: *words* (letters and digits, for word-for-word comparison) and *units* (a word with the punctuation behind it, or
punctuation alone; spans are made of whole units). Scripts that write no spaces count each character as a word.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from wherefrom.attribution.models.ranges import Range
from wherefrom.records import Span

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]

#: Thai to Lao, Burmese, Khmer, kana, Chinese characters.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
#: Vowel signs and accents that stand apart from their letter and are no word characters to `re`.
_MARKS = "\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0900-\u0dff"
_LETTERS = rf"(?:[^\W{_UNSPACED}]|[{_MARKS}])+"
_WORD = re.compile(rf"{_LETTERS}(?:['\u2019]{_LETTERS})*|[{_UNSPACED}]")
_UNIT = re.compile(rf"(?:{_WORD.pattern})[^\w\s]*|[^\w\s]+|\S")


@dataclass(frozen=True, eq=False)
class Passage:
    """A completion with the character range of each of its explained tokens, in their order."""

    text: str
    ranges: Sequence[Range]

    @cached_property
    def _ranges(self) -> Integers:
        return np.array(self.ranges, dtype=np.int64).reshape(-1, 2)  # [T, 2]

    @cached_property
    def end(self) -> int:
        """Where the explained tokens end; what lies behind was cut away or is not asked about."""
        return int(self._ranges[:, 1].max(initial=0))

    @cached_property
    def units(self) -> Integers:
        """Characters of each unit up to `end`, `[U, 2]`."""
        return _found(_UNIT, self.text, self.end)

    @cached_property
    def words(self) -> Integers:
        """Characters of each word up to `end`, `[W, 2]`."""
        return _found(_WORD, self.text, self.end)

    @cached_property
    def keys(self) -> list[str]:
        """Each word case-folded: words are the same where these are."""
        return [self.text[start:end].casefold() for start, end in self.words.tolist()]

    @cached_property
    def places(self) -> dict[str, list[int]]:
        """The words by key: where each one stands."""
        places: dict[str, list[int]] = {}
        for index, key in enumerate(self.keys):
            places.setdefault(key, []).append(index)
        return places

    @cached_property
    def memberships(self) -> tuple[Integers, Integers, Floats]:
        """Which token counts in which unit and by how much: tokens, units, shares, `[K]` each, sorted by units.

        A token counts in equal parts for the units that it touches; white space and the end of the turn for none.
        """
        starts, ends = self._ranges[:, :1], self._ranges[:, 1:]  # [T, 1] each
        touches = (starts < self.units[:, 1]) & (ends > self.units[:, 0])  # [T, U]
        units, tokens = np.nonzero(touches.T)
        shares = (1.0 / touches.sum(axis=1)[tokens]).astype(np.float32)
        return tokens, units, shares

    def span(self, first: int, last: int) -> Span:
        """Characters of the units `first` to `last` (excluded), the punctuation behind the last word included: it carries mass too."""
        return Span(start=int(self.units[first, 0]), end=int(self.units[last - 1, 1]))


def _found(pattern: re.Pattern[str], text: str, end: int) -> Integers:
    """Matches that begin before `end`, `[M, 2]`."""
    places = []
    for match in pattern.finditer(text):
        if match.start() >= end:
            break
        places.append(match.span())
    return np.array(places, dtype=np.int64).reshape(-1, 2)
