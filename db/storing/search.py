"""The text search: words of outputs and training examples, indexed when they are stored and found without reading the texts.

A text becomes words here, the same on both engines: case is folded (NFKC), every sign is a word of its own, and so is every letter
of a script that is written without spaces. A search is for words side by side, in their order; the last one may be cut short. So it finds what a
reader would find, `100%_sure` included, and nothing has to be compared with the text itself.

SQLite answers from FTS5, PostgreSQL from GIN over `tsvector` columns, which narrow to the rows that hold all words; there the order is
compared within the stored words. Triggers and foreign keys take the words out with the text.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, SQLColumnExpression, Text, false, func, insert, literal, select, update
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import InstrumentedAttribute, Session
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import Boolean

from db.models import Base, ExampleWords, FlaggedText, OutputWords, TrainingExample
from db.session import Database
from db.sight import is_limited
from db.statements import carry_out, insert_new

#: Characters of a prompt, a completion or a training example that are indexed. The words of more would not fit a `tsvector`.
INDEXED_CHARS = 200_000
#: Longest word, characters; a longer one is cut, in texts and in searches alike.
MAX_WORD_CHARS = 100
#: From how many characters on the last word of a search may be the beginning of a word: a letter alone begins most of them.
CUT_SHORT_CHARS = 3
#: Texts that one round of the sweeper indexes.
AT_ONCE = 500

#: Where signs of ASCII go, one by one: FTS5 takes every character beyond ASCII as part of a word.
_PRIVATE = 0xE000
#: Scripts that are written without spaces: each letter is a word. Thai, Lao, Myanmar, Khmer; kana and Han.
_SPACELESS = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff"
)
_WORDS = re.compile(rf"[{_SPACELESS}]|(?:(?![{_SPACELESS}_])\w)+|[^\s]")


class Part(StrEnum):
    """A column of words."""

    PROMPT = "prompt"
    OUTPUT = "output"
    EXAMPLE = "text"


@dataclass(frozen=True)
class _Index:
    table: str
    key: str


_INDEXES = {
    Part.PROMPT: _Index("output_words", "flagged_output_id"),
    Part.OUTPUT: _Index("output_words", "flagged_output_id"),
    Part.EXAMPLE: _Index("example_words", "training_example_id"),
}


def words_of(text: str) -> list[str]:
    """The words of a text, as the index holds them."""
    folded = unicodedata.normalize("NFKC", text[:INDEXED_CHARS]).casefold()
    found = (word[:MAX_WORD_CHARS] for word in _WORDS.findall(folded))
    return [_sign(word) for word in found if word >= " " and word != "\x7f"]


def _sign(word: str) -> str:
    """A sign of ASCII as a letter of the private area; everything else as it is."""
    return chr(_PRIVATE + ord(word)) if len(word) == 1 and word < "\x80" and not word.isalnum() else word


class _Hits(FunctionElement[bool]):
    """Whether a column holds the id of a text in which the words stand."""

    type = Boolean()
    inherit_cache = False

    def __init__(
        self,
        column: SQLColumnExpression[Any],
        words: Sequence[str],
        parts: Sequence[Part],
        *,
        most: int | None = None,
        each: bool = False,
    ) -> None:
        *whole, last = words
        self.each = each
        self.cut = len(last) >= CUT_SHORT_CHARS
        self.parts, self.most, self.single = tuple(parts), most, not whole
        phrase = " ".join(words)
        match = f'{{{" ".join(parts)}}} : "{phrase}"{" *" if self.cut else ""}'
        terms = " & ".join([*map(_quoted, whole), _quoted(last) + (":*" if self.cut else "")])
        super().__init__(
            column,
            literal(match, Text),
            literal(terms, Text),
            literal(f" {phrase}{'' if self.cut else ' '}", Text),
        )

    def self_group(self, against: Any = None) -> Any:
        """Itself: SQLAlchemy would compare it with 1 on SQLite, which then uses no index."""
        del against
        return self


def _quoted(word: str) -> str:
    return "'" + word.replace("\\", "\\\\").replace("'", "''") + "'"


@compiles(_Hits, "sqlite")
def _hits_sqlite(element: _Hits, compiler: SQLCompiler, **kwargs: Any) -> str:
    if element.each:
        return _each(element, compiler, "instr", **kwargs)
    column, match, _, _ = (compiler.process(one, **kwargs) for one in element.clauses)
    index = _INDEXES[element.parts[0]]
    table, within, limit = f"{index.table}_fts", "", ""
    if element.most is not None:
        limit = f" LIMIT {element.most:d}"
        # The index of words knows no limit of a key: texts beyond it must not use the number up.
        if is_limited():
            within = f" AND rowid IN (SELECT {index.key} FROM {index.table})"  # noqa: S608 - names of our own
    return f"{column} IN (SELECT rowid FROM {table} WHERE {table} MATCH {match}{within}{limit})"  # noqa: S608 - names of our own, a bound value


@compiles(_Hits, "postgresql")
def _hits_postgresql(element: _Hits, compiler: SQLCompiler, **kwargs: Any) -> str:
    if element.each:
        return _each(element, compiler, "strpos", **kwargs)
    column, _, terms, phrase = element.clauses
    index = _INDEXES[element.parts[0]]
    found = []
    for part in element.parts:
        one = f"{index.table}.{part.value}_terms @@ {compiler.process(terms, **kwargs)}::tsquery"
        if not element.single:
            one += f" AND strpos(' ' || {index.table}.{part.value} || ' ', {compiler.process(phrase, **kwargs)}) > 0"
        found.append(f"({one})")
    limit = "" if element.most is None else f" LIMIT {element.most:d}"
    inner = f"SELECT {index.table}.{index.key} FROM {index.table} WHERE {' OR '.join(found)}{limit}"  # noqa: S608 - names of our own, bound values
    return f"{compiler.process(column, **kwargs)} IN ({inner})"


def _each(element: _Hits, compiler: SQLCompiler, place_of: str, **kwargs: Any) -> str:
    """Compares the stored words of one text after another: an index of words reads all that it finds before the first row is told."""
    column, _, _, phrase = element.clauses
    index = _INDEXES[element.parts[0]]
    inside = " OR ".join(
        f"{place_of}(' ' || {index.table}.{part.value} || ' ', {compiler.process(phrase, **kwargs)}) > 0"
        for part in element.parts
    )
    mine = f"{index.table}.{index.key} = {compiler.process(column, **kwargs)}"
    return f"EXISTS (SELECT 1 FROM {index.table} WHERE {mine} AND ({inside}))"  # noqa: S608 - names of our own, bound values


def hits(
    column: SQLColumnExpression[Any], text: str, parts: Sequence[Part], *, most: int | None = None
) -> ColumnElement[bool]:
    """Whether a column holds the id of a text in which the words of `text` stand side by side.

    Args:
        column: Ids of flagged outputs, or of training examples.
        text: What is searched for.
        parts: Where: prompt and output, one of them, or training examples.
        most: At most so many of the texts; None for all.
    """
    words = words_of(text)
    return _Hits(column, words, parts, most=most) if words else false()


def holds(column: SQLColumnExpression[Any], text: str, parts: Sequence[Part]) -> ColumnElement[bool]:
    """The same as `hits`, for a few rows that are known by themselves: each text is looked at."""
    words = words_of(text)
    return _Hits(column, words, parts, each=True) if words else false()


def output_words(output_id: int, turns: Iterable[Mapping[str, Any]], completion: str) -> dict[str, Any]:
    """The row of an output's words.

    Args:
        output_id: The output.
        turns: Its prompt, as `FlaggedText.turns` holds it.
        completion: Its answer.
    """
    prompt = "\n".join(str(turn.get("content") or "") for turn in turns)
    return {
        "flagged_output_id": output_id,
        "prompt": " ".join(words_of(prompt)),
        "output": " ".join(words_of(completion)),
    }


def index_outputs(session: Session, texts: Sequence[Mapping[str, Any]]) -> None:
    """Index outputs whose rows of `FlaggedText` this transaction inserts; those rows say `indexed`."""
    rows = [output_words(one["flagged_output_id"], one["turns"], one["completion"]) for one in texts]
    session.execute(insert(OutputWords), rows)


def index_missing(db: Database, *, most: int = AT_ONCE) -> int:
    """Index texts that the search does not know yet, in one short transaction for outputs and one for training examples.

    Args:
        db: The database.
        most: Most texts of either kind.

    Returns:
        How many were indexed; fewer than `most` where no more of a kind are left.
    """
    return _index_missing_outputs(db, most) + _index_missing_examples(db, most)


def _index_missing_outputs(db: Database, most: int) -> int:
    missing = (
        select(FlaggedText.flagged_output_id, FlaggedText.turns, FlaggedText.completion)
        .where(FlaggedText.indexed.is_(None))
        .order_by(FlaggedText.flagged_output_id)
        .limit(most)
    )
    with db.reading() as session:
        rows = session.execute(missing).all()
    words = {
        row.flagged_output_id: output_words(row.flagged_output_id, row.turns, row.completion) for row in rows
    }
    return _store_words(db, FlaggedText.flagged_output_id, OutputWords, words)


def _index_missing_examples(db: Database, most: int) -> int:
    missing = (
        select(TrainingExample.id, TrainingExample.prompt, TrainingExample.completion)
        .where(TrainingExample.indexed.is_(None))
        .order_by(TrainingExample.id)
        .limit(most)
    )
    with db.reading() as session:
        rows = session.execute(missing).all()
    words = {
        row.id: {"training_example_id": row.id, "text": " ".join(words_of(f"{row.prompt}\n{row.completion}"))}
        for row in rows
    }
    return _store_words(db, TrainingExample.id, ExampleWords, words)


def _store_words(
    db: Database, key: InstrumentedAttribute[int], index: type[Base], words: Mapping[int, Mapping[str, Any]]
) -> int:
    """Store the words of texts by the ids of their rows; how many were stored.

    Whoever erased a text meanwhile erased it for good: only texts that are there under the lock, and not indexed, get words. An erased
    training example counts as indexed.
    """
    if not words:
        return 0
    text: Any = key.class_
    with db.writing() as session:
        locked = select(key).where(key.in_(words), text.indexed.is_(None))
        there = set(session.scalars(locked.with_for_update(skip_locked=True)))
        if there:
            session.execute(insert_new(session, index), [words[one] for one in words if one in there])
            carry_out(session, update(text).where(key.in_(there)).values(indexed=True))
    return len(there)


def unindexed(db: Database, *, most: int = 10_000) -> int:
    """How many stored texts the search does not know yet, counted up to `most` of each kind; one statement."""
    outputs = select(literal(1).label("one")).where(FlaggedText.indexed.is_(None)).limit(most)
    examples = select(literal(1).label("one")).where(TrainingExample.indexed.is_(None)).limit(most)
    counted = (
        select(func.count()).select_from(one.subquery()).scalar_subquery() for one in (outputs, examples)
    )
    first, second = counted
    with db.reading() as session:
        return session.scalar(select(first + second)) or 0
