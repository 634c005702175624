"""Marks in the texts of a citation: numbered pairs of stretches that carry the score, and what is common word for word.

Two layers that may overlap: a piece of text belongs to at most one pair (the strongest) and may be verbatim beside that.
Escaping is left to the templates; nothing here makes HTML.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from web.drawing.shorten import CITED_CHARACTERS, shortened
from wherefrom.records import CitationRecord, Span

#: Pairs that are shown, strongest first; more colours could not be told apart. The JSON has all of them.
SHOWN_PAIRS = 5


@dataclass(frozen=True)
class Piece:
    """A piece of a text with its marks."""

    text: str
    #: Number of its pair, from 1; None outside of all pairs.
    pair: int | None
    #: It stands in both texts word for word.
    verbatim: bool
    #: The first piece of its pair in this text, which shows the pair's number.
    opens: bool
    #: Characters behind it that the page does not show.
    left_out: int = 0

    @property
    def marked(self) -> bool:
        """It belongs to a pair, or stands in both texts."""
        return self.pair is not None or self.verbatim


@dataclass(frozen=True)
class Marked:
    """Output and training example of one citation with their marks."""

    output: tuple[Piece, ...]
    example: tuple[Piece, ...]
    #: Share of the score in percent, by number of the pair.
    shares: dict[int, float]
    #: Length in tokens of the longest run that both have word for word; 0 where there is none.
    longest_overlap: int


def marked_texts(record: CitationRecord, output: str) -> Marked | None:
    """Both texts with the marks of a citation, long ones shortened; None where it stores no marks, or the output was erased."""
    if not output or not (record.spans or record.overlaps):
        return None
    pairs = list(enumerate(record.spans[:SHOWN_PAIRS], start=1))
    return Marked(
        output=shortened(
            mark_pairs(
                output,
                [(number, one.output) for number, one in pairs],
                verbatim=[one.output for one in record.overlaps],
            ),
            CITED_CHARACTERS,
        ),
        example=shortened(
            mark_pairs(
                record.completion,
                [(number, one.example) for number, one in pairs],
                verbatim=[one.example for one in record.overlaps],
            ),
            CITED_CHARACTERS,
        ),
        shares={number: 100 * one.share for number, one in pairs},
        longest_overlap=max((one.tokens for one in record.overlaps), default=0),
    )


def mark_pairs(
    text: str, pairs: Sequence[tuple[int, Span]], *, verbatim: Sequence[Span]
) -> tuple[Piece, ...]:
    """The text in pieces; put together they are the text.

    Args:
        text: The text.
        pairs: Number and stretch of each pair, strongest first; where two overlap the stronger one has the characters.
        verbatim: Stretches that stand in both texts; what lies beyond the end of the text is cut.
    """
    edges = {0, len(text)}
    for span in (*(span for _, span in pairs), *verbatim):
        edges |= {min(span.start, len(text)), min(span.end, len(text))}
    ordered = sorted(edges)
    pieces: list[Piece] = []
    opened: set[int] = set()
    for start, end in pairwise(ordered):
        pair = next((number for number, span in pairs if span.start <= start < span.end), None)
        same = any(span.start <= start < span.end for span in verbatim)
        if pieces and (pieces[-1].pair, pieces[-1].verbatim) == (pair, same):
            last = pieces.pop()
            pieces.append(Piece(last.text + text[start:end], pair, same, last.opens))
            continue
        opens = pair is not None and pair not in opened
        opened |= {pair} if pair is not None else set()
        pieces.append(Piece(text[start:end], pair, same, opens))
    return tuple(pieces)
