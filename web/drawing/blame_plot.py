"""The plot of a source's blame over time: places of bars in an SVG, and the table beneath it. No SQL, no HTML.

A bar is the share of a period's audits whose first citation comes from the source; its whisker is the 95 % interval (Wilson) of that share, so that a period with
few audits looks as uncertain as it is.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from wherefrom.records import BlamePeriod

#: Size of the plot in its own units; the page scales it.
WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 1080, 210, 44, 24, 10
_Z = 1.96
_TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.25, 0.5, 1.0)


@dataclass(frozen=True)
class PeriodBar:
    """One period."""

    label: str
    audits: int
    first_citations: int
    share: float | None
    low: float
    high: float
    #: Place and size of the bar, and ends of its whisker, in units of the plot; None without an audit.
    x: float
    width: float
    y: float | None
    height: float
    whisker: tuple[float, float] | None
    #: Whether the axis names it.
    named: bool


@dataclass(frozen=True)
class Tick:
    """A line across the plot."""

    y: float
    label: str


@dataclass(frozen=True)
class BlamePlot:
    """All of it."""

    bars: tuple[PeriodBar, ...]
    ticks: tuple[Tick, ...]
    #: Audits of all periods, and how long one is.
    audits: int
    length: str
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    base: float = HEIGHT - BOTTOM


def blame_plot(periods: Sequence[BlamePeriod]) -> BlamePlot | None:
    """The plot of these periods; None where there are none."""
    if not periods:
        return None
    shares = [wilson(one.first_citations, one.audits) for one in periods]
    highest = [
        high if one.audits > 2 else low for one, (low, high) in zip(periods, shares, strict=True)
    ]  # one or two audits say so little that their whisker would flatten all others
    top = max(
        [min(1.0, 1.1 * max(highest)), *(one.first_citations / one.audits for one in periods if one.audits)]
    )
    top = top or 0.05
    base, step = HEIGHT - BOTTOM, (WIDTH - LEFT) / len(periods)
    scale = (base - TOP) / top
    length = periods[0].end - periods[0].start
    every = -(-len(periods) // 10)
    bars = tuple(
        _bar(one, interval, x=LEFT + step * place, step=step, scale=scale, named=place % every == 0)
        for place, (one, interval) in enumerate(zip(periods, shares, strict=True))
    )
    apart = next(one for one in _TICKS if top / one <= 4.01)
    ticks = tuple(
        Tick(base - scale * apart * number, f"{100 * apart * number:g} %")
        for number in range(math.floor(top / apart + 1e-9) + 1)
    )
    return BlamePlot(bars, ticks, sum(one.audits for one in periods), _length(length))


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """95 % interval of a share; all of [0, 1] without a trial."""
    if not trials:
        return 0.0, 1.0
    share, square = successes / trials, _Z * _Z / trials
    centre = (share + square / 2) / (1 + square)
    half = _Z * math.sqrt(share * (1 - share) / trials + square / (4 * trials)) / (1 + square)
    return max(0.0, centre - half), min(1.0, centre + half)


def _bar(
    one: BlamePeriod, interval: tuple[float, float], *, x: float, step: float, scale: float, named: bool
) -> PeriodBar:
    base, share = HEIGHT - BOTTOM, one.first_citations / one.audits if one.audits else None
    whisker = None if share is None else (base - scale * interval[0], max(base - scale * interval[1], TOP))
    return PeriodBar(
        label=period_label(one.start, one.end - one.start),
        audits=one.audits,
        first_citations=one.first_citations,
        share=share,
        low=interval[0],
        high=interval[1],
        x=x + 0.14 * step,
        width=0.72 * step,
        y=None if share is None else base - scale * share,
        height=0.0 if share is None else scale * share,
        whisker=whisker,
        named=named,
    )


def period_label(start: datetime, length: timedelta) -> str:
    """The name of a stretch of time: its day, with the hour where it is shorter than a day."""
    return f"{start:%d %b %H:%M}" if length < timedelta(days=1) else f"{start:%d %b %Y}"


def _length(length: timedelta) -> str:
    hours = length // timedelta(hours=1)
    if hours < 24:
        return "1 hour" if hours == 1 else f"{hours} hours"
    return {1: "1 day", 7: "1 week", 28: "4 weeks", 91: "13 weeks"}.get(hours // 24, f"{hours // 24} days")
