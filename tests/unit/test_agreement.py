"""Kappa and Wilson's interval against published values and an independent computation."""

import math

import numpy as np
import pytest

from wherefrom.agreement import Z95, cohen_kappa, wilson


def test_kappa_of_a_known_table() -> None:
    """The 2 x 2 example of the method's own literature: 35 of 50 agree, kappa .4."""
    found = cohen_kappa([[20, 5], [10, 15]])
    assert found.value == pytest.approx(0.4)
    assert (found.observed, found.pairs) == (0.7, 50)


@pytest.mark.parametrize("seed", range(4))
def test_the_interval_is_that_of_the_delta_method(seed: int) -> None:
    """The gradient of kappa by finite differences, over the multinomial covariance of the shares."""
    rng = np.random.default_rng(seed)
    table = rng.integers(1, 30, size=(3, 3))
    n, p = table.sum(), (table / table.sum()).ravel()

    def kappa(shares):
        square = shares.reshape(3, 3)
        expected = square.sum(axis=1) @ square.sum(axis=0)
        return (np.trace(square) - expected) / (1 - expected)

    step = 1e-6
    gradient = np.array([(kappa(p + step * e) - kappa(p - step * e)) / (2 * step) for e in np.eye(9)])
    error = math.sqrt(gradient @ (np.diag(p) - np.outer(p, p)) @ gradient / n)
    found = cohen_kappa(table.tolist())
    assert found.value is not None
    assert found.high is not None
    assert found.value == pytest.approx(kappa(p))
    assert (found.high - found.value) / Z95 == pytest.approx(error, rel=1e-4)


@pytest.mark.parametrize(("table", "observed"), [([[0, 0], [0, 0]], 0.0), ([[7, 0], [0, 0]], 1.0)])
def test_kappa_is_silent_where_it_means_nothing(table, observed) -> None:
    """No pair, or both always said the same one thing."""
    found = cohen_kappa(table)
    assert (found.value, found.low, found.high, found.observed) == (None, None, None, observed)


def test_perfect_and_opposite_agreement() -> None:
    """The ends of the scale."""
    assert cohen_kappa([[5, 0], [0, 5]]).value == 1.0
    assert cohen_kappa([[0, 5], [5, 0]]).value == -1.0


@pytest.mark.parametrize(
    ("table", "low", "high"),
    [
        ([[1, 0], [0, 1]], -0.3152, 1.0),
        ([[20, 0], [0, 20]], 0.8247, 1.0),
        ([[0, 1], [0, 0]], 0.0, 0.7935),
        ([[0, 20], [20, 0]], -1.0, -0.8247),
    ],
)
def test_few_pairs_are_no_certainty(table, low, high) -> None:
    """Who always agrees, or never, has an interval that shrinks with the pairs; it is not empty."""
    found = cohen_kappa(table)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-3)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"), [(0, 0, 0, 1), (8, 10, 0.4902, 0.9433), (0, 10, 0, 0.2775)]
)
def test_wilson(successes, trials, low, high) -> None:
    """Published values; without trials anything is possible."""
    assert wilson(successes, trials) == pytest.approx((low, high), abs=1e-4)
