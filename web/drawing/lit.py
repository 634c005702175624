"""The flagged output with the stretches lit that its citations rest on: the more influence goes through a stretch, the brighter. No HTML.

What a stretch carries is the sum, over the citations that speak for the output, of their influence times the share that their pair of stretches has of it.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from web.drawing.marks import SHOWN_PAIRS
from web.drawing.shorten import OUTPUT_CHARACTERS, shortened
from wherefrom.records import CitationRecord, Span

#: Steps of brightness in the style sheet.
LEVELS = 5
#: Citations that one stretch names, strongest first.
NAMED_CITATIONS = 8


@dataclass(frozen=True)
class LitPiece:
    """A piece of the output."""

    text: str
    #: Brightness, 1 to `LEVELS`; 0 where no citation rests on it.
    level: int
    #: Ranks of the citations that rest on it, strongest first.
    ranks: tuple[int, ...]
    #: Share of the influence of all citations that goes through it, percent.
    percent: float
    #: The producer asked about it.
    asked: bool
    #: Its strongest citation is another one than that of the piece before, so a number is shown.
    opens: bool
    #: Characters behind it that the page does not show.
    left_out: int = 0

    @property
    def marked(self) -> bool:
        """It is shown with a mark."""
        return self.level > 0 or self.asked


@dataclass(frozen=True)
class _Part:
    """What one citation adds to a stretch."""

    span: Span
    rank: int
    weight: float


def lit_output(
    completion: str, citations: Sequence[CitationRecord], asked: Sequence[Span]
) -> tuple[LitPiece, ...]:
    """The output in pieces, shortened around its marks; put together they are the text.

    Args:
        completion: The flagged output.
        citations: Its citations; those without a positive influence light nothing.
        asked: Ranges that the producer asked about.
    """
    parts = _parts(citations)
    total = sum(max(one.influence_score or 0.0, 0.0) for one in citations) or 1.0
    edges = {0, len(completion)}
    for span in (*(one.span for one in parts), *asked):
        edges |= {min(span.start, len(completion)), min(span.end, len(completion))}
    stretches = [(start, end, _carried(parts, start)) for start, end in pairwise(sorted(edges))]
    brightest = max((sum(carried.values()) for _, _, carried in stretches), default=0.0)
    pieces: list[LitPiece] = []
    before: int | None = None
    for start, end, carried in stretches:
        ranks = sorted(carried, key=lambda rank: (-carried[rank], rank))[:NAMED_CITATIONS]
        heat = sum(carried.values())
        first = ranks[0] if ranks else None
        pieces.append(
            LitPiece(
                text=completion[start:end],
                level=_level(heat, brightest),
                ranks=tuple(ranks),
                percent=100 * heat / total,
                asked=any(span.start <= start < span.end for span in asked),
                opens=first is not None and first != before,
            )
        )
        before = first
    return shortened(pieces, OUTPUT_CHARACTERS)


def _parts(citations: Sequence[CitationRecord]) -> list[_Part]:
    return [
        _Part(pair.output, one.rank, (one.influence_score or 0.0) * pair.share)
        for one in citations
        if (one.influence_score or 0.0) > 0
        for pair in one.spans[:SHOWN_PAIRS]
    ]


def _carried(parts: Sequence[_Part], at: int) -> dict[int, float]:
    """What goes through the stretch that begins here, by rank of the citation."""
    found: dict[int, float] = defaultdict(float)
    for one in parts:
        if one.span.start <= at < one.span.end:
            found[one.rank] += one.weight
    return found


def _level(heat: float, brightest: float) -> int:
    """The step of brightness: any heat is seen, the most of it is brightest."""
    if heat <= 0 or brightest <= 0:
        return 0
    return min(LEVELS, 1 + int(LEVELS * heat / brightest * 0.999))
