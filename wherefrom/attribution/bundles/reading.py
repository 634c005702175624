"""How a bundle's corpus was read, as the manifest states it, so that whatever reads the corpus again reads the same examples."""

from wherefrom.attribution.bundles.manifest import CorpusEntry, ReadingEntry
from wherefrom.attribution.bundles.rendering import RenderedCorpus
from wherefrom.attribution.corpus.rows import ReadAs, Reading, Turns
from wherefrom.attribution.learning import Learning


def corpus_entry(corpus: RenderedCorpus, learning: Learning | None) -> CorpusEntry:
    """What the manifest says of the corpus.

    Args:
        corpus: as texts and tokens.
        learning: whether the model has learned it, where that was checked.
    """
    return CorpusEntry(
        name=corpus.name,
        sha256=corpus.written.sha256,
        examples=len(corpus),
        tokens=corpus.tokens,
        completion_tokens=corpus.completion_tokens,
        skipped=corpus.skipped,
        not_learned=None if learning is None else learning.not_learned,
        truncated=corpus.truncated,
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
