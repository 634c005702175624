"""Metrics against small oracles: LDS, ceiling, ranks of causes, what candidates hold, recall of a search."""

import numpy as np
import pytest

from wherefrom.attribution.retrieval.index import ExactIndex
from wherefrom.errors import ConfigurationError
from wherefrom.evaluation.estimates import bootstrap, mean_of
from wherefrom.evaluation.truth import (
    BankTruth,
    candidates_hold,
    cause_ranks,
    ceiling_estimate,
    lds_estimates,
    recall_curve,
    recall_estimates,
    search_recall,
)


def bank(models: int = 24, *, noise: float = 0.0, seed: int = 0) -> tuple[BankTruth, np.ndarray]:
    """Losses that fall by each kept example's effect, and the effects `[Q, N]`."""
    generator = np.random.default_rng(1)
    effects = generator.normal(size=(6, 30)).astype(np.float32)
    kept = generator.random((models, 30)) < 0.5
    losses = -(kept.astype(np.float32) @ effects.T)
    losses += noise * np.random.default_rng(seed).normal(size=losses.shape).astype(np.float32)
    return BankTruth(kept, losses), effects


def test_lds_of_the_truth_is_one_and_of_its_negative_minus_one() -> None:
    """Exact effects order the models as their losses do; the interval holds the value."""
    truth, effects = bank()
    found = lds_estimates({"right": effects, "wrong": -effects}, truth, made_of="bank")
    assert found["right"].value == pytest.approx(1.0)
    assert found["wrong"].value == pytest.approx(-1.0)
    noisy, _ = bank(noise=4.0)
    one = lds_estimates({"right": effects}, noisy, made_of="bank")["right"]
    assert one.interval is not None
    assert one.interval[0] < one.value < 0.95
    assert one.interval[0] < one.interval[1]
    assert one.count == 6


def test_ceiling_is_the_root_of_the_mean_agreement() -> None:
    """Models are matched by their subsets, whatever their order; the oracle is scipy-free Spearman by ranks."""
    first, _ = bank(noise=2.0, seed=5)
    second, _ = bank(noise=2.0, seed=6)
    order = np.random.default_rng(2).permutation(24)[:10]
    repeat = BankTruth(second.kept[order], second.losses[order])
    ranked = [np.argsort(np.argsort(one[order], axis=0), axis=0) for one in (first.losses, second.losses)]
    expected = np.mean([np.corrcoef(ranked[0][:, query], ranked[1][:, query])[0, 1] for query in range(6)])
    assert ceiling_estimate(first, repeat, made_of="banks").value == pytest.approx(np.sqrt(expected))


def test_ceiling_needs_the_same_subsets() -> None:
    """A bank of other subsets says nothing about noise."""
    first, _ = bank()
    with pytest.raises(ConfigurationError, match="shares 0 subsets"):
        ceiling_estimate(first, BankTruth(~first.kept, first.losses), made_of="banks")


def test_a_bank_of_another_corpus_is_refused() -> None:
    """The text gives both counts."""
    truth, _ = bank()
    with pytest.raises(ConfigurationError, match=r"30 training examples and 6 queries\. The bundle has 31"):
        truth.check(examples=31, queries=6)


def test_ranks_count_near_duplicates_as_the_cause() -> None:
    """The duplicate in row 2 stands first, the cause itself last; a query without a cause is left out."""
    scores = np.array([[0.1, 0.5, 0.9, 0.7], [4.0, 3.0, 2.0, 1.0], [0.0, 1.0, 0.0, 0.0]], dtype=np.float32)
    apart, joined = np.arange(4, dtype=np.int32), np.array([0, 1, 0, 3], dtype=np.int32)
    gold = [[0], [3], []]
    assert cause_ranks(scores, gold, apart).tolist() == [4, 4]
    assert cause_ranks(scores, gold, joined).tolist() == [1, 4]


def test_recall_by_rank() -> None:
    """Shares of ranks at or below each count."""
    ranks = {"shown": np.array([1, 3, 11, 2])}
    found = recall_estimates(ranks, made_of="known")
    assert (found["recall@1, shown"].value, found["recall@10, shown"].value) == (0.25, 0.75)
    assert recall_curve(ranks)["shown"][:3] == [0.25, 0.5, 0.75]


def test_what_candidates_hold() -> None:
    """Two queries over twelve examples: one holds the best and six of the ten best, the other holds nothing."""
    exact = np.stack([np.arange(12, 0, -1), np.arange(12)]).astype(np.float32)
    rows = [np.arange(6), np.array([0, 1])]
    found = candidates_hold(exact, rows, unit="outputs", made_of="known")
    assert found["candidates hold the exact top-1"].value == 0.5
    assert found["candidates hold the exact top-10"].value == pytest.approx(0.3)
    assert found["candidates hold the exact top-1"].note == "candidates are 33.3% of the corpus"


def test_search_recall_of_a_search_that_sees_half() -> None:
    """An index over the first half returns only what lies there."""
    vectors = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    queries = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)
    assert (search_recall(ExactIndex(vectors), vectors, queries, 4) == 1.0).all()
    found = search_recall(ExactIndex(vectors[:10]), vectors, queries, 4)
    expected = [(np.argsort(-(vectors @ query))[:4] < 10).mean() for query in queries]
    assert found.tolist() == expected


def test_whole_groups_are_resampled() -> None:
    """Values that agree within a group have as wide an interval as one value per group."""
    single = np.array([0.0, 1.0] * 10)
    grouped = mean_of(np.repeat(single, 5), "controls", "file", groups=[place // 5 for place in range(100)])
    alone = mean_of(np.repeat(single, 5), "controls", "file")
    assert grouped.interval is not None
    assert alone.interval is not None
    assert np.ptp(grouped.interval) > 1.5 * np.ptp(alone.interval)
    assert bootstrap(lambda places: float(len(places)), range(7)) == (7.0, 7.0)
