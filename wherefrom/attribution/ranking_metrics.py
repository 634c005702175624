"""Metrics of attribution against measured ground truth: linear datamodelling score and recall of known causes.

The linear datamodelling score (LDS; Park et al., arXiv:2303.14186) of a method is the mean over queries of the Spearman correlation, over
retrained models, between the sum of its scores over the examples a model was trained on and the query's negative loss under that model.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float32]


def ranks(values: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Average ranks along the last axis, ties shared."""
    order = np.argsort(values, axis=-1, kind="stable")
    ascending = np.take_along_axis(values, order, axis=-1)
    edge = np.ones((*values.shape[:-1], 1), dtype=np.bool_)
    new = np.concatenate([edge, ascending[..., 1:] != ascending[..., :-1]], axis=-1)  # where ties begin
    end = np.concatenate([new[..., 1:], edge], axis=-1)
    places = np.arange(values.shape[-1])
    first = np.maximum.accumulate(np.where(new, places, 0), axis=-1)
    last = np.minimum.accumulate(np.where(end, places, len(places))[..., ::-1], axis=-1)[..., ::-1]
    out = np.empty(values.shape)
    np.put_along_axis(out, order, (first + last) / 2 + 1, axis=-1)
    return out


def spearman_rows(one: npt.NDArray[np.floating], other: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Spearman correlation of each row of two arrays `[Q, M]`; 0 where a row does not vary."""
    first, second = ranks(one), ranks(other)
    first = first - first.mean(axis=1, keepdims=True)
    second = second - second.mean(axis=1, keepdims=True)
    scale = np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
    products: npt.NDArray[np.float64] = (first * second).sum(axis=1)
    correlations: npt.NDArray[np.float64] = np.divide(
        products, scale, out=np.zeros_like(products), where=scale > 0
    )
    return correlations


def lds(scores: Matrix, kept: npt.NDArray[np.bool_], losses: Matrix) -> npt.NDArray[np.float64]:
    """Linear datamodelling score of each query.

    Args:
        scores: `[Q, N]`, positive = proponent.
        kept: `[M, N]`, which examples each retrained model saw.
        losses: `[M, Q]` loss of each query under each retrained model, nats.

    Returns:
        `[Q]`; their mean is the method's LDS.
    """
    predicted = scores @ kept.T.astype(np.float32)  # [Q, M]
    return spearman_rows(predicted, -losses.T)


def best_rows(scores: Matrix, count: int) -> npt.NDArray[np.int64]:
    """Rows of the `count` best scores of each query, `[Q, count]`, the best first; equal scores in corpus order."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :count]


def recall_at(scores: Matrix, gold: Sequence[Sequence[int]], count: int) -> float:
    """Share of the queries with known causes that have one of them among the `count` best scores."""
    known = [(best, causes) for best, causes in zip(best_rows(scores, count), gold, strict=True) if causes]
    if not known:
        return float("nan")
    return float(np.mean([not set(causes).isdisjoint(best.tolist()) for best, causes in known]))
