"""The plot of what ended in each minute: places of stacked bars in an SVG, and the table beneath it. No SQL, no HTML."""

from collections.abc import Sequence
from dataclasses import dataclass

from web.drawing.blame_plot import Tick
from wherefrom.records import Minute

#: Size of the plot in its own units; the page scales it.
WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 1080, 170, 44, 24, 10
_STEPS = (1, 2, 5)
#: Stacked from the base up: what stands in a minute, and the class of its bar.
_PARTS = (("done", "plot-bar"), ("abstained", "plot-bar-abstained"), ("bad", "plot-bar-bad"))


@dataclass(frozen=True)
class Piece:
    """One part of a bar."""

    mark: str
    y: float
    height: float


@dataclass(frozen=True)
class MinuteBar:
    """One minute."""

    label: str
    minute: Minute
    x: float
    width: float
    pieces: tuple[Piece, ...]
    #: Whether the axis names it.
    named: bool


@dataclass(frozen=True)
class ThroughputPlot:
    """All of it."""

    bars: tuple[MinuteBar, ...]
    ticks: tuple[Tick, ...]
    ended: int
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    base: float = HEIGHT - BOTTOM


def throughput_plot(minutes: Sequence[Minute]) -> ThroughputPlot | None:
    """The plot of these minutes; None where nothing ended."""
    most = max((one.ended for one in minutes), default=0)
    if not most:
        return None
    apart = _apart(most)
    top = apart * -(-most // apart)
    base, step = HEIGHT - BOTTOM, (WIDTH - LEFT) / len(minutes)
    scale = (base - TOP) / top
    bars = tuple(
        MinuteBar(
            label=f"{one.start:%H:%M}",
            minute=one,
            x=LEFT + step * place + 0.14 * step,
            width=0.72 * step,
            pieces=_pieces(one, scale, base),
            named=one.start.minute % 10 == 0,
        )
        for place, one in enumerate(minutes)
    )
    ticks = tuple(Tick(base - scale * value, f"{value:,}") for value in range(0, top + 1, apart))
    return ThroughputPlot(bars, ticks, sum(one.ended for one in minutes))


def _apart(most: int) -> int:
    """A round distance of at most five lines across the plot."""
    power = 1
    while True:
        for step in _STEPS:
            if most / (step * power) <= 4:
                return step * power
        power *= 10


def _pieces(one: Minute, scale: float, base: float) -> tuple[Piece, ...]:
    numbers = {"done": one.done, "abstained": one.abstained, "bad": one.rejected + one.dead}
    pieces, y = [], base
    for name, mark in _PARTS:
        height = scale * numbers[name]
        if height:
            y -= height
            pieces.append(Piece(mark, y, height))
    return tuple(pieces)
