r"""The heads against measured ground truth: LDS with its ceiling, recall of known causes, and what search loses against exhaustive scoring.

    LDS       = mean_q rho_m( sum_{z in S_m} score(q, z), -loss_m(q) )                 rho: Spearman over retrained models m
    ceiling   = sqrt( mean_q rho_m( loss_m(q), loss'_m(q) ) )                          loss': models retrained on the same subsets with another seed
    recall@k  = share of queries with a known cause that have it, or a near-duplicate of it, among the k best

A score that predicts the expected loss perfectly still misses each model's noise of training; its LDS is the square root of the reliability of the
losses (attenuation, Spearman 1904). Intervals of LDS resample models and queries together.

References:
    arXiv:2303.14186 (LDS).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wherefrom.attribution.groups import Groups
from wherefrom.attribution.ranking_metrics import Matrix, best_rows, spearman_rows
from wherefrom.attribution.retrieval.index import ExactIndex, VectorIndex, Vectors
from wherefrom.errors import ConfigurationError
from wherefrom.evaluation.estimates import Estimate, mean_of, middle, resampled_together

#: Ranks up to which recall is given.
DEEPEST = 10
#: Fewest subsets that both banks must share.
_FEWEST_COMMON = 3

Ranks = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class BankTruth:
    """Losses of retrained models."""

    #: `[M, N]`
    kept: npt.NDArray[np.bool_]
    #: `[M, Q]`, nats.
    losses: Matrix

    def check(self, *, examples: int, queries: int) -> None:
        """Refuse a bank of another corpus or of other queries.

        Raises:
            ConfigurationError: the counts differ.
        """
        if self.kept.shape[1] != examples or self.losses.shape[1] != queries:
            raise ConfigurationError(
                f"the bank has {self.kept.shape[1]} training examples and {self.losses.shape[1]} queries. The bundle has {examples} examples "
                f"and the file of queries {queries}. Give the bank that was made with this corpus and this file"
            )


def lds_estimates(heads: Mapping[str, Matrix], truth: BankTruth, *, made_of: str) -> dict[str, Estimate]:
    """LDS of each head; all heads are resampled alike."""
    summed = {name: scores @ truth.kept.T.astype(np.float32) for name, scores in heads.items()}  # [Q, M]
    rise = -truth.losses.T  # [Q, M]
    models, queries = len(truth.kept), truth.losses.shape[1]
    drawn: dict[str, list[float]] = {name: [] for name in heads}
    for some, chosen in resampled_together(models, queries):
        for name, one in summed.items():
            correlations = spearman_rows(one[np.ix_(chosen, some)], rise[np.ix_(chosen, some)])
            drawn[name].append(float(correlations.mean()))
    return {
        name: Estimate(
            float(spearman_rows(one, rise).mean()),
            middle(drawn[name]),
            queries,
            f"queries, {models} retrained models",
            made_of,
        )
        for name, one in summed.items()
    }


def ceiling_estimate(bank: BankTruth, repeat: BankTruth, *, made_of: str) -> Estimate:
    """The highest LDS that the noise of training allows, from subsets that both banks hold.

    Raises:
        ConfigurationError: the banks share too few subsets, or their losses do not agree at all.
    """
    places = {row.tobytes(): index for index, row in enumerate(bank.kept)}
    pairs = [
        (places[row.tobytes()], index) for index, row in enumerate(repeat.kept) if row.tobytes() in places
    ]
    if len(pairs) < _FEWEST_COMMON or bank.losses.shape[1] != repeat.losses.shape[1]:
        raise ConfigurationError(
            f"the repeated bank shares {len(pairs)} subsets with the bank ({_FEWEST_COMMON} are needed) and has {repeat.losses.shape[1]} queries, "
            f"not {bank.losses.shape[1]}. Retrain the same subsets with another seed, and ask the same queries"
        )
    first, second = (np.array(one) for one in zip(*pairs, strict=True))
    agreement = spearman_rows(bank.losses[first].T, repeat.losses[second].T)  # [Q]
    mean = mean_of(agreement, f"queries, {len(pairs)} subsets retrained twice", made_of)
    if mean.value <= 0 or mean.interval is None:
        raise ConfigurationError(
            "the two banks' losses do not agree at all; check that both were made with the same recipe"
        )
    low, high = (float(np.sqrt(max(one, 0.0))) for one in mean.interval)
    return Estimate(float(np.sqrt(mean.value)), (low, high), mean.count, mean.unit, made_of)


def cause_ranks(scores: Matrix, gold: Sequence[Sequence[int]], groups: Groups) -> Ranks:
    """Best rank, from 1, of a known cause or of a near-duplicate of one, per query that has a known cause.

    Args:
        scores: `[Q, N]`.
        gold: corpus rows of the known causes of each query; empty where they are not known.
        groups: near-duplicate group of each training example, `[N]`.
    """
    found = []
    for row, causes in zip(scores, gold, strict=True):
        if causes:
            cause = np.isin(groups, groups[np.asarray(causes, dtype=np.int64)])
            found.append(1 + int(np.argmax(cause[np.argsort(-row, kind="stable")])))
    return np.array(found, dtype=np.int64)


def recall_estimates(ranks: Mapping[str, Ranks], *, made_of: str) -> dict[str, Estimate]:
    """Recall@1 and @10 of each head."""
    return {
        f"recall@{count}, {name}": mean_of(some <= count, "outputs with a known cause", made_of)
        for name, some in ranks.items()
        for count in (1, DEEPEST)
    }


def recall_curve(ranks: Mapping[str, Ranks]) -> dict[str, list[float]]:
    """Recall@1 to @10 of each head."""
    return {
        name: [float((some <= count).mean()) for count in range(1, DEEPEST + 1)]
        for name, some in ranks.items()
    }


def best_held(exact: Matrix, candidates: Sequence[npt.NDArray[np.int64]]) -> npt.NDArray[np.bool_]:
    """Whether the candidates hold each of the ten best examples by exact influence, `[Q, 10]`, the best first."""
    best = best_rows(exact, DEEPEST)
    return np.stack([np.isin(top, rows) for top, rows in zip(best, candidates, strict=True)])


def candidates_hold(
    exact: Matrix, candidates: Sequence[npt.NDArray[np.int64]], *, unit: str, made_of: str
) -> dict[str, Estimate]:
    """Share of the exact top-1 and top-10 by influence that the candidates hold."""
    held = best_held(exact, candidates)
    share = f"candidates are {np.mean([len(rows) for rows in candidates]) / exact.shape[1]:.1%} of the corpus"
    return {
        "candidates hold the exact top-1": mean_of(held[:, 0], unit, made_of, note=share),
        "candidates hold the exact top-10": mean_of(held.mean(axis=1), unit, made_of, note=share),
    }


def search_recall(
    index: VectorIndex, vectors: Vectors, queries: Vectors, count: int
) -> npt.NDArray[np.float64]:
    """Share of the exhaustive search's `count` nearest that the index returns, per query, `[Q]`.

    Args:
        index: the approximate one.
        vectors: what it holds, `[N, P]`.
        queries: `[Q, P]`.
        count: how many neighbours.
    """
    exhaustive = ExactIndex(vectors)
    shares = [
        np.isin(exhaustive.search(query, count)[0], index.search(query, count)[0]).mean() for query in queries
    ]
    return np.array(shares, dtype=np.float64)
