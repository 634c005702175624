"""The plot of the last hour: every bar fits, and the axis has round numbers."""

from datetime import UTC, datetime, timedelta

import pytest

from web.drawing.throughput_plot import HEIGHT, LEFT, TOP, WIDTH, throughput_plot
from wherefrom.records import Minute

START = datetime(2026, 1, 31, 8, 0, tzinfo=UTC)


def minutes(*numbers: tuple[int, int, int, int]) -> list[Minute]:
    """An hour that begins with these: done, abstained, rejected, dead."""
    given = [*numbers, *[(0, 0, 0, 0)] * (60 - len(numbers))]
    return [
        Minute(start=START + timedelta(minutes=place), done=a, abstained=b, rejected=c, dead=d)
        for place, (a, b, c, d) in enumerate(given)
    ]


def test_nothing_ended() -> None:
    """No plot, and no division by nothing."""
    assert throughput_plot(minutes()) is None


@pytest.mark.parametrize("most", [1, 2, 4, 5, 7, 99, 1234, 1_000_000])
def test_bars_stand_on_each_other_within_the_plot(most: int) -> None:
    """Done at the base, then abstained, then what went wrong; no part that is nothing."""
    plot = throughput_plot(minutes((most, 0, 0, 0), (1, 1, 1, 1)))
    assert plot is not None
    assert 2 <= len(plot.ticks) <= 6
    assert [one.y for one in plot.ticks] == sorted((one.y for one in plot.ticks), reverse=True)
    first, second, empty = plot.bars[:3]
    assert [piece.mark for piece in first.pieces] == ["plot-bar"]
    assert [piece.mark for piece in second.pieces] == ["plot-bar", "plot-bar-abstained", "plot-bar-bad"]
    assert empty.pieces == ()
    for bar in (first, second):
        assert bar.pieces[0].y + bar.pieces[0].height == pytest.approx(plot.base)
        assert bar.pieces[-1].y >= TOP - 1e-9
    assert second.pieces[2].height == pytest.approx(2 * second.pieces[0].height)
    assert plot.bars[0].x >= LEFT
    assert plot.bars[-1].x + plot.bars[-1].width <= WIDTH
    assert plot.base < HEIGHT
    assert [bar.label for bar in plot.bars if bar.named] == [
        "08:00",
        "08:10",
        "08:20",
        "08:30",
        "08:40",
        "08:50",
    ]
