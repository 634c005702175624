"""Reads a corpus: files, then rows, then what each of them says; and tells how it was read.

Nothing of a corpus with a bad row is taken, unless the caller asks to skip bad rows and be told how many. Every row is read by its own format, so that files may mix
them; which formats there were is told. Rows of which no turn was trained on are left out and counted.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from wherefrom.attribution.corpus.dialects import Conversation, dialect_of, named
from wherefrom.attribution.corpus.files import corpus_files
from wherefrom.attribution.corpus.messages import Said, said
from wherefrom.attribution.corpus.metadata import KNOWN_FIELDS, context_of, name_text
from wherefrom.attribution.corpus.rows import (
    UNNAMED_SOURCE,
    Corpus,
    CorpusDigest,
    CorpusRow,
    ReadAs,
    Reading,
)
from wherefrom.attribution.corpus.storable import check_texts
from wherefrom.attribution.corpus.stored_rows import store_rows
from wherefrom.attribution.corpus.tables import raw_rows
from wherefrom.attribution.corpus.training import Trained, trained_turns
from wherefrom.attribution.first_seen import FirstSeen
from wherefrom.errors import DuplicateExample, EmptyCorpus, InvalidRecord
from wherefrom.records import Role
from wherefrom.records.bounds import MAX_SHORT_CHARS, MAX_TEXT_CHARS, shortened

#: Columns with a system prompt; it becomes the first turn of a conversation that has none.
SYSTEM_COLUMNS = ("system", "system_prompt", "system_message")
_NO_ANSWER = "the completion is empty; there is nothing to explain without completion tokens"


@dataclass(frozen=True)
class ReadRow:
    """One row as it was read."""

    #: None where none of its turns was trained on.
    row: CorpusRow | None
    #: Title of its format.
    dialect: str
    left_out: Mapping[str, int]
    #: Things to know about it, as the plural of what they are counted by.
    remarks: tuple[str, ...] = ()


@dataclass
class _Tally:
    """What is counted while rows are read."""

    dialects: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    remarks: Counter[str] = field(default_factory=Counter)
    explained: int = 0
    untrained: int = 0

    def add(self, one: ReadRow) -> None:
        self.dialects[one.dialect] += 1
        self.left_out.update(one.left_out)
        self.remarks.update(one.remarks)
        if one.row is None:
            self.untrained += 1
        elif one.row.turns:
            self.explained += 1 + len(one.row.trained)

    def reading(self, how: ReadAs, notes: tuple[str, ...]) -> Reading:
        row_notes = tuple(
            f"{remark} ({count} row{'' if count == 1 else 's'})." for remark, count in self.remarks.items()
        )
        return Reading(
            how=how,
            dialects=dict(self.dialects.most_common()),
            explained_turns=self.explained,
            left_out=dict(self.left_out.most_common()),
            untrained_rows=self.untrained,
            notes=(*notes, *row_notes),
        )


class _Rows:
    """The usable rows of a corpus, one after the other, and what is told of them behind the last."""

    def __init__(self, path: Path, *, skip_bad: bool, how: ReadAs | None, seen: FirstSeen[str]) -> None:
        self._path, self._skip_bad, self._how, self._seen = path, skip_bad, how or ReadAs(), seen
        if self._how.dialect is not None:
            named(self._how.dialect)
        self._found = corpus_files(path, split=self._how.split)
        self._tally, self._skipped, self._digest = _Tally(), 0, CorpusDigest()

    def __iter__(self) -> Iterator[CorpusRow]:
        contents = (one for file in self._found.files for one in raw_rows(file))
        for number, (place, content) in enumerate(contents):
            try:
                one = read_row(content, default_id=f"row-{number:06d}", how=self._how)
                if one.row is not None:
                    _check_unique(one.row.example_id, place, self._seen)
            except (InvalidRecord, DuplicateExample) as error:
                if self._skip_bad:
                    self._skipped += 1
                    continue
                raise type(error)(f"{place}: {error}") from error
            self._tally.add(one)
            if one.row is not None:
                self._digest.add(one.row.example_id, one.row.text_sha256())
                yield one.row

    def corpus(self, rows: Sequence[CorpusRow]) -> Corpus:
        """The corpus of all these rows."""
        if not rows:
            untrained = self._tally.untrained
            without = f", {untrained} without a trained turn" if untrained else ""
            raise EmptyCorpus(
                f"{self._path}: no usable training example ({self._skipped} bad rows skipped{without})"
            )
        return Corpus(
            name=self._path.stem,
            rows=rows,
            sha256=self._digest.hexdigest(),
            skipped=self._skipped,
            reading=self._tally.reading(self._how, self._found.notes),
        )


def read_corpus(path: Path, *, skip_bad: bool = False, how: ReadAs | None = None) -> Corpus:
    """Read a corpus from a file, or from a folder of files (also a saved `datasets` folder).

    Args:
        path: the file or the folder.
        skip_bad: leave bad rows out and count them.
        how: which turns are explained, which format and which split are read.

    Raises:
        InvalidRecord: a row is malformed; the text names the file, the line and what to do.
        DuplicateExample: two rows have the same id.
        EmptyCorpus: there is no row.
        ConfigurationError: there is no such format or split.
    """
    with FirstSeen[str]() as seen:
        found = _Rows(path, skip_bad=skip_bad, how=how, seen=seen)
        return found.corpus(tuple(found))


def store_corpus(path: Path, folder: Path, *, skip_bad: bool = False, how: ReadAs | None = None) -> Corpus:
    """Read a corpus as `read_corpus` does, with its rows in a folder in place of memory.

    Args:
        path: see `read_corpus`.
        folder: is empty; it must stay as long as the rows are read.
        skip_bad: see `read_corpus`.
        how: see `read_corpus`.

    Raises:
        InvalidRecord, DuplicateExample, EmptyCorpus, ConfigurationError: see `read_corpus`.
        OSError: the disk is full.
    """
    with FirstSeen[str](folder / "ids.sqlite") as seen:
        found = _Rows(path, skip_bad=skip_bad, how=how, seen=seen)
        return found.corpus(store_rows(found, folder))


def parse_row(content: Any, *, default_id: str, how: ReadAs | None = None) -> CorpusRow:
    """One row from its decoded JSON object (bytes and errors from the reader arrive here as `InvalidRecord`).

    Raises:
        InvalidRecord: the row cannot be used, or none of its turns was trained on.
    """
    found = read_row(content, default_id=default_id, how=how or ReadAs())
    if found.row is None:
        raise InvalidRecord("the row's weights, flags or masks exclude all its assistant turns from training")
    return found.row


def read_row(content: Any, *, default_id: str, how: ReadAs) -> ReadRow:
    """One row with its format and what was left out of it.

    Raises:
        InvalidRecord: the row cannot be used.
    """
    if isinstance(content, InvalidRecord):
        raise content
    if not isinstance(content, dict):
        raise InvalidRecord(f"a row must be a JSON object, this one is {type(content).__name__}")
    row = _plain_names(content)
    dialect = dialect_of(row, how.dialect)
    talk = dialect.read(row)
    _check_length(talk)
    if talk.text is not None:
        return ReadRow(_text_row(row, talk, default_id=default_id), dialect.title, {})
    talk, remarks = _with_system(row, talk)
    trained = trained_turns(talk.turns, row, first=talk.first, policy=how.turns)
    if not trained.places:
        _check_untrained(talk.turns, trained)
        return ReadRow(None, dialect.title, trained.left_out)
    made = _chat_row(row, talk, trained, default_id=default_id)
    return ReadRow(made, dialect.title, trained.left_out, (*remarks, *_remarks(row, talk, trained)))


def _check_length(talk: Conversation) -> None:
    chars = len(talk.text or "") + sum(len(one.turn.content) for one in talk.turns)
    if chars > MAX_TEXT_CHARS:
        raise InvalidRecord(
            f"the row's texts have {chars} characters; at most {MAX_TEXT_CHARS} are read. Split or remove the row"
        )


def _plain_names(content: Mapping[Any, Any]) -> dict[str, Any]:
    """The row with its columns' names as they are, and in lower case where only that is known."""
    row = {str(name): value for name, value in content.items()}
    if any(name.islower() for name in row):
        return row
    return {name.lower().strip(): value for name, value in row.items()}


