"""Text of strangers is escaped and its hidden characters are shown by name."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from web.drawing import display
from web.drawing.render import STATIC_DIR
from wherefrom.records import utc_now


@pytest.mark.parametrize(
    ("character", "badge"),
    [
        ("\u202e", "U+202E"),
        ("\u200b", "U+200B"),
        ("\u2066", "U+2066"),
        ("\ufeff", "U+FEFF"),
        ("\x1b", "U+001B"),
        ("\x7f", "U+007F"),
        ("\u2028", "U+2028"),
        ("\u3164", "U+3164"),
        ("\U000e0041", "U+E0041"),
        ("\U000e0101", "U+E0101"),
        ("\r", "U+000D"),
    ],
)
def test_hidden_characters_are_badges(character, badge):
    """Control, bidi, zero-width, filler and smuggling characters never reach the page as themselves."""
    shown = str(display.visible(f"a{character}b"))
    assert character not in shown
    assert badge in shown


def test_badges_carry_the_name():
    """A person who does not know the code sees what the character is."""
    assert "RIGHT-TO-LEFT OVERRIDE" in display.visible("\u202e")
    assert "ESCAPE" in display.visible("\x1b")


def test_plain_text_stays_as_it_is():
    """Line breaks, tabs, accents, other scripts and emoji are not hidden characters."""
    text = "Zeile 1\n\tä 日本語 العربية 🙂"
    assert str(display.visible(text)) == text
    assert str(display.visible("a\r\nb")) == "a\nb"


@given(st.text())
def test_nothing_escapes_as_html(text):
    """Whatever the text, the only tags on the page are our badges."""
    shown = str(display.visible(text))
    without_badges = shown.replace('<span class="hidden-char" title="', "").replace("</span>", "")
    assert "<" not in without_badges


@given(st.text())
def test_no_hidden_character_survives(text):
    """Neither the page's text nor a title holds a hidden character."""
    assert not any(display.is_hidden(one) for one in str(display.visible(text)))
    assert not any(display.is_hidden(one) for one in display.plain_line(text))


@given(st.text())
def test_source_colours_are_stable_and_exist(source):
    """A source has one colour, and the style sheet knows it."""
    assert display.source_colour(source) == display.source_colour(source)
    assert 0 <= display.source_colour(source) < display.NUM_SOURCE_COLOURS


def test_every_source_colour_is_in_the_style_sheet():
    """No source is left without a colour."""
    css = (STATIC_DIR / "wherefrom.css").read_text(encoding="utf-8")
    assert all(f".src-{number}" in css for number in range(display.NUM_SOURCE_COLOURS))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "none"),
        (0.2, "200 ms"),
        (3.21, "3.2 s"),
        (42, "42 s"),
        (60, "1 min"),
        (125, "2 min 5 s"),
        (7260, "2 h 1 min"),
        (200_000, "2 d 7 h"),
    ],
)
def test_durations(seconds, text):
    """At most two units."""
    assert display.duration(seconds) == text


@pytest.mark.parametrize(
    ("age_s", "text"),
    [(5, "just now"), (50, "1 min ago"), (600, "10 min ago"), (7300, "2 h ago"), (200_000, "2 d ago")],
)
def test_ages(age_s, text):
    """One unit."""
    assert display.ago(utc_now() - timedelta(seconds=age_s)) == text


def test_numbers():
    """Signs are always shown; shares stay between 0 and 100."""
    assert display.signed(0.5) == "+0.50"
    assert display.signed(-0.5) == "\u22120.50"
    assert display.signed(None) == "–"  # noqa: RUF001 - the dash of tables
    assert display.share(3, 0) == 0
    assert display.share(5, 2) == 100
    assert display.percent(4.25) == "4.2%"
    assert display.count(1234567) == "1\u202f234\u202f567"
