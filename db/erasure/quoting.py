"""What people wrote that carries an erased text: comments, reasons, names and filters, found by the words that they share with it and taken out.

A comment on a range of an erased text goes whatever it says. Anything else goes where it has a run of words of the text. One common word is no quotation: texts such as "Yes." and labels such as
"chat" would take out what people wrote of other outputs. Only comments on the output itself go for it. Listings that were worked out for a search go
all: they are made again when somebody asks.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, delete, or_, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from db.models import (
    Finding,
    FindingEntryRow,
    FixList,
    FixListEntry,
    ListingFactsRow,
    Review,
    ReviewQueue,
    SavedView,
    WhatIf,
)
from db.statements import carry_out
from db.storing.search import words_of

#: Stands in the place of what people wrote.
ERASED = "[erased]"
#: Words in a row that make a quotation in prose, and in a filter, where few words are typed.
_PROSE_RUN, _FILTER_RUN = 4, 2
#: A word with a digit that is longer is a name.
_NAME_CHARS = 2
#: Filters whose value is searched for in texts.
TEXT_FILTERS = ("text", "in_prompt", "in_output", "in_cited")

#: Prose that people wrote, wherever it stands.
_PROSE: tuple[InstrumentedAttribute[Any], ...] = (
    Review.comment,
    Finding.title,
    FindingEntryRow.title,
    FixList.note,
    FixListEntry.reason,
)
#: Names that tell rows apart: what stands in their place has the row's number.
_NAMES: tuple[InstrumentedAttribute[Any], ...] = (SavedView.name, ReviewQueue.name, FixList.name)
#: Filters as JSON objects.
_FILTERS: tuple[InstrumentedAttribute[Any], ...] = (
    SavedView.parameters,
    ReviewQueue.rule,
    WhatIf.filter,
    FixListEntry.culprits,
)


class Quotations:
    """The runs of words of erased texts."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._runs: dict[int, set[tuple[str, ...]]] = {_PROSE_RUN: set(), _FILTER_RUN: set()}
        self._whole: set[tuple[str, ...]] = set()
        #: Those that are one word beside their signs.
        self._single: set[str] = set()
        for text in texts:
            words = words_of(text)
            if words:
                self._whole.add(tuple(words))
            named = [word for word in words if word.isalnum()]
            if len(named) == 1:
                self._single.add(named[0])
            for length, runs in self._runs.items():
                runs.update(_runs(words, length))

    def in_prose(self, text: str) -> bool:
        """Whether a text has four words of an erased one in a row, or all of a shorter one that tells something."""
        return self._found(words_of(text), _PROSE_RUN)

    def in_own_prose(self, text: str) -> bool:
        """The same of what was written about an erased output: there a text of one word counts too."""
        words = words_of(text)
        return self._found(words, _PROSE_RUN) or not self._single.isdisjoint(words)

    def in_filter(self, value: str) -> bool:
        """Whether words that were searched for have two of an erased text in a row, or are one that is a name by itself: with a digit."""
        words = words_of(value)
        names = any(_is_name(word) and self._holds(word) for word in words)
        return names or self._found(words, _FILTER_RUN)

    def _found(self, words: Sequence[str], length: int) -> bool:
        if not self._runs[length].isdisjoint(_runs(words, length)):
            return True
        short = [one for one in self._whole if len(one) < length and _tells(one)]
        return any(one in _runs(words, len(one)) for one in short)

    def _holds(self, word: str) -> bool:
        return any(word in one for one in self._whole)


def _tells(words: Sequence[str]) -> bool:
    """Whether a short text is told by its words: it has two beside its signs, or one that is a name by itself."""
    return sum(map(str.isalnum, words)) > 1 or any(map(_is_name, words))


def _is_name(word: str) -> bool:
    """Whether a word is a name by itself: it has a digit, and is no small number."""
    return len(word) > _NAME_CHARS and any(map(str.isdigit, word))


def _runs(words: Sequence[str], length: int) -> Iterable[tuple[str, ...]]:
    return (tuple(words[start : start + length]) for start in range(len(words) - length + 1))


def erase_comments_on_output(session: Session, audit_ids: Sequence[int]) -> None:
    """Take out the comments on a range of these audits' outputs; verdicts stay."""
    _erase_comments(session, Review.audit_id.in_(audit_ids), Review.range_part == "output")


def erase_comments_about(session: Session, audit_ids: Sequence[int], quoted: Quotations) -> None:
    """Take out the comments on erased outputs that quote them, be it with one word."""
    rows = session.execute(select(Review.id, Review.comment).where(Review.audit_id.in_(audit_ids)))
    for key, comment in rows.all():
        if quoted.in_own_prose(comment):
            _set(session, Review.comment, key, ERASED)


def erase_comments_on_example(session: Session, example_ids: Sequence[int]) -> None:
    """The same for ranges of training examples."""
    _erase_comments(session, Review.training_example_id.in_(example_ids), Review.range_part == "example")


def _erase_comments(session: Session, *on_range: ColumnElement[bool]) -> None:
    gone: dict[str, Any] = {"comment": ERASED, "range_part": None, "range_start": None, "range_end": None}
    carry_out(session, update(Review).where(*on_range).values(**gone))


def erase_quotations(session: Session, quoted: Quotations) -> None:
    """Take out everything that people wrote and that has words of erased texts in a row."""
    for column in (*_PROSE, *_NAMES):
        for key, value in _written(session, column):
            if quoted.in_prose(value):
                _set(session, column, key, f"{ERASED} {key}" if column in _NAMES else ERASED)
    for column in _FILTERS:
        for key, value in _written(session, column):
            cleaned = _without(value, quoted)
            if cleaned != value:
                _set(session, column, key, cleaned)
    _erase_searched_listings(session)


def _written(session: Session, column: InstrumentedAttribute[Any]) -> list[tuple[int, Any]]:
    """Ids and values of all rows in which people wrote something; as many as people could write."""
    identity = _id_of(column)
    rows = session.execute(select(identity, column).where(column.is_not(None)))
    return [(key, value) for key, value in rows if value and value != ERASED]


def _without(value: Mapping[str, Any], quoted: Quotations) -> dict[str, Any]:
    return {
        name: ERASED
        if name in TEXT_FILTERS and isinstance(one, str) and quoted.in_filter(one)
        else one
        for name, one in value.items()
    }  # fmt: skip


def _erase_searched_listings(session: Session) -> None:
    filters = [ListingFactsRow.filter[name].as_string().is_not(None) for name in TEXT_FILTERS]
    carry_out(session, delete(ListingFactsRow).where(or_(*filters)))


def _id_of(column: InstrumentedAttribute[Any]) -> InstrumentedAttribute[Any]:
    table: Any = column.class_
    found: InstrumentedAttribute[Any] = table.id
    return found


def _set(session: Session, column: InstrumentedAttribute[Any], key: int, value: Any) -> None:
    carry_out(session, update(column.class_).where(_id_of(column) == key).values({column.key: value}))
