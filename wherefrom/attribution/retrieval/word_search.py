r"""The best rows by the sum of their words' scores, without an array over all rows (after MaxScore: Turtle & Flood 1995).

    s(z) = sum_w S[w, z]         S: score of a word in a row, precomputed, sparse; only rows that have the word

Some rows of rare words are scored first: as many as are wanted reach a score, which the best ones need as well. Words so common that all of them together add little to it are set aside. The
lists of the others are added up block by block of the corpus, and only rows that could still be among the best are kept. These few are scored exactly.
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
#: Rows whose sums are held at once.
BLOCK_ROWS = 65_536
#: Share of the score to reach that the words which are set aside may add together.
_WEAK = 0.15
#: How many times as many rows as are wanted are taken of one rare word.
_FIRST = 4


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
        at = _places(holding, rows)
        there = at < len(holding)
        there[there] = holding[at[there]] == rows[there]
        total[there] += scores[at[there]]
    return total


def could_be_best(postings: Postings, words: Sequence[int], count: int) -> Rows:
    """Rows that hold a word and could be among the `count` best by the sum over all words, ascending.

    Args:
        postings: of the corpus.
        words: with repetitions.
        count: how many are wanted.
    """
    distinct, times = np.unique(np.asarray(words, dtype=np.int64), return_counts=True)
    least = 0.0
    if postings.rows > BLOCK_ROWS:  # else adding everything up costs less than knowing what could be left out
        least = _reached(postings, words, _rows_of_rare(postings, distinct, count), count)
    most = postings.highest[distinct].astype(np.float64) * times
    order = np.argsort(most, kind="stable")
    lifting = most[order].cumsum()
    weak = int(np.searchsorted(lifting, _WEAK * least))  # words that decide nothing together
    lifted = float(lifting[weak - 1]) if weak else 0.0
    strong = [(int(distinct[at]), np.float32(times[at])) for at in order[weak:]]
    parts = [
        _summed(postings, strong, first, least=least * (1 - _ROUNDING) - lifted)
        for first in range(0, postings.rows, BLOCK_ROWS)
    ]
    rows, sums = (np.concatenate(one) for one in zip(*parts, strict=True))
    if len(rows) > count:
        leading = np.argpartition(-sums, count - 1)[:count]
        reached = _reached(postings, words, rows[leading], count) if weak else float(sums[leading].min())
        least = max(least, reached)
    found: Rows = rows[sums + lifted >= least * (1 - _ROUNDING)]
    return found


def _rows_of_rare(postings: Postings, distinct: Rows, count: int) -> Rows:
    """At least `count` rows that hold one of the rarest words, where there are as many."""
    holding = np.asarray(postings.starts[distinct + 1]) - np.asarray(postings.starts[distinct])
    rows = np.zeros(0, np.int64)
    for at in np.argsort(holding, kind="stable"):
        if len(rows) >= count:
            break
        rows = np.union1d(rows, postings.of(int(distinct[at]))[0][: _FIRST * count])
    return rows


def _reached(postings: Postings, words: Sequence[int], rows: Rows, count: int) -> float:
    """The score that `count` of some rows have at least; 0 where there are fewer."""
    if len(rows) < count:
        return 0.0
    return float(np.partition(scores_of(postings, words, rows), len(rows) - count)[-count])


def _summed(
    postings: Postings, words: Sequence[tuple[int, np.float32]], first: int, *, least: float
) -> tuple[Rows, Scores]:
    """Rows of one block whose sum over some words, each with how often it counts, is above 0 and at least `least`, and these sums."""
    sums = np.zeros(min(BLOCK_ROWS, postings.rows - first), dtype=np.float32)
    for word, times in words:
        holding, scores = postings.of(word)
        start, end = _places(holding, np.array([first, first + len(sums)]))
        sums[holding[start:end] - first] += scores[start:end] * times  # a row stands once in a word's list
    kept = np.flatnonzero((sums > 0) & (sums >= least))
    return kept + first, sums[kept]


def _places(holding: npt.NDArray[np.int32], rows: Rows) -> Rows:
    """Where rows stand in the ascending list of a word. NumPy would turn the whole list, which is mapped, into the type of the rows."""
    found: Rows = np.searchsorted(holding, rows.astype(holding.dtype))
    return found
