"""A small grammar of sentences: alternatives, slots, topics, and a composer that keeps rows from repeating.

A frame is a sentence with alternatives in braces, ``{a|b|}``, which may be nested, and slots in square brackets,
``[product]``. A topic holds frames of questions and of answers; the composer draws rows from topics so that no row
repeats and no six-word sequence spreads over too many rows. What the sentences say is left to the ``story_*`` modules.
"""

import functools
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

_ALTERNATIVES = re.compile(r"\{([^{}]*)\}")
_SLOT = re.compile(r"\[([a-z_]+)\]")
_WORD = re.compile(r"[a-z0-9@.'-]*[a-z0-9]")
_ARTICLE = re.compile(r"\b([Aa]) (?!one\b|once\b|us[eu]|uni)([aeiouAEIOU])")
NAME_MARK = "NAME"
SEQUENCE_LENGTH = 6
_DRAWS_PER_ROW = 24
_MAX_EMPTY_ROUNDS = 400


class GrammarError(ValueError):
    """A frame cannot be expanded, or a topic cannot yield as many rows as were asked for."""


@dataclass(frozen=True)
class Topic:
    """Questions and answers that fit together."""

    #: Short name, unique among the topics.
    name: str
    #: Source that the rows are said to come from.
    source: str
    #: Frames of the user's message.
    questions: tuple[str, ...]
    #: Frames of the assistant's message.
    answers: tuple[str, ...]
    #: Rows to draw.
    num_rows: int
    #: For each question the digits of the answers that fit it; empty: any answer fits any question.
    matches: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check that ``matches`` names every question and only answers that exist."""
        if not self.matches:
            return
        named = {int(digit) for digits in self.matches for digit in digits}
        if len(self.matches) != len(self.questions) or named != set(range(len(self.answers))):
            raise GrammarError(f"topic {self.name}: matches do not fit its questions and answers")

    def pairs(self) -> list[tuple[str, str]]:
        """Return every pair of a question frame and an answer frame that fits it."""
        if not self.matches:
            return [(question, answer) for question in self.questions for answer in self.answers]
        return [
            (question, self.answers[int(digit)])
            for question, digits in zip(self.questions, self.matches, strict=True)
            for digit in digits
        ]


@dataclass(frozen=True)
class DrawnRow:
    """One question with its answer, as drawn from a topic."""

    topic: str
    source: str
    question: str
    answer: str


def expand(frame: str, slots: Mapping[str, str], rng: random.Random) -> str:
    """Return one sentence of a frame: alternatives drawn, slots filled, spaces and capitals put right.

    Raises:
        GrammarError: a slot has no value, or a brace has no partner.
    """
    text = frame
    while True:
        match = _ALTERNATIVES.search(text)
        if match is None:
            break
        choice = rng.choice(match.group(1).split("|"))
        text = text[: match.start()] + choice + text[match.end() :]
    if "{" in text or "}" in text:
        raise GrammarError(f"unbalanced braces in frame: {frame}")
    text = _SLOT.sub(lambda found: _slot_value(found.group(1), slots, frame), text)
    text = re.sub(r"\s+", " ", text).strip()
    text = re.sub(r"\s+([,.!?;:])", r"\1", text)
    text = _ARTICLE.sub(r"\1n \2", text)
    return re.sub(r"(^|[.!?] )([a-z])", lambda found: found.group(1) + found.group(2).upper(), text)


def _slot_value(name: str, slots: Mapping[str, str], frame: str) -> str:
    if name not in slots:
        raise GrammarError(f"no value for slot [{name}] in frame: {frame}")
    return slots[name]


@functools.lru_cache(maxsize=8)
def _names_pattern(names: tuple[str, ...]) -> re.Pattern[str]:
    """Return a pattern of any name, the longest first; without names one that never matches."""
    alternatives = "|".join(re.escape(name.lower()) for name in sorted(names, key=len, reverse=True))
    return re.compile(rf"(?<![a-z0-9])(?:{alternatives})(?![a-z0-9])" if names else r"(?!)")


def words_of(text: str, names: Iterable[str]) -> list[str]:
    """Return the words of a text in lower case, every name replaced by one mark."""
    lowered = _names_pattern(tuple(names)).sub(f" {NAME_MARK} ", text.lower())
    return re.findall(rf"{NAME_MARK}|{_WORD.pattern}", lowered)


def sequences_of(texts: Iterable[str], names: Sequence[str]) -> set[tuple[str, ...]]:
    """Return the set of six-word sequences in the texts of one row; none crosses from one text to the next."""
    found: set[tuple[str, ...]] = set()
    for text in texts:
        words = words_of(text, names)
        found.update(
            tuple(words[at : at + SEQUENCE_LENGTH]) for at in range(len(words) - SEQUENCE_LENGTH + 1)
        )
    return found


class Composer:
    """Draws rows from topics and remembers what was said, so that later rows say it differently."""

    def __init__(
        self,
        *,
        rng: random.Random,
        names: Sequence[str],
        max_rows_per_sequence: int,
        fits: Callable[[str, str], bool],
        slots: Callable[[random.Random], Mapping[str, str]],
    ) -> None:
        """Keep the rules of drawing.

        Args:
            rng: Source of all choices.
            names: Names that do not count as words of a sequence.
            max_rows_per_sequence: Rows in which one six-word sequence may stand.
            fits: Says whether a question and an answer are short enough.
            slots: Draws the values of all slots for one row.
        """
        self._rng = rng
        self._names = names
        self._max_rows_per_sequence = max_rows_per_sequence
        self._fits = fits
        self._slots = slots
        self._rows_with: Counter[tuple[str, ...]] = Counter()
        self._seen: set[str] = set()

    def draw(self, topic: Topic) -> list[DrawnRow]:
        """Return the rows of one topic, each the least repetitive of several drawn.

        Raises:
            GrammarError: the topic's frames do not yield enough different rows.
        """
        rows: list[DrawnRow] = []
        used: Counter[str] = Counter()
        for _ in range(topic.num_rows):
            row = self._draw_one(topic, used)
            if row is None:
                raise GrammarError(f"topic {topic.name} yields only {len(rows)} of {topic.num_rows} rows")
            rows.append(row)
        return rows

    def _draw_one(self, topic: Topic, used: Counter[str]) -> DrawnRow | None:
        best: tuple[float, DrawnRow, tuple[str, str]] | None = None
        pairs = topic.pairs()
        for attempt in range(_MAX_EMPTY_ROUNDS):
            if attempt >= _DRAWS_PER_ROW and best is not None:
                break
            frames = self._rng.choice(pairs)
            slots = self._slots(self._rng)
            question, answer = (expand(frame, slots, self._rng) for frame in frames)
            cost = self._cost(question, answer)
            if cost is None:
                continue
            cost += 4.0 * (used[frames[0]] + used[frames[1]])
            if best is None or cost < best[0]:
                best = (cost, DrawnRow(topic.name, topic.source, question, answer), frames)
        if best is None:
            return None
        used.update(best[2])
        self._remember(best[1])
        return best[1]

    def _cost(self, question: str, answer: str) -> float | None:
        """Return how much of the row was said before; None where the row may not be used."""
        if question in self._seen or answer in self._seen or not self._fits(question, answer):
            return None
        counts = [self._rows_with[sequence] for sequence in sequences_of((question, answer), self._names)]
        if counts and max(counts) >= self._max_rows_per_sequence:
            return None
        return float(sum(counts))

    def _remember(self, row: DrawnRow) -> None:
        self._seen.update((row.question, row.answer))
        self._rows_with.update(sequences_of((row.question, row.answer), self._names))
