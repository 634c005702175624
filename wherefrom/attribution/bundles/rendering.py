"""The corpus as tokens, before anything runs through the model; rows that cannot be rendered are refused or left out."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from wherefrom.attribution.batching import in_parts
from wherefrom.attribution.bundles.examples import WrittenExamples, write_examples
from wherefrom.attribution.bundles.tokens import ROWS_AT_ONCE, ShownRanges, ShownRangesWriter, TokenWriter
from wherefrom.attribution.corpus import Corpus, CorpusRow, Reading
from wherefrom.attribution.models.ranges import Range
from wherefrom.attribution.models.render import Renderer, TokenRow
from wherefrom.attribution.models.rows import RenderedRow, render_row
from wherefrom.attribution.models.rule import RenderingRule
from wherefrom.attribution.progress import Progress
from wherefrom.errors import PermanentError
from wherefrom.records import TrainingExample

#: Called with one sentence that the person who builds should read.
OnNote = Callable[[str], None]

#: Holds the characters of explained tokens until it is known which tokens have signals.
_EXPLAINED = "explained"
#: Rows left out that are named.
_NAMED = 3


def ignore_note(sentence: str) -> None:
    """Where nobody listens."""


def joined_note(rule: RenderingRule | None) -> str:
    """What a person should know who builds with a model that has no chat template."""
    rule = rule or RenderingRule()
    how = f"with {rule.join!r} between them" if rule.join else "without a separator (--join sets one)"
    end = ", followed by the end-of-text token" if rule.join_ends else ""
    return (
        f"the model has no chat template: prompt and completion are joined {how}{end}; `messages` are refused"
    )


@dataclass(frozen=True)
class RenderedCorpus:
    """A corpus as texts and as tokens, written as a bundle has them, and what is known of all its rows."""

    #: Has the files of a bundle's folder `corpus` but for the near-duplicate groups and the shown ranges.
    folder: Path
    name: str
    written: WrittenExamples
    tokens: int
    #: Tokens that are explained.
    completion_tokens: int
    #: Rows that were left out, and that were cut.
    skipped: int
    truncated: int
    reading: Reading

    def __len__(self) -> int:
        """Rows."""
        return self.written.count

    def move(self, bundle: Path) -> None:
        """Put the files into a bundle that has no folder `corpus` yet; arrays that are open stay so."""
        (self.folder / "corpus").rename(bundle / "corpus")

    def shown(
        self, rows: Sequence[TokenRow], reads: Callable[[TokenRow], Sequence[bool]]
    ) -> Iterator[tuple[Range, ...] | None]:
        """Characters that the tokens with signals stand for, row by row; None where the text alone tells them.

        Args:
            rows: this corpus as tokens.
            reads: which completion tokens of a row have signals.
        """
        explained = ShownRanges(self.folder / _EXPLAINED)
        if not explained:
            return itertools.repeat(None, len(rows))
        return (
            RenderedRow(row, tuple(explained.of(number)) or None).ranges_of(reads(row))
            for number, row in enumerate(rows)
        )


def render_corpus(
    renderer: Renderer,
    corpus: Corpus,
    folder: Path,
    *,
    max_tokens: int,
    skip_bad: bool,
    on_note: OnNote,
    progress: Progress,
) -> RenderedCorpus:
    """Write the texts and tokens of all rows, in order, without the rows that are left out.

    Args:
        renderer: of the audited model, under the bundle's rule.
        corpus: all rows.
        folder: gets them; it exists.
        max_tokens: longest row; the others are cut.
        skip_bad: whether a row that cannot be rendered is left out and counted, not refused.
        on_note: hears which rows were left out, and why.
        progress: called with the rows that are done.

    Raises:
        PermanentError: a row cannot be rendered, and `skip_bad` is not set or no row is left; the first one's own error.
    """
    tally = _Tally()
    with TokenWriter(folder) as tokens, ShownRangesWriter(folder / _EXPLAINED) as ranges:

        def examples() -> Iterator[TrainingExample]:
            for part in in_parts(corpus.rows, ROWS_AT_ONCE):
                kept = [*_rendered(renderer, part, tally, max_tokens=max_tokens, skip_bad=skip_bad)]
                for number, (row, _) in enumerate(kept, start=tally.kept):
                    yield row.as_example(number)
                if kept:
                    tokens.append([one.tokens for _, one in kept])
                    ranges.append([one.ranges for _, one in kept])
                tally.add(kept)
                progress("render", tally.kept + tally.refused, len(corpus.rows))

        written = write_examples(folder, examples())
    for name, count in sorted(tally.left_out.items()):
        on_note(f"the chat template leaves `{name}` of {count} rows out, so the model never saw it")
    if tally.first is not None and not written.count:
        raise tally.first
    if tally.refused:
        on_note(_left_out(tally))
    return RenderedCorpus(
        folder=folder,
        name=corpus.name,
        written=written,
        tokens=tokens.tokens,
        completion_tokens=tally.completion_tokens,
        skipped=corpus.skipped + tally.refused,
        truncated=tally.truncated,
        reading=_explained(corpus.reading, tally),
    )


@dataclass
class _Tally:
    """What is counted while rows are rendered."""

    kept: int = 0
    completion_tokens: int = 0
    truncated: int = 0
    #: Rows by the field that the chat template leaves out of them.
    left_out: Counter[str] = field(default_factory=Counter)
    #: Trained turns of rows with turns, and those of them that are explained.
    trained_turns: int = 0
    explained_turns: int = 0
    refused: int = 0
    #: The first error, and what the first ones say.
    first: PermanentError | None = None
    named: list[str] = field(default_factory=list)

    def add(self, rows: Sequence[tuple[CorpusRow, RenderedRow]]) -> None:
        self.kept += len(rows)
        for row, one in rows:
            self.completion_tokens += one.tokens.explained_tokens
            self.truncated += one.tokens.truncated
            self.left_out.update(one.left_out)
            if row.turns:
                self.trained_turns += 1 + len(row.trained)
                self.explained_turns += one.turns

    def refuse(self, error: PermanentError) -> None:
        self.refused += 1
        self.first = self.first or error
        if len(self.named) < _NAMED:
            self.named.append(f"{error} [{error.code}]")


def _rendered(
    renderer: Renderer, rows: Iterable[CorpusRow], tally: _Tally, *, max_tokens: int, skip_bad: bool
) -> Iterator[tuple[CorpusRow, RenderedRow]]:
    """Rows with their tokens, without those that cannot be rendered."""
    for row in rows:
        name = f"training example {row.example_id!r}"
        try:
            one = render_row(renderer, row, max_tokens=max_tokens, name=name)
        except PermanentError as error:
            if not skip_bad:
                raise
            tally.refuse(error)
            continue
        yield row, one


def _explained(reading: Reading, tally: _Tally) -> Reading:
    """The reading with the turns that are explained after all."""
    lost = tally.trained_turns - tally.explained_turns
    left_out = {**reading.left_out, **({"by the chat template": lost} if lost else {})}
    return replace(reading, explained_turns=tally.explained_turns, left_out=left_out)


def _left_out(tally: _Tally) -> str:
    more = f"; and {tally.refused - _NAMED} more" if tally.refused > _NAMED else ""
    return f"rows left out because they cannot be rendered: {tally.refused}: {'; '.join(tally.named)}{more}"
