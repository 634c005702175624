"""Resampling: one way to draw for the product's card and for all benchmarks, so that their intervals mean the same."""

import numpy as np
import pytest

from wherefrom.evaluation.estimates import (
    bootstrap,
    mean_and_interval,
    middle,
    resampled,
    resampled_together,
)

VALUES = np.random.default_rng(7).normal(size=40)


def test_groups_are_drawn_whole():
    """Every resample holds as many groups as there are, each with all of its places."""
    groups = ["a", "b", "a", "c", "b", "a"]
    members = {"a": [0, 2, 5], "b": [1, 4], "c": [3]}
    for places in resampled(groups, resamples=20):
        left = places.tolist()
        drawn = 0
        while left:
            group = members[groups[left[0]]]
            assert left[: len(group)] == group
            left, drawn = left[len(group) :], drawn + 1
        assert drawn == 3


def test_draws_are_those_of_numpy():
    """Without groups a resample is `integers` of the generator: what the committed figures were drawn by."""
    generator = np.random.default_rng(3)
    for places in resampled(range(40), resamples=5, seed=3):
        np.testing.assert_array_equal(places, generator.integers(0, 40, 40))
    generator = np.random.default_rng(3)
    for models, queries in resampled_together(9, 40, resamples=5, seed=3):
        np.testing.assert_array_equal(models, generator.integers(0, 9, 9))
        np.testing.assert_array_equal(queries, generator.integers(0, 40, 40))


def test_the_interval_of_a_mean_is_the_bootstrap_of_the_mean():
    """Drawn at once or one by one: the same resamples, so the same interval."""
    mean, low, high = mean_and_interval(VALUES, resamples=200, seed=5)
    assert mean == pytest.approx(VALUES.mean())
    one_by_one = bootstrap(
        lambda places: float(VALUES[places].mean()), range(len(VALUES)), resamples=200, seed=5
    )
    assert (low, high) == pytest.approx(one_by_one)


def test_the_middle_leaves_out_a_fortieth_on_each_side():
    """2.5 % and 97.5 % quantile."""
    assert middle(np.arange(41.0)) == (1.0, 39.0)
