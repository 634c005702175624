r"""Metrics of provenance: does a ranking of the training examples find those of the source that taught a query?

For one query with relevant rows R (rows of its true source) and rows z_1, z_2, ... in the order of a method's scores:

    precision@k = |{z_1 ... z_k} n R| / min(k, |R|)                    1 = as many as the corpus allows
    AUPRC       = average precision = 1/|R| sum_{i : z_i in R} |{z_1 ... z_i} n R| / i

Ties are broken by corpus order (corpora are shuffled).
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from wherefrom.attribution.ranking_metrics import Matrix, best_rows
from wherefrom.evaluation.estimates import Values

Flags = npt.NDArray[np.bool_]


def precision_at(scores: Matrix, relevant: Flags, count: int) -> Values:
    """Precision@count of each query, counted against what the corpus allows.

    Args:
        scores: `[Q, N]`, larger = ranked earlier.
        relevant: `[Q, N]`; each query has at least one relevant row.
        count: length of the list that is looked at.

    Returns:
        `[Q]` in [0, 1].
    """
    hits = np.take_along_axis(relevant, best_rows(scores, count), axis=1).sum(axis=1)
    found: Values = hits / np.minimum(count, relevant.sum(axis=1))
    return found


def average_precision(scores: Matrix, relevant: Flags) -> Values:
    """Area under the precision-recall curve of each query, `[Q]` in (0, 1]; arguments as in `precision_at`."""
    sorted_flags = np.take_along_axis(relevant, best_rows(scores, scores.shape[1]), axis=1)
    precision = sorted_flags.cumsum(axis=1) / np.arange(1, scores.shape[1] + 1)
    area: Values = (precision * sorted_flags).sum(axis=1) / relevant.sum(axis=1)
    return area


def share_at(scores: Matrix, flagged: Flags, count: int) -> Values:
    """Share of each query's `count` best rows that are flagged, `[Q]`; `flagged` is `[N]`."""
    share: Values = flagged[best_rows(scores, count)].mean(axis=1)
    return share


def source_precision(
    scores: Matrix, wanted: Sequence[str | None], sources: Sequence[str], count: int
) -> float:
    """Mean share of the `count` best rows that come from the source that taught each query; NaN where none has a known source.

    Args:
        scores: `[Q, N]`.
        wanted: source of each query; those without one are left out.
        sources: source of each training example.
        count: length of the list that is looked at.
    """
    named = np.array(sources)
    shares = [
        float(share_at(np.asarray(row)[None], named == name, count)[0])
        for row, name in zip(scores, wanted, strict=True)
        if name is not None
    ]
    return float(np.mean(shares)) if shares else float("nan")


def overlap_at(one: Matrix, other: Matrix, count: int) -> float:
    """Mean share of the `count` best rows of one method `[Q, N]` that are among the other's."""
    pairs = zip(best_rows(one, count), best_rows(other, count), strict=True)
    return float(np.mean([np.isin(row, held).mean() for row, held in pairs]))
