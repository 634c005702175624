r"""Runs of words that an output and a training example have in common: a mark for copying, no part of any score.

Greedy string tiling (Wise, 1993: "String similarity via greedy string tiling and running Karp-Rabin matching"): with x and y the case-folded words of
both texts, the longest run x[i:i+n] = y[j:j+n] of words not marked yet is taken and marked on both sides, until none of `LEAST_WORDS`
words or `LEAST_CHARACTERS` characters is left. Punctuation, white space and case do not count. A run is a stretch of one diagonal of the
matrix of equal words; only its equal pairs are looked at.
"""

import numpy as np

from wherefrom.attribution.explanation.passage import Integers, Passage
from wherefrom.records import Overlap, Span

#: A run needs one of the two; shorter ones are everyday phrases.
LEAST_WORDS = 4
LEAST_CHARACTERS = 20


def overlaps(output: Passage, example: Passage) -> tuple[Overlap, ...]:
    """Common runs of words, longest first, disjoint in both texts; ties are taken in the order of the output, then of the example."""
    pairs = _equal_pairs(output, example)
    found = []
    while len(pairs):
        runs = _runs(pairs)  # [R, 3]
        characters = output.words[runs[:, 0] + runs[:, 2] - 1, 1] - output.words[runs[:, 0], 0]
        runs = runs[(runs[:, 2] >= LEAST_WORDS) | (characters >= LEAST_CHARACTERS)]
        if not len(runs):
            break
        first, other, count = runs[np.lexsort((runs[:, 1], runs[:, 0], -runs[:, 2]))[0]].tolist()
        found.append(
            Overlap(output=_span(output, first, count), example=_span(example, other, count), tokens=count)
        )
        marked = ((pairs[:, 0] >= first) & (pairs[:, 0] < first + count)) | (
            (pairs[:, 1] >= other) & (pairs[:, 1] < other + count)
        )
        pairs = pairs[~marked]
    return tuple(found)


def _equal_pairs(output: Passage, example: Passage) -> Integers:
    """Places (i, j) of equal words, `[E, 2]`, sorted along the diagonals."""
    places = [
        (first, second) for second, key in enumerate(example.keys) for first in output.places.get(key, ())
    ]
    table = np.array(places, dtype=np.int64).reshape(-1, 2)
    return table[np.lexsort((table[:, 0], table[:, 1] - table[:, 0]))]


def _runs(pairs: Integers) -> Integers:
    """Maximal runs (i, j, words) of pairs sorted along the diagonals, `[R, 3]`."""
    goes_on = (np.diff(pairs, axis=0) == 1).all(axis=1)
    starts = np.concatenate([[0], np.flatnonzero(~goes_on) + 1])
    counts = np.diff(np.concatenate([starts, [len(pairs)]]))
    return np.column_stack([pairs[starts], counts])


def _span(passage: Passage, first: int, count: int) -> Span:
    return Span(start=int(passage.words[first, 0]), end=int(passage.words[first + count - 1, 1]))
