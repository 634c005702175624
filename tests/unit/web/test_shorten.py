"""What a page shows of a long text."""

from hypothesis import given
from hypothesis import strategies as st

from web.drawing.evidence import Segment, plain_segments, turn_views
from web.drawing.marks import mark_pairs
from web.drawing.shorten import AROUND, OUTPUT_CHARACTERS, TURNS_CHARACTERS, last_that_fit, shortened
from wherefrom.records import Message, Span


def test_a_text_within_the_limit_stays_as_it_is():
    """The same parts."""
    parts = (Segment("abc", marked=False), Segment("d" * 500, marked=True))
    assert shortened(parts, 503) == parts


def test_the_middle_before_a_mark_is_left_out_and_counted():
    """The beginning, what stands before the mark, the mark, and what follows as far as there is room."""
    text = "a" * 10_000 + "MARK" + "b" * 10_000
    pieces = mark_pairs(text, [(1, Span(start=10_000, end=10_004))], verbatim=[])
    shown = shortened(pieces, 2000)
    assert [len(one.text) for one in shown] == [AROUND, AROUND, 4, 2000 - 2 * AROUND - 4]
    assert [one.left_out for one in shown] == [10_000 - 2 * AROUND, 0, 0, 10_000 - (2000 - 2 * AROUND - 4)]
    assert shown[2].text == "MARK"


@given(st.lists(st.tuples(st.integers(0, 3000), st.booleans()), max_size=30), st.integers(1, 5000))
def test_nothing_is_lost_without_being_counted(lengths, limit):
    """Shown and left out are the whole text, whatever its parts; and never more than the limit is shown."""
    parts = [Segment("x" * length, marked=marked) for length, marked in lengths]
    shown = shortened(parts, limit)
    assert sum(len(one.text) + one.left_out for one in shown) == sum(length for length, _ in lengths)
    assert sum(len(one.text) for one in shown) <= max(limit, 0)


def test_the_last_turns_are_shown():
    """As many as fit; the very last always, shortened."""
    turns = [Message(role="user", content="x" * 5000) for _ in range(10)]
    skipped, views = turn_views(turns)
    assert (skipped, len(views)) == (6, 4)
    assert last_that_fit(["a" * (TURNS_CHARACTERS + 1)], TURNS_CHARACTERS) == 0
    assert last_that_fit([], 10) == 0
    [only] = turn_views([Message(role="user", content="y" * 100_000)])[1]
    assert sum(len(one.text) for one in only.content) == OUTPUT_CHARACTERS


def test_plain_texts_are_cut_at_the_end():
    """And say by how much."""
    [segment] = plain_segments("z" * (OUTPUT_CHARACTERS + 7))
    assert segment.left_out == 7
