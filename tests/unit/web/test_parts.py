"""The strip of the parts that carry a citation."""

import pytest

from tests.integration.db.builders import draft, example
from web.drawing.parts import parts_view
from wherefrom.records import CitationRecord, ModulePart


def cited(modules, influence=0.4):
    """A stored citation with these parts."""
    given = draft(1, example(0)).model_dump(exclude={"example", "modules", "influence_score"})
    text = {"example_id": "a", "training_example_id": 1, "source": "s", "prompt": "p", "completion": "c"}
    return CitationRecord(**given, **text, text_sha256="0" * 64, modules=modules, influence_score=influence)


def shown(record):
    """What the page shows of it; there is something."""
    view = parts_view(record)
    assert view is not None
    return view


def block(name, influence, usual=None):
    """A part that is a block."""
    return ModulePart(by="block", name=name, influence=influence, usual_share=usual)


def test_bars_are_shares_of_what_goes_with_the_influence():
    """Upwards from the line of zero; what speaks the other way hangs below it; the strip is filled."""
    (strip,) = shown(cited((block("0", 0.3), block("1", 0.2), block("2", -0.1)))).strips
    heights = [(bar.height, bar.against) for bar in strip.bars]
    assert heights == [
        (pytest.approx(75), False),
        (pytest.approx(50), False),
        (pytest.approx(25), True),
    ]
    assert strip.zero == pytest.approx(75)
    assert [bar.top for bar in strip.bars] == [pytest.approx(0), pytest.approx(25), pytest.approx(75)]
    assert strip.bars[0].text == "block 0: 60 % (+0.3000)"


def test_opponents_are_turned_over():
    """A part of negative influence carries an opponent."""
    (strip,) = shown(cited((block("0", -0.3), block("1", -0.1)), influence=-0.4)).strips
    assert [bar.against for bar in strip.bars] == [False, False]
    assert strip.bars[0].text == "block 0: 75 % (\N{MINUS SIGN}0.3000)"


def test_ticks_stand_where_an_average_citation_has_its_share():
    """In the scale of the bars, which leaves room for them."""
    view = shown(cited((block("0", 0.4, usual=0.5), block("1", 0.0, usual=0.5))))
    assert view.has_usual
    assert [bar.usual for bar in view.strips[0].bars] == [pytest.approx(50)] * 2
    assert view.strips[0].bars[1].text.endswith(", usually 50 %")


def test_nothing_is_shown_where_nothing_is_stored():
    """Citations of earlier releases and of other forms have no parts."""
    assert parts_view(cited(())) is None
    assert parts_view(cited((block("0", 0.1),), influence=None)) is None
