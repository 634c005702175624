"""Tokens taken out of a row or covered, and the summary of falls against counting by hand."""

import numpy as np
import pytest

from benchmarks.tokens.deletion import replaced, summary, touches, without
from wherefrom.attribution.models.render import TokenRow
from wherefrom.records import Span

ROW = TokenRow((7, 8, 20, 21, 22, 23), 2, (True, True, True, False))


def test_without() -> None:
    """Completion tokens go with their flags; the prompt stays."""
    assert without(ROW, np.array([2, 0])) == TokenRow((7, 8, 21, 23), 2, (True, False))


def test_replaced() -> None:
    """The filler stands in the place of the tokens and is not explained."""
    assert replaced(ROW, np.array([1]), 0) == TokenRow((7, 8, 20, 0, 22, 23), 2, (True, False, True, False))


@pytest.mark.parametrize(
    ("found", "expected"), [((0, 3), True), ((4, 5), True), ((3, 4), False), ((3, 3), False), ((1, 1), True)]
)
def test_touches(found: tuple[int, int], expected: bool) -> None:
    """One common character is enough; the end of a span is outside."""
    assert touches(found, [Span(start=0, end=3), Span(start=4, end=9)]) is expected


def test_summary() -> None:
    """Ratios 4, 2, infinite (random tokens raise the score) and 0: their median, and how often the named tokens weigh more."""
    falls = np.array([[0, 0.8, 0.2], [1, 0.6, 0.3], [2, 0.5, -0.1], [3, -0.4, -0.2]])
    found = summary(falls)
    assert found["median_ratio"] == pytest.approx(3.0)
    assert found["named_over_random"] == 0.75
    assert found["random_raises_score"] == 0.5
    assert found["median_fall_named"] == pytest.approx(0.55)
    low, high = found["median_ratio_95"]
    assert low <= 3.0 <= high


def test_interval_is_over_queries() -> None:
    """Citations of one query are drawn together: one query leaves nothing to draw."""
    falls = np.array([[0, 0.8, 0.2], [0, 0.2, 0.4], [0, 0.9, 0.3]])
    found = summary(falls)
    assert found["median_ratio_95"] == pytest.approx([3.0, 3.0])
    assert found["named_over_random_95"] == pytest.approx([2 / 3, 2 / 3])
