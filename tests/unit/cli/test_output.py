"""What reaches the terminal."""

import pytest

from wherefrom import errors
from wherefrom.cli.output import ExitCode, exit_code_of, many_lines, one_line
from wherefrom.terminal import visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain äöü 漢字 😀", "plain äöü 漢字 😀"),
        ("\x1b[2J\x07", "\\x1b[2J\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("a\u202eb", "a\\u202eb"),
        ("\u2066\u200b\ufeff", "\\u2066\\u200b\\ufeff"),
        ("\U000e0041", "\\U000e0041"),
        ("\u2028", "\\u2028"),
        ("a\r\nb\tc", "a\\r\\nb\\tc"),
        ("\ud800", "\\ud800"),
        ("👩\u200d🚀", "👩\u200d🚀"),
    ],
)
def test_visible(text: str, shown: str) -> None:
    """Whatever moves the cursor, turns the direction or hides itself is written out."""
    assert visible(text) == shown


def test_lines() -> None:
    """A cell is one line, cut with an ellipsis; a whole text keeps its line breaks and no other control."""
    assert one_line("a\nb" + "c" * 50, length=10).plain == "a bcccccc…"
    assert many_lines("a\r\nb\x1b").plain == "a\nb\\x1b"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.NotFound(""), ExitCode.NOT_FOUND),
        (errors.ServiceUnavailable(""), ExitCode.UNAVAILABLE),
        (errors.DiskFull(""), ExitCode.UNAVAILABLE),
        (errors.Unauthorized(""), ExitCode.BAD_INPUT),
        (errors.InvalidRecord(""), ExitCode.BAD_INPUT),
    ],
)
def test_exit_codes(error: errors.WherefromError, code: ExitCode) -> None:
    """Errors end with the documented exit codes."""
    assert exit_code_of(error) is code
