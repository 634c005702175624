"""Plots as places in an SVG: an audit's influence scores against noise, stated confidence against what people and measurements find, outputs over time by source.

Templates draw them (`_plots.html`) with a title, a description and the numbers in a table beneath. No HTML and no SQL here.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from db.reviewing.agreement import Bin
from web.drawing.blame_plot import period_label
from wherefrom.records import AuditDetail, CitationRecord

#: Width of a plot, its margins, and the height of one row of the scores, in units of the plot; the page scales it.
WIDTH, LEFT, RIGHT, TOP, BOTTOM, ROW = 560, 44, 14, 10, 26, 15
#: Height of the inner part of the square plot of confidence, and of the one over time.
SQUARE, TIME = 300, 150
#: Room that is left around the outermost score.
_ROOM = 0.06


@dataclass(frozen=True)
class Dot:
    """One citation among the scores."""

    rank: int
    source: str
    example_id: str
    influence: float
    determined: bool | None
    x: float
    y: float


@dataclass(frozen=True)
class ScorePlot:
    """Influence scores of the citations of one audit, and what unrelated training examples get."""

    dots: tuple[Dot, ...]
    #: Ends of the band in which a score has no sign, and the place of the best that chance may reach; None where that was not told.
    band: tuple[float, float] | None
    best: float | None
    noise_level: float | None
    noise_best: float | None
    #: Place of no influence, and marks of the axis with their labels.
    zero: float
    ticks: tuple[tuple[float, str], ...]
    width: int
    height: float
    base: float


def score_plot(detail: AuditDetail) -> ScorePlot | None:
    """The plot of an audit; None where fewer than two citations have an influence score."""
    cited = [one for one in (*detail.citations, *detail.opponents) if one.influence_score is not None]
    if len(cited) < 2:
        return None
    scores = [one.influence_score or 0.0 for one in cited]
    level, best = detail.noise_level, detail.noise_best
    ends = [
        0.0,
        *scores,
        *([-level, level] if level is not None else []),
        *([best] if best is not None else []),
    ]
    low, high = min(ends), max(ends)
    room = _ROOM * ((high - low) or 1.0)
    low, high = low - room, high + room
    inner = WIDTH - LEFT - RIGHT

    def place(value: float) -> float:
        return LEFT + inner * (value - low) / (high - low)

    base = TOP + ROW * len(cited)
    return ScorePlot(
        dots=tuple(
            _dot(one, place(score), row) for row, (one, score) in enumerate(zip(cited, scores, strict=True))
        ),
        band=None if level is None else (place(-level), place(level)),
        best=None if best is None else place(best),
        noise_level=level,
        noise_best=best,
        zero=place(0.0),
        ticks=tuple((place(value), f"{value:g}") for value in _ticks(low, high)),
        width=WIDTH,
        height=base + BOTTOM,
        base=base,
    )


def _dot(one: CitationRecord, x: float, row: int) -> Dot:
    return Dot(
        rank=one.rank,
        source=one.source,
        example_id=one.example_id,
        influence=one.influence_score or 0.0,
        determined=one.sign_determined,
        x=x,
        y=TOP + ROW * (row + 0.5),
    )


def _ticks(low: float, high: float) -> list[float]:
    """Round values within a range, three to ten of them."""
    step = 10.0 ** math.floor(math.log10(high - low))
    step = next(one for one in (step / 5, step / 2, step, 2 * step) if (high - low) / one <= 9)
    first = math.ceil(low / step)
    return [round(step * number, 10) for number in range(first, math.floor(high / step) + 1)]


@dataclass(frozen=True)
class CalibrationPoint:
    """Citations of one range of stated confidence."""

    name: str
    stated: float
    found: float
    low: float
    high: float
    judged: int
    x: float
    y: float
    whisker: tuple[float, float]
    radius: float


@dataclass(frozen=True)
class CalibrationPlot:
    """How often what was stated is borne out; on the diagonal is right."""

    people: tuple[CalibrationPoint, ...]
    measured: tuple[CalibrationPoint, ...]
    ticks: tuple[tuple[float, float, str], ...]
    left: int = LEFT
    right: int = LEFT + SQUARE
    top: int = TOP
    base: int = TOP + SQUARE
    width: int = LEFT + SQUARE + RIGHT
    height: int = TOP + SQUARE + BOTTOM


def calibration_plot(people: Sequence[Bin], measured: Sequence[Bin]) -> CalibrationPlot | None:
    """The plot; None where no citation that states a confidence was judged or measured."""
    points = [
        tuple(_point(one) for one in bins if one.judged and one.stated is not None)
        for bins in (people, measured)
    ]
    if not any(points):
        return None
    ticks = tuple(
        (LEFT + SQUARE * share / 100, TOP + SQUARE * (1 - share / 100), f"{share} %")
        for share in range(0, 101, 20)
    )
    return CalibrationPlot(points[0], points[1], ticks)


def _point(one: Bin) -> CalibrationPoint:
    stated, found = one.stated or 0.0, one.confirmed / one.judged
    low, high = one.interval

    def up(share: float) -> float:
        return TOP + SQUARE * (1 - share)

    return CalibrationPoint(
        name=one.name,
        stated=stated,
        found=found,
        low=low,
        high=high,
        judged=one.judged,
        x=LEFT + SQUARE * stated,
        y=up(found),
        whisker=(up(low), up(high)),
        radius=min(3.0 + math.sqrt(one.judged) / 4, 8.0),
    )


#: What stands for outputs without a citation; its mark says nothing.
NOTHING_CITED = "nothing cited"


@dataclass(frozen=True)
class Piece:
    """The outputs of one stretch of time whose first citation comes from one source."""

    source: str
    outputs: int
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Stretch:
    """One stretch of time."""

    label: str
    outputs: int
    pieces: tuple[Piece, ...]
    x: float
    named: bool


@dataclass(frozen=True)
class TimePlot:
    """Outputs over time, by the source of their first citation."""

    stretches: tuple[Stretch, ...]
    sources: tuple[tuple[str, int], ...]
    ticks: tuple[tuple[float, str], ...]
    nothing: str = NOTHING_CITED
    width: int = WIDTH
    height: int = TOP + TIME + BOTTOM
    left: int = LEFT
    base: int = TOP + TIME


def time_plot(received: Sequence[tuple[datetime, str | None]], edges: Sequence[datetime]) -> TimePlot | None:
    """The plot of outputs.

    Args:
        received: When each came, and the source of its first citation; None where it cites nothing.
        edges: Ends of the stretches, ascending; they hold all times.

    Returns:
        None where nothing came.
    """
    if not received:
        return None
    counts: list[Counter[str]] = [Counter() for _ in edges[1:]]
    for at, source in received:
        counts[sum(at >= edge for edge in edges[1:-1])][source or NOTHING_CITED] += 1
    most = max(sum(one.values()) for one in counts)
    sources = Counter(source or NOTHING_CITED for _, source in received).most_common()
    step = (WIDTH - LEFT - RIGHT) / len(counts)
    every = -(-len(counts) // 6)
    stretches = tuple(
        Stretch(
            label=period_label(edges[number], edges[number + 1] - edges[number]),
            outputs=sum(found.values()),
            pieces=_pieces(
                found, [name for name, _ in sources], x=LEFT + step * number, step=step, most=most
            ),
            x=LEFT + step * number,
            named=number % every == 0,
        )
        for number, found in enumerate(counts)
    )
    marks = sorted({most, -(-most // 2)})
    return TimePlot(
        stretches, tuple(sources), tuple((TOP + TIME * (1 - one / most), str(one)) for one in marks)
    )


def _pieces(
    found: Counter[str], names: Sequence[str], *, x: float, step: float, most: int
) -> tuple[Piece, ...]:
    made: list[Piece] = []
    top = float(TOP + TIME)
    for name in names:
        if found[name]:
            height = TIME * found[name] / most
            top -= height
            made.append(Piece(name, found[name], x + 0.14 * step, top, 0.72 * step, height))
    return tuple(made)
