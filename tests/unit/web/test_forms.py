"""What the forms of the pages send."""

import pytest

from web.asking.forms import Form
from web.asking.review_forms import filter_words
from web.drawing.labels import label_of
from web.guard.caller import NOBODY
from wherefrom.errors import InvalidRequest
from wherefrom.records import FILTER_NAMES, AuditFilter


def test_ticked_boxes_are_numbers() -> None:
    """In their order; what is no number, or more digits than Python reads, is passed over."""
    sent = ["7", "x", "", "-3", "\u0663", "9" * 5000, "12"]
    assert Form(NOBODY, {"row": sent}).ticked("row") == [7, 12]
    assert Form(NOBODY, {}).ticked("row") == []


@pytest.mark.parametrize(("sent", "number"), [("7", 7), (" -3 ", -3), ("", None)])
def test_a_number_is_read(sent: str, number: int | None) -> None:
    """With its sign; an empty field is none."""
    assert Form(NOBODY, {"most": [sent]}).number("most") == number


@pytest.mark.parametrize("sent", ["x", "--3", "-", "\u0663"])
def test_what_is_no_number_is_told(sent: str) -> None:
    """Never a fault of the service."""
    with pytest.raises(InvalidRequest, match="`most` is not a number"):
        Form(NOBODY, {"most": [sent]}).number("most")


def test_a_field_holds_many_numbers() -> None:
    """Commas and spaces stand between them."""
    assert Form(NOBODY, {"row": ["7, 12,3  9"]}).numbers("row", most=4) == [7, 12, 3, 9]
    assert Form(NOBODY, {}).numbers("row", most=4) == []


@pytest.mark.parametrize("sent", ["7 x", "-3", "\u0663", "9" * 21, "9" * 5000])
def test_a_field_with_anything_but_numbers_is_refused(sent: str) -> None:
    """All of it, and before Python reads more digits than it takes."""
    with pytest.raises(InvalidRequest, match="`row`"):
        Form(NOBODY, {"row": [sent]}).numbers("row", most=300)


def test_a_filter_is_told_by_the_labels_of_its_form() -> None:
    """Nobody has to know the name of a parameter; every filter has a label."""
    found = filter_words(AuditFilter(flag_reason="tone", in_output="refund", score_min=0.5))
    assert sorted(found) == [("Output has", "refund"), ("Reason", "tone"), ("Score from", "0.5")]
    assert {name for name in FILTER_NAMES if label_of(name) == name.replace("_", " ")} == set()
    assert filter_words(None) == filter_words(AuditFilter()) == []