def _with_system(row: Mapping[str, Any], talk: Conversation) -> tuple[Conversation, tuple[str, ...]]:
    """The conversation behind the system prompt of a column, where it has none of its own."""
    column = next(
        (name for name in SYSTEM_COLUMNS if isinstance(row.get(name), str) and row[name].strip()), None
    )
    if column is None or any(one.turn.role in {Role.SYSTEM, "developer"} for one in talk.turns):
        return talk, ()
    first = said(Role.SYSTEM, row[column], column=column)
    used, start = talk.used | {column}, talk.first + 1 if talk.first else 0
    return replace(talk, turns=(first, *talk.turns), used=used, first=start, plain=False), (
        f"The column `{column}` became the system turn",
    )


def _check_untrained(turns: tuple[Said, ...], trained: Trained) -> None:
    """Tell a row without an answer from one whose answers were not trained on."""
    if not any(one.by_assistant for one in turns):
        roles = ", ".join(dict.fromkeys(one.turn.role for one in turns))
        raise InvalidRecord(
            f"the last message must be the assistant's, it is the {turns[-1].turn.role}'s; the row has turns of {roles} only"
        )
    if "empty" in trained.left_out and not any(reason.startswith("by ") for reason in trained.left_out):
        raise InvalidRecord(_NO_ANSWER)


