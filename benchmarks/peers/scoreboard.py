"""Accuracy of every method on the same draws: LDS and recall with bootstrap intervals over retrained models and queries.

Each draw takes M retrained models and Q queries with replacement, and the same draws serve all methods, so that differences between methods are
paired. Models that are drawn several times tie with themselves, so with w_m the times that model m is drawn

    rank_m = (sum of w over smaller values) + (sum of w over equal values + 1) / 2

and Spearman's correlation is the w-weighted correlation of these ranks: exactly what `ranking_metrics.lds` gives for the repeated models, without sorting
anew in each draw.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wherefrom.attribution.ranking_metrics import Matrix, spearman_rows
from wherefrom.evaluation.truth import BankTruth

DRAWS = 1000
_SEED = 11

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Draws:
    """How often each retrained model and each query is taken in each draw."""

    models: Floats  # [B, M]
    queries: Floats  # [B, Q]

    @classmethod
    def of(cls, truth: BankTruth, count: int = DRAWS) -> "Draws":
        """Draws for a folder; the same seed for all methods."""
        generator = np.random.default_rng(_SEED)
        models, queries = truth.losses.shape
        return cls(
            generator.multinomial(models, np.full(models, 1 / models), size=count).astype(float),
            generator.multinomial(queries, np.full(queries, 1 / queries), size=count).astype(float),
        )


def lds_draws(scores: Matrix, truth: BankTruth, draws: Draws) -> Floats:
    """LDS of each draw, `[B]`."""
    predicted = _ordered(scores @ truth.kept.T.astype(np.float32))
    measured = _ordered(-truth.losses.T)
    found = []
    for models, queries in zip(draws.models, draws.queries, strict=True):
        each = _weighted_correlation(_drawn_ranks(predicted, models), _drawn_ranks(measured, models), models)
        found.append(float(each @ queries / queries.sum()))
    return np.array(found)


def agreement(one: Matrix, other: Matrix) -> dict[str, float]:
    """Spearman per query of two methods' scores over the corpus: mean and smallest."""
    each = spearman_rows(one, other)
    return {"spearman_mean": float(each.mean()), "spearman_min": float(each.min())}


@dataclass(frozen=True)
class _Ordered:
    """Rows of values in rising order; all `[Q, M]`."""

    order: npt.NDArray[np.int64]
    #: First and last place of the values that equal the one at a place.
    first: npt.NDArray[np.int64]
    last: npt.NDArray[np.int64]


def _ordered(values: Matrix) -> _Ordered:
    order = np.argsort(values, axis=1, kind="stable")
    rising = np.take_along_axis(values, order, axis=1)
    first = np.stack([np.searchsorted(row, row, side="left") for row in rising])
    last = np.stack([np.searchsorted(row, row, side="right") - 1 for row in rising])
    return _Ordered(order, first, last)


def _drawn_ranks(values: _Ordered, weights: Floats) -> Floats:
    """Average ranks of the drawn models, `[Q, M]`."""
    taken = weights[values.order]  # [Q, M]
    upto = np.cumsum(taken, axis=1)
    below = np.take_along_axis(upto - taken, values.first, axis=1)
    within = np.take_along_axis(upto, values.last, axis=1) - below
    found = np.empty_like(upto)
    np.put_along_axis(found, values.order, below + (within + 1) / 2, axis=1)
    return found


def _weighted_correlation(one: Floats, other: Floats, weights: Floats) -> Floats:
    total = weights.sum()
    first = one - (one @ weights / total)[:, None]
    second = other - (other @ weights / total)[:, None]
    scale = np.sqrt((first**2 @ weights) * (second**2 @ weights))
    products: Floats = (first * second) @ weights
    found: Floats = np.divide(products, scale, out=np.zeros_like(products), where=scale > 0)
    return found
