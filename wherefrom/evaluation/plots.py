"""Plots of a card as SVG text: small, without scripts, readable on light and dark ground."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from wherefrom.attribution.calibration.reliability import Bin
from wherefrom.evaluation.estimates import Estimate

WIDTH, HEIGHT = 560, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 20, 44, 48
#: Told apart without colour too: each series has its own dashes.
_COLOURS = ("#2f6fb3", "#c2571a", "#2f8f5b", "#8a4fb0", "#8c6d1f")
_DASHES = ("none", "7 4", "2 3", "9 3 2 3", "1 4")
_STYLE = (
    "<style>.ground{fill:#fff}.ink{fill:#1c1f24}.line{stroke:#1c1f24}.faint{stroke:#d4d8de}"
    "@media(prefers-color-scheme:dark){.ground{fill:#171a1f}.ink{fill:#e6e8eb}.line{stroke:#e6e8eb}.faint{stroke:#3a4048}}</style>"
)


@dataclass(frozen=True)
class _Axes:
    """Maps values to places of the drawing."""

    x: tuple[float, float]
    y: tuple[float, float]

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Place of a value; beyond the frame it stays on its edge."""
        inner_width, inner_height = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
        across = min(max((x - self.x[0]) / (self.x[1] - self.x[0]), 0.0), 1.0)
        up = min(max((y - self.y[0]) / (self.y[1] - self.y[0]), 0.0), 1.0)
        return _LEFT + across * inner_width, HEIGHT - _BOTTOM - up * inner_height

    def line(self, first: tuple[float, float], last: tuple[float, float], *, extra: str) -> str:
        """A straight line between two values."""
        (x1, y1), (x2, y2) = self.at(*first), self.at(*last)
        return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" {extra}/>'

    def frame(
        self, *, x_ticks: Sequence[float], y_ticks: Sequence[float], x_label: str, y_label: str
    ) -> list[str]:
        """Grid, ticks and labels."""
        parts = []
        for value in y_ticks:
            x, y = self.at(self.x[0], value)
            parts += [
                self.line((self.x[0], value), (self.x[1], value), extra='class="faint"'),
                _text(x - 6, y + 4, f"{value:g}", anchor="end"),
            ]
        parts += [
            _text(self.at(value, self.y[0])[0], HEIGHT - _BOTTOM + 16, f"{value:g}") for value in x_ticks
        ]
        parts.append(_text((_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 10, x_label))
        middle = (_TOP + HEIGHT - _BOTTOM) / 2
        parts.append(
            f'<text class="ink" x="16" y="{middle:.1f}" text-anchor="middle" transform="rotate(-90 16 {middle:.1f})">{escape(y_label)}</text>'
        )
        return parts


def lds_bars(estimates: Mapping[str, Estimate], ceiling: Estimate | None) -> str:
    """LDS of each head with its interval, and the ceiling as a line."""
    lowest = min(0.0, *(one.interval[0] if one.interval else one.value for one in estimates.values()))
    axes = _Axes((0.0, float(len(estimates))), (round(lowest - 0.05, 1) if lowest < 0 else 0.0, 1.0))
    ticks = [value / 5 for value in range(round(axes.y[0] * 5), 6)]
    parts = axes.frame(x_ticks=(), y_ticks=ticks, x_label="", y_label="LDS")
    for place, (name, one) in enumerate(estimates.items()):
        (left, top), (right, ground) = (
            axes.at(place + 0.2, max(one.value, 0.0)),
            axes.at(place + 0.8, min(one.value, 0.0)),
        )
        parts.append(
            f'<rect x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" height="{max(ground - top, 0.5):.1f}" fill="{_COLOURS[place % 5]}"/>'
        )
        if one.interval is not None:
            parts += _whisker(axes, place + 0.5, one.interval)
        highest = axes.at(0, max(one.value, one.interval[1] if one.interval else one.value, 0.0))[1]
        parts.append(_text((left + right) / 2, highest - 6, f"{one.value:.3f}"))
        for row, words in enumerate(_two_lines(name)):
            parts.append(_text((left + right) / 2, HEIGHT - _BOTTOM + 16 + 14 * row, words))
    if ceiling is not None:
        height = ceiling.value
        extra = 'class="line" stroke-dasharray="6 4"'
        parts.append(axes.line((0, height), (axes.x[1], height), extra=extra))
        parts.append(
            _text(WIDTH - _RIGHT - 4, axes.at(0, height)[1] - 6, f"ceiling {height:.3f}", anchor="end")
        )
    return _drawing("LDS with 95 % interval", parts)


def recall_lines(curves: Mapping[str, Sequence[float]]) -> str:
    """Recall of known causes over the number of citations."""
    deepest = max(len(curve) for curve in curves.values())
    axes = _Axes((1.0, float(max(deepest, 2))), (0.0, 1.0))
    ticks = [0, 0.2, 0.4, 0.6, 0.8, 1]
    parts = axes.frame(
        x_ticks=range(1, deepest + 1), y_ticks=ticks, x_label="citations", y_label="recall of known causes"
    )
    for place, (name, curve) in enumerate(curves.items()):
        points = " ".join(
            "{:.1f},{:.1f}".format(*axes.at(rank, value)) for rank, value in enumerate(curve, start=1)
        )
        stroke = f'stroke="{_COLOURS[place % 5]}" stroke-width="2" stroke-dasharray="{_DASHES[place % 5]}"'
        parts.append(f'<polyline points="{points}" fill="none" {stroke}/>')
        y = HEIGHT - _BOTTOM - 14 - 16 * (len(curves) - 1 - place)
        x = WIDTH - _RIGHT - 210
        parts.append(f'<line x1="{x}" y1="{y - 4}" x2="{x + 30}" y2="{y - 4}" {stroke}/>')
        parts.append(_text(x + 38, y, name, anchor="start"))
    return _drawing("Recall of known causes", parts)


def reliability_diagram(bins: Sequence[Bin]) -> str:
    """Share that came true over the stated confidence; on the line is right."""
    axes, parts = _square(1.0, "stated confidence", "share that came true")
    for one in bins:
        x, y = axes.at(one.stated, one.realised)
        title = f"<title>stated {one.stated:.3f}, true {one.realised:.3f}, {one.count} citations</title>"
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{_COLOURS[0]}" fill-opacity=".8">{title}</circle>'
        )
    return _drawing("Reliability of confidence", parts)


