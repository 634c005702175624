r"""Metrics of provenance: does a ranking of the training examples find those of the source that taught a query?

For one query with relevant rows R (rows of its true source) and rows z_1, z_2, ... in the order of a method's scores:

    precision@k = |{z_1 ... z_k} n R| / min(k, |R|)                    1 = as many as the corpus allows
    AUPRC       = average precision = 1/|R| sum_{i : z_i in R} |{z_1 ... z_i} n R| / i

Ties are broken by corpus order (corpora are shuffled). Intervals are percentiles of the mean under resampling of the queries: they say
nothing about other corpora or other trainings. Near-duplicates: word n-gram sets A, B with Jaccard index |A n B| / |A u B| above a bound.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]
Values = npt.NDArray[np.float64]

#: Resamples behind an interval.
RESAMPLES = 1000


def precision_at(scores: Scores, relevant: Flags, count: int) -> Values:
    """Precision@count of each query, counted against what the corpus allows.

    Args:
        scores: `[Q, N]`, larger = ranked earlier.
        relevant: `[Q, N]`; each query has at least one relevant row.
        count: length of the list that is looked at.

    Returns:
        `[Q]` in [0, 1].
    """
    order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    hits = np.take_along_axis(relevant, order, axis=1).sum(axis=1)
    found: Values = hits / np.minimum(count, relevant.sum(axis=1))
    return found


def average_precision(scores: Scores, relevant: Flags) -> Values:
    """Area under the precision-recall curve of each query, `[Q]` in (0, 1]; arguments as in `precision_at`."""
    order = np.argsort(-scores, axis=1, kind="stable")
    sorted_flags = np.take_along_axis(relevant, order, axis=1)
    precision = sorted_flags.cumsum(axis=1) / np.arange(1, scores.shape[1] + 1)
    area: Values = (precision * sorted_flags).sum(axis=1) / relevant.sum(axis=1)
    return area


def share_at(scores: Scores, flagged: Flags, count: int) -> Values:
    """Share of each query's `count` best rows that are flagged, `[Q]`; `flagged` is `[N]`."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    share: Values = flagged[order].mean(axis=1)
    return share


def interval(values: Values, *, seed: int = 0, resamples: int = RESAMPLES) -> tuple[float, float, float]:
    """Mean over queries with its 95 % bootstrap interval: (mean, low, high); nan where there is no query."""
    if not len(values):
        return float("nan"), float("nan"), float("nan")
    drawn = np.random.default_rng(seed).integers(len(values), size=(resamples, len(values)))
    low, high = np.percentile(values[drawn].mean(axis=1), [2.5, 97.5])
    return float(values.mean()), float(low), float(high)


def shingles(text: str, length: int = 3) -> frozenset[tuple[str, ...]]:
    """The set of word n-grams of a text in lower case; a shorter text is one n-gram."""
    words = text.lower().split()
    if len(words) <= length:
        return frozenset({tuple(words)})
    return frozenset(tuple(words[at : at + length]) for at in range(len(words) - length + 1))


def nearest_overlap(texts: Sequence[str], others: Sequence[str]) -> Values:
    """Largest Jaccard index of each text's word 3-grams with those of any other text, `[len(texts)]` in [0, 1]."""
    stored = [shingles(text) for text in others]
    places: dict[tuple[str, ...], list[int]] = {}
    for index, grams in enumerate(stored):
        for gram in grams:
            places.setdefault(gram, []).append(index)
    best = np.zeros(len(texts))
    for row, text in enumerate(texts):
        grams = shingles(text)
        shared: dict[int, int] = {}
        for gram in grams:
            for index in places.get(gram, ()):
                shared[index] = shared.get(index, 0) + 1
        best[row] = max(
            (count / (len(grams) + len(stored[index]) - count) for index, count in shared.items()),
            default=0.0,
        )
    return best
