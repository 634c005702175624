"""Colours of sources: none twice on one page, however many there are."""

import re

import pytest
from jinja2 import DictLoader
from starlette.requests import Request

from web.drawing import render as rendering
from web.drawing.display import source_colour
from web.drawing.render import STATIC_DIR, environment, render
from web.drawing.source_colours import HUES, MARKS, NO_MARK, SourceColours

CSS = (STATIC_DIR / "wherefrom.css").read_text(encoding="utf-8")


@pytest.mark.parametrize("number", [2, 24, MARKS, MARKS + 40])
def test_no_two_sources_of_a_page_look_alike(number: int) -> None:
    """As far as there are marks; those beyond have a mark that says nothing, and no mark is wasted."""
    colours = SourceColours()
    sources = [f"vendor_batch_{one}" for one in range(number)]
    marks = [colours.mark_of(one) for one in sources]
    told = [one for one in marks if one != NO_MARK]
    assert len(set(told)) == len(told) == min(number, MARKS)
    assert [colours.mark_of(one) for one in reversed(sources)] == marks[::-1], (
        "a mark changed within the page"
    )


def test_a_source_that_stands_alone_has_its_favourite() -> None:
    """So it looks the same on most pages."""
    for name in ("crm_export", "policies", "<b>"):
        assert SourceColours().mark_of(name) == str(source_colour(name))


def test_the_style_sheet_tells_every_mark_apart() -> None:
    """Each number has a hue, each form a rule of its own, for the marks beside names and for plots."""
    hues: dict[int, int] = {}
    for selectors, hue in re.findall(r"^((?:\.src-\d+(?:, )?)+) \{ --hue: (\d+); \}$", CSS, re.MULTILINE):
        hues |= {int(one): int(hue) for one in re.findall(r"\d+", selectors)}
    assert sorted(hues) == list(range(MARKS))
    assert len(set(hues.values())) == HUES
    assert all(hues[one] == hues[one % HUES] for one in hues)
    for place in ("::before", ".src-fill"):
        rules = [
            line
            for line in CSS.splitlines()
            if line.startswith((":is(.src-", ".src-fill:is(")) and place in line
        ]
        looks = [
            tuple(f".src-{12 * form}," in line or f".src-{12 * form})" in line for line in rules)
            for form in range(8)
        ]
        assert len(set(looks)) == 8, f"two forms look alike {place}"


def test_pages_share_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each page gives its own marks, inside macros of other templates too; without a page the filter refuses to guess."""
    templates = {
        "tags.html": "{% macro tag(name) %}[{{ name | source_colour }}]{% endmacro %}",
        "page.html": '{% import "tags.html" as tags with context %}{% for one in names %}{{ tags.tag(one) }}{{ one | source_colour }};{% endfor %}',
        "blind.html": '{% import "tags.html" as tags %}{{ tags.tag("a") }}',
    }
    made = environment().overlay(loader=DictLoader(templates))
    monkeypatch.setattr(rendering, "environment", lambda: made)
    request = Request({"type": "http", "path": "/", "headers": [], "query_string": b"", "state": {}})
    names = [f"s{number}" for number in range(60)]
    page = bytes(render("page.html", request, names=names).body).decode()
    pairs = re.findall(r"\[(\d+)\](\d+);", page)
    assert len({inside for inside, _ in pairs}) == 60
    assert all(inside == outside for inside, outside in pairs)
    assert bytes(render("page.html", request, names=names).body).decode() == page
    with pytest.raises(TypeError, match="without its context"):
        render("blind.html", request)
