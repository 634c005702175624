"""Benjamini-Hochberg: equal to its definition, monotone, and true to its level on a simulated null."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherefrom.statistics import adjusted, benjamini_hochberg, binomial_tail, passing_limit

P_VALUES = st.lists(
    st.floats(min_value=0, max_value=1) | st.sampled_from([0.0, 0.01, 0.02, 0.05, 1.0]), max_size=40
)
LEVELS = st.floats(min_value=0.01, max_value=0.99)


def by_definition(p_values, level):
    """The step-up rule, read off its text: try every k from the largest."""
    ordered = sorted(p_values)
    m = len(ordered)
    for k in range(m, 0, -1):
        if ordered[k - 1] * m <= k * level:
            return [p <= ordered[k - 1] for p in p_values]
    return [False] * m


@given(P_VALUES, LEVELS)
def test_equals_its_definition(p_values, level):
    """The loop over all k finds the same audits."""
    assert benjamini_hochberg(p_values, level) == by_definition(p_values, level)


def test_a_known_example():
    """The fifteen p-values of the paper's example at 5 %: four pass."""
    paper = [
        0.0001,
        0.0004,
        0.0019,
        0.0095,
        0.0201,
        0.0278,
        0.0298,
        0.0344,
        0.0459,
        0.3240,
        0.4262,
        0.5719,
        0.6528,
        0.7590,
        1.0,
    ]
    assert sum(benjamini_hochberg(paper, 0.05)) == 4


@given(P_VALUES, LEVELS)
def test_larger_p_values_may_be_left_out(p_values, level):
    """What is above the level cannot pass, so the database need not send it."""
    small = [p for p in p_values if p <= level]
    assert passing_limit(small, level, tests=len(p_values)) == passing_limit(
        p_values, level, tests=len(p_values)
    )


@given(P_VALUES, LEVELS, LEVELS)
def test_a_looser_level_loses_nobody(p_values, one, other):
    """What passes at a strict level passes at a looser one."""
    strict, loose = (benjamini_hochberg(p_values, level) for level in sorted((one, other)))
    assert all(after or not before for before, after in zip(strict, loose, strict=True))


def conformal_listing(random_, *, controls, nulls, real):
    """p-values of a listing: every audit is compared with the same controls; real ones score higher."""
    scores = sorted(random_.gauss(0, 1) for _ in range(controls))
    audits = [random_.gauss(0, 1) for _ in range(nulls)] + [random_.gauss(4, 1) for _ in range(real)]
    return [(1 + sum(score >= audit for score in scores)) / (controls + 1) for audit in audits]


@pytest.mark.parametrize("level", [0.1, 0.3])
def test_the_false_discovery_rate_holds_on_conformal_p_values(level):
    """Over 400 simulated listings the mean share of false ones among those that pass is at most the level; real ones are found."""
    random_ = random.Random(3)
    rates, found = [], 0
    for _ in range(400):
        p_values = conformal_listing(random_, controls=200, nulls=40, real=10)
        passed = benjamini_hochberg(p_values, level)
        rates.append(sum(passed[:40]) / max(1, sum(passed)))
        found += sum(passed[40:])
    mean = sum(rates) / len(rates)
    # Expected: level * 40/50; the standard error of the mean is below .01.
    assert mean <= level
    assert mean > level * 40 / 50 - 0.03, "far below its level: the rule is not this one"
    assert found > 400 * 10 * 0.8


def test_a_null_without_any_real_one_rarely_passes_anything():
    """With only nulls, any discovery is false: a listing with one happens in at most the level's share."""
    random_ = random.Random(4)
    listings = [conformal_listing(random_, controls=200, nulls=30, real=0) for _ in range(500)]
    assert sum(any(benjamini_hochberg(one, 0.1)) for one in listings) / 500 <= 0.1 + 3 * (0.09 / 500) ** 0.5


@pytest.mark.parametrize(
    ("p_values", "level"), [([0.5], 0.0), ([0.5], 1.0), ([1.5], 0.1), ([-0.1], 0.1), ([0.1], float("nan"))]
)
def test_values_outside_of_their_range_are_refused(p_values, level):
    """A p-value above 1 is no p-value."""
    with pytest.raises(ValueError, match="between 0 and 1"):
        benjamini_hochberg(p_values, level)


def test_more_p_values_than_tests_are_refused():
    """Then somebody counted wrong."""
    with pytest.raises(ValueError, match="2 p-values for 1 tests"):
        passing_limit([0.1, 0.2], 0.1, tests=1)


@pytest.mark.parametrize(
    ("successes", "trials", "chance", "tail"),
    [
        (0, 5, 0.2, 1.0), (5, 5, 0.2, 0.2**5), (5, 20, 0.1, 0.04317449528446339), (1, 10, 0.9, 0.9999999999),
        (300, 100_000, 0.0025, 0.0011470087796863395), (90, 100, 0.5, 1.5316450877189923e-17), (3, 3, 1.0, 1.0), (1, 3, 0.0, 0.0),
    ],
)  # fmt: skip
def test_binomial_tails_are_exact(successes: int, trials: int, chance: float, tail: float) -> None:
    """As scipy's `binom.sf(successes - 1, trials, chance)` gives them."""
    assert binomial_tail(successes, trials, chance) == pytest.approx(tail, rel=1e-6)


@pytest.mark.parametrize(("successes", "trials", "chance"), [(-1, 2, 0.5), (3, 2, 0.5), (1, 2, 1.5)])
def test_counts_that_are_none_are_refused(successes: int, trials: int, chance: float) -> None:
    """Before they become a p-value."""
    with pytest.raises(ValueError, match="binomial"):
        binomial_tail(successes, trials, chance)


def test_q_values_keep_the_order_and_correct_for_the_number() -> None:
    """The smallest rate at which each passes, in the order given."""
    assert adjusted([0.04, 0.01, 0.5, 0.03]) == pytest.approx([0.05333333, 0.04, 0.5, 0.05333333])
    assert adjusted([]) == []
    p_values = [0.001, 0.02, 0.2, 0.03, 0.9]
    for level in (0.01, 0.05, 0.3):
        passed = benjamini_hochberg(p_values, level)
        assert [q <= level for q in adjusted(p_values)] == passed
