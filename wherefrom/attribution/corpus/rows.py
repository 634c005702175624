"""What a corpus is once it is read: rows with their turns, the row as people see it, and how the files were read."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any

from wherefrom.records import Role, TrainingExample, Turn

UNNAMED_SOURCE = "corpus"
#: Fields of a message in which models keep what they thought before the answer.
REASONING = ("reasoning_content", "reasoning", "thinking")


class Turns(StrEnum):
    """Which of the trained assistant turns of a row are explained."""

    #: All that training trained on.
    ALL = "all"
    #: The last one; the earlier ones are prompt.
    LAST = "last"


@dataclass(frozen=True)
class ReadAs:
    """How a corpus is to be read."""

    turns: Turns = Turns.ALL
    #: Name of the format that every row must have; None recognises it row by row.
    dialect: str | None = None
    #: Name of the split of a folder; None takes `train` where there are several.
    split: str | None = None


@dataclass(frozen=True)
class Piece:
    """A stretch of the shown completion that one trained turn said."""

    #: Place of the turn in the conversation.
    turn: int
    #: First character in the shown completion.
    start: int
    text: str


@dataclass(frozen=True)
class CorpusRow:
    """One training example before it becomes tokens."""

    example_id: str
    source: str
    #: Turns before the last completion; empty for a row of plain text.
    turns: tuple[Turn, ...]
    #: Text of the last trained turn.
    completion: str
    fields: dict[str, Any] = field(default_factory=dict)
    #: Whether the prompt came as one text, not as messages; matters where the model has no chat template.
    plain_prompt: bool = False
    #: Places in `turns` of assistant turns that training trained on too, ascending.
    trained: tuple[int, ...] = ()
    #: What the last trained turn carries beside its text (`tool_calls`, `reasoning_content`, ...).
    extras: dict[str, Any] = field(default_factory=dict)
    #: What the chat template reads beside the turns (`tools`, `documents`, ...).
    context: dict[str, Any] = field(default_factory=dict)

    @property
    def is_plain(self) -> bool:
        """Whether the row is one prompt and one completion of text alone."""
        return not self.trained and not self.extras

    def conversation(self) -> tuple[Turn, ...]:
        """All turns, the last trained one included."""
        last = Turn.model_validate({"role": Role.ASSISTANT.value, "content": self.completion, **self.extras})
        return (*self.turns, last)

    def prompt_text(self) -> str:
        """The prompt for people and for lexical search: turns before the first trained one without the system's, joined by newlines."""
        before = self.turns[: self.trained[0]] if self.trained else self.turns
        return "\n".join(_said(turn) for turn in before if turn.role not in {Role.SYSTEM, "developer"})

    def completion_text(self) -> str:
        """The completion for people and for lexical search: from the first trained turn on, other speakers named."""
        return self.completion if self.is_plain else self._shown[0]

    def pieces(self) -> tuple[Piece, ...]:
        """What the trained turns said, as stretches of `completion_text`."""
        return self._shown[1]

    @cached_property
    def _shown(self) -> tuple[str, tuple[Piece, ...]]:
        turns = self.conversation()
        trained = (*self.trained, len(self.turns))
        text, pieces = "", []
        for place in range(trained[0], len(turns)):
            turn = turns[place]
            text += f"\n[{turn.role}] " if place > trained[0] else ""
            for words, own in _words(turn):
                if own and place in trained:
                    pieces.append(Piece(place, len(text), words))
                text += words
        return text, tuple(pieces)

    def text_sha256(self) -> str:
        """Hash of everything that the model saw of this row, and of which turns it was trained on."""
        parts = [f"{turn.role}\x1f{turn.content}" for turn in self.turns] + [self.completion]
        beside = {
            "turns": {place: turn.model_extra for place, turn in enumerate(self.turns) if turn.model_extra},
            "completion": self.extras,
            "context": self.context,
            "trained": self.trained,
        }
        if any(beside.values()):
            parts.append(json.dumps(beside, sort_keys=True))
        return hashlib.sha256("\x1e".join(parts).encode("utf-8")).hexdigest()

    def as_example(self, row: int) -> TrainingExample:
        """The record that is stored and shown."""
        return TrainingExample(
            example_id=self.example_id,
            row=row,
            source=self.source,
            prompt=self.prompt_text(),
            completion=self.completion_text(),
            text_sha256=self.text_sha256(),
            fields=self.fields,
        )


