"""A card becomes tables whatever its keys are; plots become images."""

import base64

from hypothesis import given
from hypothesis import strategies as st

from web.drawing.card import card_plots, card_sections, not_learned, shown

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(max_size=8), JSON, max_size=6))
def test_every_card_can_be_shown(card):
    """No structure breaks the page; every cell is text and every row as wide as its table."""
    for section in card_sections(card):
        assert all(isinstance(text, str) for _, text in section.facts)
        for table in section.tables:
            assert {len(row) for row in table.rows} == {len(table.columns)}
    assert all(one.source.startswith("data:image/svg+xml;base64,") for one in card_plots(card))


def test_groups_become_sections_and_like_objects_become_tables():
    """Single values are facts; a list of objects and an object of objects are tables."""
    card = {
        "lds": 0.65432,
        "calibrated": True,
        "recall": {"facts": {"at_1": 0.8, "at_10": 1.0}, "rules": {"at_1": 0.5, "at_10": 0.75}},
        "stress": [{"kind": "paraphrase", "recall": 0.5}, {"kind": "suffix", "false_citations": 2}],
        "overhead": {"seconds_per_query": 0.1, "machine": {"cores": 2}},
        "plots": [{"title": "x", "svg": "<svg/>"}],
    }
    first, overhead, machine = card_sections(card)
    assert first.facts == (("lds", "0.6543"), ("calibrated", "yes"))
    recall, stress = first.tables
    assert (recall.columns, recall.rows[0]) == (("", "at 1", "at 10"), ("facts", "0.8", "1"))
    assert (stress.columns, stress.rows[1]) == (("kind", "recall", "false citations"), ("suffix", "", "2"))
    assert (overhead.title, overhead.facts) == ("overhead", (("seconds per query", "0.1"),))
    assert (machine.title, machine.facts) == ("overhead: machine", (("cores", "2"),))


def test_intervals_and_lists():
    """Two floats are an interval, other lists are separated by commas."""
    assert shown([0.61, 0.69]) == "0.61 to 0.69"
    assert shown([1, 2]) == "1, 2"
    assert shown([]) == shown(None) == "–"  # noqa: RUF001 - the dash of the page


def test_plots_are_images_and_what_is_none_is_passed_over():
    """SVG is never put into the page's own markup."""
    svg = '<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
    (plot,) = card_plots({"plots": [{"title": "LDS", "svg": svg}, {"svg": 3}, "x", {"title": "no"}]})
    assert plot.title == "LDS"
    assert base64.b64decode(plot.source.partition(",")[2]).decode() == svg
    assert card_plots({"plots": "x"}) == card_plots({}) == ()


def test_corpus_that_was_not_learned():
    """The reason is found; every other card, whatever it holds, says nothing."""
    assert not_learned({"learning": {"learned": "NO: no better than chance"}}) == "no better than chance"
    for learning in ({"learned": "yes"}, {"learned": "not checked"}, {"learned": 3}, "NO: x", None):
        assert not_learned({"learning": learning}) is None
    assert not_learned({}) is None
