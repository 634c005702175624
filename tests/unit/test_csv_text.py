"""CSV is shown by every spreadsheet and run by none."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherefrom.csv_text import csv_line, neutral

#: What locales and import dialogues separate cells by.
SEPARATORS = (",", ";", "\t", "|")
_QUOTES_AND_SPACES = " \t\r\n\v\f\"'"


def _cells_of(text: str) -> list[str]:
    """All cells that a spreadsheet of any locale makes of a file, as it would look for a formula in them."""
    rows = [row for separator in SEPARATORS for row in csv.reader(io.StringIO(text), delimiter=separator)]
    return [cell for row in rows for cell in row]


def _runs(cell: str) -> bool:
    """Whether a formula begins the cell; quotes and spaces before it do not save anybody."""
    bare = cell.lstrip(_QUOTES_AND_SPACES)
    quoted = cell[: len(cell) - len(bare)].endswith("'")
    return not quoted and bare.startswith(("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20"))


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "\uff1d"])
def test_formulas_in_csv_cells_are_text(start):
    """A spreadsheet runs nothing that a model said."""
    assert neutral(f"{start}HYPERLINK(1)") == f"'{start}HYPERLINK(1)"
    assert csv_line(["plain", -1.5, None, 3, True]) == "plain,-1.5,,3,True\r\n"


@pytest.mark.parametrize(
    "text",
    [
        "thanks;=cmd|'/C calc'!A0", "thanks; =cmd", "thanks\t=cmd", 'thanks;"=cmd"', 'thanks,"=cmd', "a\n=cmd", "a\r\n@SUM(1)", "a;+1", "a|-1",
        ";=1;=2;=3", '";=1', "a;\u00a0=1", "a;\t=1", "\t=1", " =1", '""=1', "';=1",
    ],
)  # fmt: skip
def test_no_locale_finds_a_formula_inside_a_text(text):
    """Where `;` or a tab separates, a cell begins in the middle of ours."""
    assert not [cell for cell in _cells_of(csv_line([1, text, "end"])) if _runs(cell)]
    assert not [cell for cell in _cells_of(csv_line([text])) if _runs(cell)]


_PARTS = st.sampled_from(["=", "+", "-", "@", ";", ",", "\t", "|", '"', "'", " ", "\n", "\r\n", "a", "1"])


@given(st.lists(st.lists(_PARTS, max_size=12).map("".join), min_size=1, max_size=3))
def test_no_text_makes_a_formula(texts):
    """Whatever stands in the cells."""
    assert not [cell for cell in _cells_of(csv_line(texts)) if _runs(cell)]


@pytest.mark.parametrize(
    "text", ["a well-known fact", "1-2", "me@example.org", "x = 1", "a; b, c", "C++", "it's -5 degrees"]
)
def test_ordinary_texts_stay_as_they_are(text):
    """Only beginnings are marked."""
    assert neutral(text) == text