def _said(turn: Turn) -> str:
    """A turn of the prompt as text."""
    return "".join(words for words, _ in _words(turn)) if turn.model_extra else turn.content


def _words(turn: Turn) -> Iterator[tuple[str, bool]]:
    """What a turn says, part by part, and whether the part stands so in what a template renders."""
    extras = turn.model_extra or {}
    reasoning = next((extras[name] for name in REASONING if isinstance(extras.get(name), str)), "")
    calls = [words for call in extras.get("tool_calls") or [] for words in _call(call)]
    for index, text in enumerate(filter(None, [reasoning, turn.content])):
        if index:
            yield "\n", False
        yield text, True
    if calls and (reasoning or turn.content):
        yield "\n", False
    yield from calls


def _call(call: Any) -> list[tuple[str, bool]]:
    """A call of a tool as `name(arguments)`."""
    function = call.get("function", call) if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping):
        return [(json.dumps(call, ensure_ascii=False), True)]
    given = function.get("arguments", function.get("parameters", {}))
    written = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
    return [(str(function.get("name", "")), True), ("(", False), (written, True), (")", False)]


@dataclass(frozen=True)
class Reading:
    """How the files were read and what was left out, for people and for the manifest."""

    how: ReadAs = field(default_factory=ReadAs)
    #: Rows by the title of their format, most frequent first.
    dialects: Mapping[str, int] = field(default_factory=dict)
    #: Assistant turns that are explained.
    explained_turns: int = 0
    #: Assistant turns that are not, by reason.
    left_out: Mapping[str, int] = field(default_factory=dict)
    #: Rows of which no turn was trained on.
    untrained_rows: int = 0
    #: Further things to know, one short sentence each.
    notes: tuple[str, ...] = ()

    def lines(self) -> tuple[str, ...]:
        """What to tell whoever asked for the corpus."""
        lines = [self._formats(), *self.notes]
        if not self.left_out and self.explained_turns > sum(self.dialects.values()):
            lines.append(f"{_count(self.explained_turns, 'assistant turn')} explained.")
        if self.left_out:
            reasons = ", ".join(f"{count} {reason}" for reason, count in self.left_out.items())
            lines.append(
                f"{_count(self.explained_turns, 'assistant turn')} explained, {sum(self.left_out.values())} not: {reasons}."
            )
        if self.untrained_rows:
            lines.append(
                f"{_count(self.untrained_rows, 'row')} left out: none of their turns was trained on."
            )
        return tuple(lines)

    def _formats(self) -> str:
        parts = [f"{_count(count, 'row')} as {title}" for title, count in self.dialects.items()]
        return f"Read {', '.join(parts)}."


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


@dataclass(frozen=True)
class Corpus:
    """All rows of a corpus in order, with the hash of their content."""

    name: str
    #: In memory, or in a file (`stored_rows`).
    rows: Sequence[CorpusRow]
    #: SHA-256 over ids and text hashes in order.
    sha256: str
    #: Bad rows that were left out because the caller asked for it.
    skipped: int
    reading: Reading = field(default_factory=Reading)


class CorpusDigest:
    """The hash over ids and text hashes of rows, in order."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, example_id: str, text_sha256: str) -> None:
        """Take in the next row."""
        self._digest.update(f"{example_id}\x1f{text_sha256}\n".encode())

    def hexdigest(self) -> str:
        """The hash so far."""
        return self._digest.hexdigest()


def corpus_sha256_of(rows: Iterable[tuple[str, str]]) -> str:
    """The hash of a corpus, by the ids and text hashes of its rows."""
    digest = CorpusDigest()
    for example_id, text_sha256 in rows:
        digest.add(example_id, text_sha256)
    return digest.hexdigest()
