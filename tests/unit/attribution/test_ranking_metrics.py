"""Metrics against scipy and by hand."""

import math
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from wherefrom.attribution.ranking_metrics import lds, ranks, recall_at, spearman_rows

tied = arrays(np.float64, (3, 8), elements=st.integers(0, 4).map(float))


@pytest.fixture(scope="module")
def stats() -> ModuleType:
    """`scipy.stats`: slow to import, so neither while tests are collected nor within hypothesis' deadline."""
    import scipy.stats

    module: ModuleType = scipy.stats
    return module


@given(values=tied)
def test_ranks(stats: ModuleType, values: np.ndarray) -> None:
    """Ties share their average rank, as in scipy."""
    np.testing.assert_allclose(ranks(values), stats.rankdata(values, axis=-1))
    np.testing.assert_allclose(ranks(values[0]), stats.rankdata(values[0]))


@given(one=tied, other=tied)
def test_spearman(stats: ModuleType, one: np.ndarray, other: np.ndarray) -> None:
    """Row by row as scipy, and 0 where a row does not vary."""
    for found, first, second in zip(spearman_rows(one, other), one, other, strict=True):
        varies = np.ptp(first) > 0 and np.ptp(second) > 0
        assert found == pytest.approx(stats.spearmanr(first, second).statistic if varies else 0.0, abs=1e-9)


def test_lds(stats: ModuleType) -> None:
    """Spearman between summed scores of what a model saw and its negative loss, per query."""
    generator = np.random.default_rng(1)
    scores = generator.normal(size=(4, 10)).astype(np.float32)
    kept = generator.random((12, 10)) < 0.5
    losses = generator.normal(size=(12, 4)).astype(np.float32)
    expected = [
        stats.spearmanr([scores[query][seen].sum() for seen in kept], -losses[:, query]).statistic
        for query in range(4)
    ]
    np.testing.assert_allclose(lds(scores, kept, losses), expected, atol=1e-6)
    perfect = -(kept @ scores.T).astype(np.float32)
    np.testing.assert_allclose(lds(scores, kept, perfect), 1.0)


def test_recall() -> None:
    """Queries without known causes do not count; one cause found is enough; ties go to the earlier row."""
    scores = np.array([[3, 2, 1], [1, 2, 3], [1, 1, 1], [0, 0, 0]], dtype=np.float32)
    gold = [[0], [0, 1], [0], []]
    assert recall_at(scores, gold, 1) == pytest.approx(2 / 3)
    assert recall_at(scores, gold, 2) == 1.0
    assert math.isnan(recall_at(scores[3:], [[]], 1))
