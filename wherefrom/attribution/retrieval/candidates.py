"""First stage: which training examples the exact form should look at.

Four lists are merged, five with a sentence encoder: nearest in projected space (proponents), nearest to the negated vector (opponents are not near the
query), most similar hidden states, best BM25, nearest in the encoder's space. The projection gets most places, because it alone approximates the exact score; the others bring known
causes that the projection loses.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from wherefrom.attribution.retrieval.index import Rows, VectorIndex, Vectors
from wherefrom.attribution.retrieval.lexical import LexicalIndex

#: Places of each list in one round of the merge.
_TURNS = {"projection": 6, "encoder": 2, "similarity": 2, "bm25": 2, "opponents": 1}


@dataclass(frozen=True)
class Candidates:
    """Candidates of one query with the scores of the first stage."""

    rows: Rows  # [C], distinct, in the order they were found
    bm25: Vectors  # [C]


def default_candidates(examples: int) -> int:
    """How many candidates a corpus gets: 5 %, at least 64 and at most 256."""
    return min(examples, max(64, min(256, examples // 20)))


@dataclass(frozen=True)
class Sought:
    """One query as the first stage sees it."""

    projected: Vectors  # [P]
    pooled: Vectors  # [D], centred unit mean hidden state
    texts: tuple[str, ...]  # prompt and completion, for BM25; of a group, those of each member
    encoded: Vectors | None = None  # [E], where the bundle has a sentence encoder


@dataclass(frozen=True)
class Indexes:
    """The corpus as the first stage searches it."""

    projected: VectorIndex
    #: Centred unit mean hidden states.
    similarity: VectorIndex
    lexical: LexicalIndex
    #: Vectors of the sentence encoder, where the bundle has one.
    encoded: VectorIndex | None = None


def find_candidates(query: Sought, indexes: Indexes, *, count: int) -> Candidates:
    """At most `count` candidates of one query; fewer in a smaller corpus."""
    lists = {
        "projection": indexes.projected.search(query.projected, count)[0],
        "opponents": indexes.projected.search(-query.projected, count)[0],
        "similarity": indexes.similarity.search(query.pooled, count)[0],
        "bm25": indexes.lexical.search(query.texts, count),
    }
    if indexes.encoded is not None and query.encoded is not None:
        lists["encoder"] = indexes.encoded.search(query.encoded, count)[0]
    rows = merge([(lists[name], turns) for name, turns in _TURNS.items() if name in lists], count)
    return Candidates(rows, indexes.lexical.scores_of(query.texts, rows))


def merge(lists: Sequence[tuple[Rows, int]], count: int) -> Rows:
    """Take `turns` new rows of each list in turn until `count` distinct rows are found or all lists are spent."""
    found: dict[int, None] = {}
    alive = [(iter(rows.tolist()), turns) for rows, turns in lists]
    while alive and len(found) < count:
        alive = [(rows, turns) for rows, turns in alive if _take(rows, min(turns, count - len(found)), found)]
    return np.fromiter(found, dtype=np.int64, count=len(found))


def _take(rows: Iterator[int], wanted: int, found: dict[int, None]) -> bool:
    """Add the next `wanted` rows that are new; False when the list is spent."""
    while wanted > 0:
        row = next(rows, None)
        if row is None:
            return False
        wanted -= row not in found
        found.setdefault(row)
    return True
