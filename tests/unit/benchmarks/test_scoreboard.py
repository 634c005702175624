"""Bootstrap of LDS: every draw is what `ranking_metrics.lds` gives for the repeated models and queries."""

import numpy as np
import pytest

from benchmarks.peers.scoreboard import Draws, agreement, lds_draws
from wherefrom.attribution.ranking_metrics import lds
from wherefrom.evaluation.estimates import middle
from wherefrom.evaluation.truth import BankTruth


@pytest.fixture
def truth():
    """16 retrained models, 7 queries, losses with ties; the last query's loss does not vary."""
    generator = np.random.default_rng(3)
    losses = np.round(generator.random((16, 7)), 1).astype(np.float32)
    losses[:, 6] = 0.5
    return BankTruth(generator.random((16, 30)) < 0.5, losses)


def test_draw_equals_lds_of_repeated_models(truth):
    """Weighted ranks give the figure of the models and queries written out as often as they were drawn."""
    scores = np.random.default_rng(4).integers(-2, 3, (7, 30)).astype(np.float32)
    draws = Draws.of(truth, 25)
    found = lds_draws(scores, truth, draws)
    for value, models, queries in zip(found, draws.models, draws.queries, strict=True):
        m = np.repeat(np.arange(16), models.astype(int))
        q = np.repeat(np.arange(7), queries.astype(int))
        expected = lds(scores[q], truth.kept[m], truth.losses[m][:, q]).mean()
        assert value == pytest.approx(float(expected), abs=1e-9)


def test_draws_are_the_same_for_all_methods(truth):
    """Differences between methods are paired, so two equal methods differ by nothing in any draw."""
    scores = np.random.default_rng(5).random((7, 30)).astype(np.float32)
    one = lds_draws(scores, truth, Draws.of(truth, 50))
    other = lds_draws(2 * scores, truth, Draws.of(truth, 50))
    assert middle(one - other) == pytest.approx((0.0, 0.0), abs=1e-9)
    low, high = middle(one)
    assert low < high


def test_agreement():
    """Spearman per query: mean and smallest."""
    one = np.arange(12, dtype=np.float32).reshape(2, 6)
    other = np.stack([one[0], -one[1]])
    assert agreement(one, other) == {"spearman_mean": 0.0, "spearman_min": -1.0}
