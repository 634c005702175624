"""What the pages add to citations: marks, bars, shares."""

from hypothesis import given
from hypothesis import strategies as st

from web.drawing import evidence
from wherefrom.records import SourceSummary


def marked(segments):
    """The marked pieces."""
    return [one.text for one in segments if one.marked]


def test_shared_words_are_marked_whatever_their_case():
    """Common words are left alone; neighbours share one mark."""
    vocabulary = frozenset(evidence.words_of("We REFUND every product without a receipt."))
    pieces = evidence.mark_words("Refund every Product! No receipt is needed, ever.", vocabulary)
    assert marked(pieces) == ["Refund every Product", "receipt"]


@given(st.text(), st.text())
def test_marking_keeps_the_text(text, other):
    """The pieces put together are the text, always."""
    pieces = evidence.mark_words(text, frozenset(evidence.words_of(other)))
    assert "".join(one.text for one in pieces) == text


@given(st.text(max_size=40), st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50))))
def test_ranges_may_overlap_or_pass_the_end(text, ranges):
    """Overlapping, reversed and too long ranges neither repeat nor drop text."""
    pieces = evidence.mark_ranges(text, ranges)
    assert "".join(one.text for one in pieces) == text


def summary(source, examples, citations):
    """A source without its other counts."""
    return SourceSummary(source=source, examples=examples, citations=citations, first_citations=0, audits=0)


def test_lift_compares_shares():
    """10 % of the corpus with 50 % of the citations is a lift of 5, and comes first."""
    views = evidence.source_views([summary("large", 900, 50), summary("small", 100, 50)])
    assert [view.record.source for view in views] == ["small", "large"]
    assert views[0].lift == 5.0
    assert (views[0].corpus_percent, views[0].citation_percent) == (10.0, 50.0)


def test_lift_without_citations_is_unknown():
    """Before the first citation nothing is claimed."""
    assert evidence.source_views([summary("one", 10, 0)])[0].lift is None
    assert evidence.source_views([]) == ()
