"""The strip that shows which parts of the model carry a citation: bars of its blocks and of its kinds of linear layers. No SQL, no HTML.

A bar is the part's share of what goes with the influence; what speaks the other way hangs below the line. A tick marks the share of an average citation.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from web.drawing.display import signed
from wherefrom.records import CitationRecord, ModulePart

_GAP = 0.12


@dataclass(frozen=True)
class Bar:
    """One part; places and lengths in percent of the strip."""

    name: str
    left: float
    width: float
    top: float
    height: float
    #: Whether the part speaks against the citation's sign.
    against: bool
    #: Where the tick of an average citation stands; None where the bundle did not say.
    usual: float | None
    #: What stands beside the bar where nobody sees it.
    text: str


@dataclass(frozen=True)
class Strip:
    """The bars of one kind of parts, in the order of the model."""

    title: str
    bars: tuple[Bar, ...]
    #: Where the line of zero stands, percent of the height.
    zero: float


@dataclass(frozen=True)
class PartsView:
    """Which parts of the model carry one citation."""

    words: str
    strips: tuple[Strip, ...]
    has_usual: bool


def parts_view(record: CitationRecord) -> PartsView | None:
    """What the page shows of a citation's parts; None where none are stored."""
    if not record.modules or not record.influence_score:
        return None
    sides: tuple[tuple[str, Literal["block", "linear"]], ...] = (
        ("Blocks", "block"),
        ("Linear layers", "linear"),
    )
    strips = [
        _strip(title, [part for part in record.modules if part.by == by], record.influence_score)
        for title, by in sides
    ]
    return PartsView(
        words=record.carried_by or "",
        strips=tuple(one for one in strips if one.bars),
        has_usual=any(part.usual_share is not None for part in record.modules),
    )


def _strip(title: str, parts: Sequence[ModulePart], influence: float) -> Strip:
    sign = 1.0 if influence > 0 else -1.0
    carried = sum(max(sign * part.influence, 0.0) for part in parts) or 1.0
    shares = [sign * part.influence / carried for part in parts]
    known = [*shares, *(part.usual_share or 0.0 for part in parts)]
    high, low = max([0.0, *known]), min([0.0, *known])
    scale = 100 / ((high - low) or 1.0)
    zero, step = scale * high, 100 / max(len(parts), 1)
    bars = tuple(
        Bar(
            name=part.name,
            left=step * (place + _GAP / 2),
            width=step * (1 - _GAP),
            top=zero - scale * max(share, 0.0),
            height=scale * abs(share),
            against=share < 0,
            usual=None if part.usual_share is None else zero - scale * part.usual_share,
            text=_text(part, share),
        )
        for place, (part, share) in enumerate(zip(parts, shares, strict=True))
    )
    return Strip(title, bars, zero)


def _text(part: ModulePart, share: float) -> str:
    what = f"block {part.name}" if part.by == "block" else part.name
    usual = "" if part.usual_share is None else f", usually {100 * part.usual_share:.0f} %"
    return f"{what}: {100 * share:.0f} % ({signed(part.influence, 4)}){usual}"
