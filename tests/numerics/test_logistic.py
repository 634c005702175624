"""Logistic regression, reliability and isotonic regression against plain oracles."""

import itertools

import numpy as np
import pytest

from wherefrom.attribution.calibrating import measured_differences, rising
from wherefrom.attribution.calibration.logistic import Logistic, fit_logistic, sigmoid
from wherefrom.attribution.calibration.reliability import auroc, calibration_error, reliability_bins
from wherefrom.errors import BundleCorrupt, ConfigurationError


def sample(count: int = 300):
    """Rows, labels and weights of a noisy linear rule."""
    generator = np.random.default_rng(3)
    rows = generator.normal(size=(count, 3)) * np.array([1.0, 5.0, 0.1]) + np.array([0.0, 2.0, -1.0])
    chances = sigmoid(rows @ np.array([1.0, -0.3, 4.0]) + 4.0)
    return rows, generator.random(count) < chances, generator.uniform(0.5, 2.0, count)


def test_newton_finds_what_gradient_descent_finds() -> None:
    """The same weights as many small steps down the written-out gradient."""
    rows, labels, weights = sample()
    fitted = fit_logistic(rows, labels, features=("a", "b", "c"), row_weights=weights, ridge=2.0)
    standard = (rows - rows.mean(axis=0)) / rows.std(axis=0)
    w, c = np.zeros(3), 0.0
    for _ in range(20_000):
        slope_w, slope_c = 2.0 * w, 0.0
        chances = 1 / (1 + np.exp(-(standard @ w + c)))
        slope_w = slope_w + standard.T @ (weights * (chances - labels))
        slope_c = float((weights * (chances - labels)).sum())
        w, c = w - 2e-3 * slope_w, c - 2e-3 * slope_c
    np.testing.assert_allclose(fitted.weights, w, atol=1e-6)
    assert fitted.intercept == pytest.approx(c, abs=1e-6)
    np.testing.assert_allclose(fitted.logits(rows), standard @ w + c, atol=1e-5)


def test_separable_rows_and_constant_columns_stay_finite() -> None:
    """The ridge bounds what the data do not."""
    rows = np.column_stack([np.linspace(-1, 1, 40), np.ones(40)])
    fitted = fit_logistic(rows, rows[:, 0] > 0, features=("a", "b"))
    assert np.isfinite(fitted.weights).all()
    assert fitted.weights[0] > 1
    assert ((fitted.logits(rows) > 0) == (rows[:, 0] > 0)).all()


def test_one_label_is_refused() -> None:
    """There is nothing to tell apart."""
    with pytest.raises(ConfigurationError, match="all 5 rows have the same label"):
        fit_logistic(np.zeros((5, 1)), np.ones(5, dtype=bool), features=("a",))


def test_logistic_survives_json_and_refuses_bad_numbers() -> None:
    """The same logits after a round trip; no number that is not finite."""
    rows, labels, _ = sample(50)
    fitted = fit_logistic(rows, labels, features=("a", "b", "c"))
    again = Logistic.from_json(fitted.to_json())
    np.testing.assert_array_equal(again.logits(rows), fitted.logits(rows))
    for wrong in ({}, {"intercept": float("nan"), "features": {}}, {"intercept": 0, "features": []}):
        with pytest.raises(BundleCorrupt, match="logistic model"):
            Logistic.from_json(wrong)


def test_calibration_error_is_the_written_sum() -> None:
    """Bins of equal counts, each weighted by its share; a perfect forecaster has no error, a sure liar has all."""
    generator = np.random.default_rng(5)
    stated = generator.random(1000)
    truths = generator.random(1000) < stated**2
    bins = reliability_bins(stated, truths)
    assert [one.count for one in bins] == [100] * 10
    order = sorted(range(1000), key=lambda place: stated[place])
    expected = 0.0
    for number in range(10):
        part = order[number * 100 : (number + 1) * 100]
        expected += 0.1 * abs(sum(stated[i] for i in part) / 100 - sum(bool(truths[i]) for i in part) / 100)
    assert calibration_error(bins) == pytest.approx(expected)
    assert expected > 0.05
    liar = reliability_bins(np.ones(200), np.zeros(200, dtype=bool))
    assert calibration_error(liar) == 1.0
    assert [one.count for one in reliability_bins(stated[:150], truths[:150])] == [150]


def test_auroc_counts_pairs() -> None:
    """Ties count half; nothing to compare gives nan."""
    positives, negatives = np.array([3.0, 1.0, 2.0]), np.array([1.0, 0.0])
    pairs = [(a > b) + 0.5 * (a == b) for a, b in itertools.product(positives, negatives)]
    assert auroc(positives, negatives) == pytest.approx(sum(pairs) / 6)
    assert np.isnan(auroc(positives, np.array([])))


def test_isotonic_regression_beats_every_rising_sequence_of_a_grid() -> None:
    """The least squared error among rising sequences."""
    values, weights = np.array([0.2, 0.0, 0.4, 0.2, 0.2]), np.array([1.0, 2.0, 1.0, 1.0, 3.0])
    found = rising(values, weights)
    assert (np.diff(found) >= 0).all()
    grid = np.linspace(0, 0.4, 13)
    best = min(
        float((weights * (np.array(one) - values) ** 2).sum())
        for one in itertools.combinations_with_replacement(grid, 5)
    )
    assert float((weights * (found - values) ** 2).sum()) <= best + 1e-12
    np.testing.assert_array_equal(rising(np.array([1.0, 2.0]), np.ones(2)), [1.0, 2.0])


def test_measured_differences_are_means_over_models() -> None:
    """Mean loss without minus mean loss with, pair by pair; 0 where one of them is empty."""
    generator = np.random.default_rng(7)
    kept = generator.random((9, 4)) < 0.5
    kept[:, 3] = True
    losses = generator.random((9, 3)).astype(np.float32)
    found = measured_differences(kept, losses)
    for query, example in itertools.product(range(3), range(3)):
        column = losses[:, query].astype(np.float64)
        expected = column[~kept[:, example]].mean() - column[kept[:, example]].mean()
        assert found[query, example] == pytest.approx(expected)
    assert (found[:, 3] == 0).all()
