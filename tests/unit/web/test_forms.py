"""What the forms of the pages send."""

from web.caller import NOBODY
from web.forms import Form


def test_ticked_boxes_are_numbers() -> None:
    """In their order; what is no number, or more digits than Python reads, is passed over."""
    sent = ["7", "x", "", "-3", "\u0663", "9" * 5000, "12"]
    assert Form(NOBODY, {"row": sent}).ticked("row") == [7, 12]
    assert Form(NOBODY, {}).ticked("row") == []