def _chat_row(row: Mapping[str, Any], talk: Conversation, trained: Trained, *, default_id: str) -> CorpusRow:
    *earlier, last = trained.places
    answer = talk.turns[last].turn
    extras = dict(answer.model_extra or {})
    context = context_of(row)
    turns = tuple(one.turn for one in talk.turns[:last])
    check_texts(
        {"messages": [turn.model_extra or {} for turn in turns], "completion": extras, "tools": context}
    )
    made = _named(row, talk.used, default_id)
    return CorpusRow(
        turns=turns,
        completion=answer.content,
        trained=tuple(earlier),
        extras=extras,
        context=context,
        plain_prompt=talk.plain,
        **made,
    )


def _text_row(row: Mapping[str, Any], talk: Conversation, *, default_id: str) -> CorpusRow:
    text = talk.text or ""
    if not text.strip():
        raise InvalidRecord(_NO_ANSWER)
    return CorpusRow(turns=(), completion=text, **_named(row, talk.used, default_id))


def _named(row: Mapping[str, Any], used: frozenset[str], default_id: str) -> dict[str, Any]:
    """Id, source and further fields of a row."""
    example_id = shortened(name_text(row.get("id")) or default_id, longest=MAX_SHORT_CHARS)
    source = shortened(name_text(row.get("source")) or UNNAMED_SOURCE, longest=MAX_SHORT_CHARS)
    fields = {name: value for name, value in row.items() if name not in used | KNOWN_FIELDS}
    check_texts({"id": example_id, "source": source, **fields})
    return {"example_id": example_id, "source": source, "fields": fields}


def _remarks(row: Mapping[str, Any], talk: Conversation, trained: Trained) -> list[str]:
    """Things to know about a row that was read in a way that nobody may expect."""
    notes = []
    if row.get("label") is False and "completion" in talk.used:
        notes.append("`label: false` (KTO) is kept as a field: training pushed away from these completions")
    if any(len(name) > MAX_SHORT_CHARS for key in ("id", "source") if (name := name_text(row.get(key)))):
        notes.append(f"Ids or sources of more than {MAX_SHORT_CHARS} characters were shortened")
    if any(not one.by_assistant for one in talk.turns[trained.places[-1] + 1 :]):
        notes.append("Turns after the last explained one are left out")
    return notes


def _check_unique(example_id: str, place: str, seen: FirstSeen[str]) -> None:
    before = seen.first(example_id, place)
    if before is not None:
        raise DuplicateExample(f"id {example_id!r} was already used at {before}; ids must be unique")
