"""The plot of blame over time: shares, intervals, ticks, empty stretches."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from db.reading.blame import PERIODS, period_edges
from web.drawing.blame_plot import TOP, blame_plot, wilson
from wherefrom.records import BlamePeriod

START = datetime(2026, 1, 1, tzinfo=UTC)


def periods(*counts: tuple[int, int]) -> list[BlamePeriod]:
    """Days with so many first citations of so many audits."""
    day = timedelta(days=1)
    return [
        BlamePeriod(
            start=START + number * day, end=START + (number + 1) * day, audits=audits, first_citations=firsts
        )
        for number, (firsts, audits) in enumerate(counts)
    ]


def test_bars_stand_in_proportion_and_inside_the_plot() -> None:
    """Twice the share is twice the height; a day without an audit has no bar."""
    plot = blame_plot(periods((1, 10), (2, 10), (0, 0), (0, 7)))
    assert plot is not None
    first, second, empty, none = plot.bars
    assert second.height == pytest.approx(2 * first.height)
    assert (empty.y, empty.whisker, none.height) == (None, None, 0.0)
    assert all(TOP <= one.y <= plot.base for one in plot.bars if one.y is not None)
    assert all(TOP <= end <= plot.base for one in plot.bars if one.whisker for end in one.whisker)
    assert (plot.audits, plot.length, len(plot.ticks) >= 2) == (27, "1 day", True)


@pytest.mark.parametrize("counts", [[(0, 1)], [(5, 5)], [(0, 0)], [(1, 100_000)] * 40])
def test_every_history_has_a_plot(counts: list[tuple[int, int]]) -> None:
    """Ticks are few and inside."""
    plot = blame_plot(periods(*counts))
    assert plot is not None
    assert 1 <= len(plot.ticks) <= 6
    assert all(one.y >= 0 for one in plot.ticks)
    assert blame_plot([]) is None


def test_intervals_are_wilson() -> None:
    """Values of a textbook."""
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert wilson(0, 10)[0] == 0.0


@pytest.mark.parametrize("hours", [0, 1, 30, 200, 24 * 30, 24 * 400, 24 * 4000, 24 * 40_000])
def test_edges_hold_the_whole_time(hours: int) -> None:
    """In at most so many stretches of one length, on whole hours."""
    first = datetime(2026, 1, 31, 13, 37, tzinfo=UTC)
    last = first + timedelta(hours=hours)
    edges = period_edges(first, last)
    assert edges[0] <= first <= last < edges[-1]
    assert len(edges) - 1 <= PERIODS
    assert len({end - start for start, end in pairwise(edges)}) == 1
    assert all(one.minute == 0 for one in edges)
