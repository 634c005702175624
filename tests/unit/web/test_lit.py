"""The output's words are lit by what goes through them, and near-duplicates fold into one row."""

from hypothesis import given
from hypothesis import strategies as some

from tests.unit.records.test_plain_sentence import citation
from web.drawing.evidence import CitationView
from web.drawing.folding import folded
from web.drawing.lit import LEVELS, lit_output
from wherefrom.records import CitationRecord, EvidenceSpan, Span

TEXT = "We refund every product at any time."


def pair(start: int, end: int, share: float) -> EvidenceSpan:
    """A stretch of the output with its share."""
    return EvidenceSpan(output=Span(start=start, end=end), example=Span(start=0, end=1), share=share)


def test_brightness_is_what_goes_through() -> None:
    """Two citations over the same words add up; one of negative influence lights nothing."""
    cited = [
        citation(1, influence_score=0.4, spans=(pair(3, 9, 0.5),)),
        citation(2, influence_score=0.6, spans=(pair(3, 9, 0.5), pair(24, 35, 0.1))),
        citation(3, influence_score=-0.9, spans=(pair(0, 2, 1.0),)),
    ]
    pieces = lit_output(TEXT, cited, [Span(start=0, end=9)])
    assert "".join(one.text for one in pieces) == TEXT
    by_text = {one.text: one for one in pieces}
    assert (by_text["refund"].level, by_text["refund"].ranks) == (LEVELS, (2, 1))
    assert by_text["refund"].percent == 50.0
    assert (by_text["at any time"].level, by_text["at any time"].ranks) == (1, (2,))
    assert by_text["We "].level == 0
    assert by_text["We "].asked
    assert by_text["refund"].opens


@given(
    some.text(max_size=40),
    some.lists(some.tuples(some.integers(0, 60), some.integers(1, 60), some.floats(0.01, 1)), max_size=8),
)
def test_pieces_are_the_text(text: str, stretches: list[tuple[int, int, float]]) -> None:
    """Whatever spans are stored, nothing is lost or doubled, and levels stay in range."""
    spans = tuple(pair(start, start + length, share) for start, length, share in stretches)
    pieces = lit_output(text, [citation(1, spans=spans)], [])
    assert "".join(one.text for one in pieces) == text
    assert all(0 <= one.level <= LEVELS for one in pieces)


def view(record: CitationRecord) -> CitationView:
    """A citation on the page, without what folding does not look at."""
    return CitationView(record, 0.0, (), (), (), None, None)


def test_near_duplicates_fold_under_the_strongest() -> None:
    """By the ids that the bundle told, from either side, and by equal words where it told none."""
    cited = [
        citation(1, completion="a"),
        citation(2, completion="b", alike=("ex-4", "ex-9")),
        citation(3, completion="A ", prompt=" "),
        citation(4, completion="d", alike=("ex-2",)),
        citation(5, completion="e", alike=("ex-9",)),
        citation(6, completion="f"),
    ]
    found = folded([view(one) for one in cited])
    assert [(one.view.record.rank, [other.record.rank for other in one.alike]) for one in found] == [
        (1, [3]),
        (2, [4, 5]),
        (6, []),
    ]
