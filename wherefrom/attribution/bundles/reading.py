"""How a bundle's corpus was read, as the manifest states it, so that whatever reads the corpus again reads the same examples."""

from collections.abc import Sequence

from wherefrom.attribution.bundles.manifest import CorpusEntry, ReadingEntry
from wherefrom.attribution.corpus.rows import Corpus, ReadAs, Reading, Turns
from wherefrom.attribution.learning import Learning
from wherefrom.attribution.models.render import TokenRow


def corpus_entry(corpus: Corpus, rows: Sequence[TokenRow], learning: Learning | None) -> CorpusEntry:
    """What the manifest says of the corpus.

    Args:
        corpus: its rows as texts.
        rows: the same as tokens.
        learning: whether the model has learned it, where that was checked.
    """
    return CorpusEntry(
        name=corpus.name,
        sha256=corpus.sha256,
        examples=len(rows),
        tokens=sum(len(row.ids) for row in rows),
        completion_tokens=sum(row.explained_tokens for row in rows),
        skipped=corpus.skipped,
        not_learned=None if learning is None else learning.not_learned,
        truncated=sum(row.truncated for row in rows),
        reading=reading_entry(corpus.reading),
    )


def reading_entry(reading: Reading) -> ReadingEntry:
    """What the manifest says of it."""
    return ReadingEntry(
        turns=reading.how.turns.value,
        format=reading.how.dialect,
        split=reading.how.split,
        formats=dict(reading.dialects),
        explained_turns=reading.explained_turns,
        left_out=dict(reading.left_out),
        untrained_rows=reading.untrained_rows,
    )


def read_as(entry: ReadingEntry | None) -> ReadAs:
    """How to read the corpus of a bundle again; bundles of earlier releases explain the last turn alone."""
    if entry is None:
        return ReadAs(turns=Turns.LAST)
    return ReadAs(turns=Turns(entry.turns), dialect=entry.format, split=entry.split)
