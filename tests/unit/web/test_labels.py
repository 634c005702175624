"""A message on a page names a field as the page shows it."""

import re
from pathlib import Path

from web.drawing.labels import label_of, with_labels

_TEMPLATES = Path("web/templates")
#: Boxes beside a text of their own, of which no message speaks.
_BOXES = {"row", "item", "blind", "by_rule", "dedupe"}


def fields() -> set[tuple[str, str]]:
    """Templates and the fields that they show."""
    found = set()
    for template in _TEMPLATES.glob("*.html"):
        for tag in re.findall(r"<(?:input|select|textarea)\b[^>]*>", template.read_text(encoding="utf-8")):
            name = re.search(r'\bname="(\w+)"', tag)
            if name is not None and 'type="hidden"' not in tag and name[1] not in _BOXES:
                found.add((template.name, name[1]))
    return found


def test_every_field_that_a_page_shows_has_a_label() -> None:
    """So that no message tells the name of a parameter."""
    found = fields()
    assert len(found) > len(_BOXES)
    assert {(template, name) for template, name in found if with_labels(f"`{name}`") == f"`{name}`"} == set()


def test_a_message_has_the_labels_of_its_page() -> None:
    """The same parameter has another label on another page; what is no field stays as it is."""
    message = "`until` is before `since`; send a day or `today`"
    assert with_labels(message) == "“Received to” is before “Received from”; send a day or `today`"
    assert with_labels(message, "/trail") == "“Until” is before “From”; send a day or `today`"
    assert (label_of("score_min"), label_of("no_field")) == ("Score from", "no field")
