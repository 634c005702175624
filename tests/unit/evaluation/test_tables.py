"""Tables of text: widths, formats, intervals, what is missing."""

import pytest

from wherefrom.evaluation.tables import Column, table

COLUMNS = (Column("method", 10, left=True), Column("LDS", 7, ".3f"), Column("95 %", 16, ".2f"))


def test_a_head_and_a_line_for_each_row():
    """Names stand on the left, numbers on the right; a pair is an interval."""
    assert table(COLUMNS, [("bm25", 0.51234, (0.4, 0.6)), ["exact", 0.6, [-0.5, -0.11]]]) == [
        "method        LDS            95 %",
        "bm25        0.512    0.40 to 0.60",
        "exact       0.600  -0.50 to -0.11",
    ]


def test_what_was_not_measured_is_a_dash_and_what_is_left_out_is_empty():
    """None is a dash; a row may end early."""
    assert table(COLUMNS, [("none", None)])[1:] == ["none            -"]


def test_a_row_with_too_many_values_is_a_bug():
    """Nothing is dropped without a word."""
    with pytest.raises(ValueError, match="4 values for 3 columns"):
        table(COLUMNS, [("a", 1.0, (0.0, 1.0), 2.0)])
