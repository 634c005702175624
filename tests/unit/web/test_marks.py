"""Marks of spans and overlaps: nothing of the text is lost, doubled or moved, whatever the ranges."""

from hypothesis import given
from hypothesis import strategies as st

from web.drawing.marks import mark_pairs
from wherefrom.records import Span

SPANS = st.tuples(st.integers(0, 50), st.integers(1, 20)).map(
    lambda one: Span(start=one[0], end=one[0] + one[1])
)


@given(st.text(max_size=40), st.lists(SPANS, max_size=5), st.lists(SPANS, max_size=3))
def test_the_pieces_are_the_text_with_the_marks_of_each_character(text, spans, verbatim):
    """Character by character: its pair is that of the first span that holds it, and it is verbatim if an overlap holds it."""
    pairs = list(enumerate(spans, start=1))
    pieces = mark_pairs(text, pairs, verbatim=verbatim)
    assert "".join(one.text for one in pieces) == text
    found = [(one.pair, one.verbatim) for one in pieces for _ in one.text]
    for at in range(len(text)):
        pair = next((number for number, span in pairs if span.start <= at < span.end), None)
        assert found[at] == (pair, any(span.start <= at < span.end for span in verbatim))


def test_a_pair_shows_its_number_once():
    """A pair that an overlap cuts in three is numbered at its first piece."""
    pieces = mark_pairs("one two three", [(1, Span(start=0, end=13))], verbatim=[Span(start=4, end=7)])
    assert [(one.text, one.verbatim, one.opens) for one in pieces] == [
        ("one ", False, True),
        ("two", True, False),
        (" three", False, False),
    ]
