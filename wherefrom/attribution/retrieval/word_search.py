r"""The best rows by the sum of their words' scores, without an array over all rows (MaxScore: Turtle & Flood 1995).

    s(z) = sum_w S[w, z]         S: score of a word in a row, precomputed, sparse; only rows that have the word

Words are taken by the most that each can add, which is large for rare ones. Their rows are gathered and added up. As soon as the words that are left could not lift any other row above
the `count`-th best so far, no other row can be among the best, and common words' long lists are never walked. What remains is a short list of rows, scored exactly.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from wherefrom.attribution.retrieval.index import Rows

Scores = npt.NDArray[np.float32]

#: What float32 sums of up to some hundred scores may differ by, as a share.
_ROUNDING = 1e-4


@dataclass(frozen=True, eq=False)
class Postings:
    """S by word: compressed sparse columns, mapped."""

    #: Scores `[E]` and their rows `[E]`, ascending within a word.
    data: Scores
    indices: npt.NDArray[np.int32]
    #: Where each word begins, `[W + 1]`.
    starts: npt.NDArray[np.int32]
    rows: int

    def of(self, word: int) -> tuple[npt.NDArray[np.int32], Scores]:
        """Rows that have a word, and its scores there."""
        part = slice(int(self.starts[word]), int(self.starts[word + 1]))
        return self.indices[part], self.data[part]

    @cached_property
    def highest(self) -> Scores:
        """The most that each word adds to a row, `[W]`; read once over all entries."""
        highest = np.zeros(len(self.starts) - 1, dtype=np.float32)
        filled = np.flatnonzero(np.diff(self.starts))
        if len(filled):
            highest[filled] = np.maximum.reduceat(self.data, self.starts[filled])
        return highest


def scores_of(postings: Postings, words: Sequence[int], rows: Rows) -> Scores:
    """Sums of the scores of words, with repetitions and in their order, in the given rows, `[K]`."""
    total = np.zeros(len(rows), dtype=np.float32)
    for word in words:
        holding, scores = postings.of(word)
        at = np.searchsorted(holding, rows)
        there = at < len(holding)
        there[there] = holding[at[there]] == rows[there]
        total[there] += scores[at[there]]
    return total


def could_be_best(postings: Postings, words: Sequence[int], count: int) -> Rows:
    """Rows that hold a word and could be among the `count` best by the sum over all words, ascending."""
    distinct, times = np.unique(np.asarray(words, dtype=np.int64), return_counts=True)
    most = postings.highest[distinct] * times
    order = np.argsort(-most, kind="stable")
    left = np.append(most[order][::-1].cumsum()[::-1], 0.0)  # what the words from each place on can add
    rows, sums = np.zeros(0, np.int64), np.zeros(0, np.float32)
    least = 0.0
    for place, at in enumerate(order):
        if len(rows) >= count and left[place] < least * (1 - _ROUNDING):
            return _at_least(rows, sums + left[place], least)
        holding, scores = postings.of(int(distinct[at]))
        rows, sums = _merged(rows, sums, holding.astype(np.int64), scores * np.float32(times[at]))
        if len(rows) >= count:
            least = float(np.partition(sums, len(sums) - count)[-count])
    return _at_least(rows, sums, least)


def _at_least(rows: Rows, sums: Scores, least: float) -> Rows:
    found: Rows = rows[sums >= least * (1 - _ROUNDING)]
    return found


def _merged(rows: Rows, sums: Scores, more: Rows, scores: Scores) -> tuple[Rows, Scores]:
    """Two ascending lists of rows as one, the sums of those that stand in both added."""
    every = np.union1d(rows, more)
    total = np.zeros(len(every), dtype=np.float32)
    total[np.searchsorted(every, rows)] += sums
    total[np.searchsorted(every, more)] += scores
    return every, total