def conformal_curve(table: Sequence[Mapping[str, Any]]) -> str:
    """Share of held-out controls that are cited over the level; under the line is safe."""
    reach = max(0.2, *(max(one["nominal"], one["realised"], *one["interval"]) for one in table))
    axes, parts = _square(1.05 * reach, "level", "controls that are cited")
    for one in table:
        low, high = one["interval"]
        parts += _whisker(axes, one["nominal"], (low, high))
        x, y = axes.at(one["nominal"], one["realised"])
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{_COLOURS[1]}"/>')
    return _drawing("False citations against the promised level", parts)


def _square(reach: float, x_label: str, y_label: str) -> tuple[_Axes, list[str]]:
    """Axes from zero with the diagonal."""
    axes = _Axes((0.0, reach), (0.0, reach))
    step = 0.2 if reach > 0.5 else 0.05
    ticks = [round(step * number, 2) for number in range(int(reach / step + 1e-9) + 1)]
    parts = axes.frame(x_ticks=ticks, y_ticks=ticks, x_label=x_label, y_label=y_label)
    parts.append(axes.line((0, 0), (reach, reach), extra='class="line" stroke-dasharray="4 4"'))
    return axes, parts


def _whisker(axes: _Axes, x: float, interval: tuple[float, float]) -> list[str]:
    """An interval as a vertical line with caps."""
    low, high = interval
    cap = 0.012 * (axes.x[1] - axes.x[0])
    extra = 'class="line" stroke-width="1.5"'
    ends = [axes.line((x - cap, value), (x + cap, value), extra=extra) for value in (low, high)]
    return [axes.line((x, low), (x, high), extra=extra), *ends]


def _two_lines(name: str) -> list[str]:
    """A label of a bar, broken at its comma or its middle space."""
    first, _, rest = name.partition(", ")
    return [first, rest] if rest else [name]


def _text(x: float, y: float, words: str, *, anchor: str = "middle") -> str:
    return f'<text class="ink" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _drawing(title: str, parts: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" '
        f'aria-label="{escape(title)}" font-family="system-ui, sans-serif" font-size="12">'
    )
    ground = f'<rect class="ground" width="{WIDTH}" height="{HEIGHT}"/>'
    heading = f'<text class="ink" x="{_LEFT}" y="22" font-size="15" font-weight="600">{escape(title)}</text>'
    return "".join([head, _STYLE, ground, heading, *parts, "</svg>"])
