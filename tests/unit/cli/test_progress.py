"""Progress where there is no terminal: lines with what is done, the rate and the time left."""

import io

import pytest
from rich.console import Console

from tests.waiting import wait_until
from wherefrom.cli import progress
from wherefrom.cli.progress import ProgressLines, progress_bars


def test_lines() -> None:
    """A stage counts from its first report; a resumed one is not called faster than it is."""
    now = 100.0
    lines = ProgressLines(clock=lambda: now)
    assert lines.line() is None
    lines.report("load model", 0, 1)
    now += 10
    assert lines.line() == "load model: 0/1, 10 s"
    lines.report("read signals (tokens)", 4000, 9000)
    now += 20
    lines.report("read signals (tokens)", 5000, 9000)
    assert lines.line() == "read signals (tokens): 5000/9000, 20 s, 50.0/s, about 80 s left"


def test_a_further_round_of_a_stage_counts_anew() -> None:
    """Less than was done before, or another total, belongs to a further round: no rate is negative, and none counts the round before."""
    now = 100.0
    lines = ProgressLines(clock=lambda: now)
    lines.report("judge outputs", 8, 20)
    now += 10
    lines.report("judge outputs", 20, 20)
    now += 10
    lines.report("judge outputs", 4, 20)
    assert lines.line() == "judge outputs: 4/20, 0 s"
    now += 10
    lines.report("judge outputs", 9, 20)
    assert lines.line() == "judge outputs: 9/20, 10 s, 0.5/s, about 22 s left"
    lines.report("judge outputs", 9, 50)
    assert lines.line() == "judge outputs: 9/50, 0 s"


def test_bars_of_a_further_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal the bar begins again, with the new total."""
    shown = io.StringIO()
    monkeypatch.setattr(progress, "Console", lambda **_: Console(file=shown, force_terminal=True, width=120))
    with progress._bars() as report:
        report("judge outputs", 20, 20)
        report("judge outputs", 4, 50)
    assert "4/50" in shown.getvalue()


def test_lines_without_a_terminal(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """Lines come every ten seconds while nothing new is reported, and none comes after the work."""
    assert progress.LINE_S == 10.0
    monkeypatch.setattr(progress, "LINE_S", 0.01)
    printed = ""
    with progress_bars(quiet=False) as report:
        report("render", 3, 5)

        def seen() -> bool:
            nonlocal printed
            printed += capfd.readouterr().err
            return printed.count("render: 3/5") >= 2

        wait_until(seen)
    capfd.readouterr()
    monkeypatch.setattr(progress, "LINE_S", 1000.0)
    with progress_bars(quiet=False) as report:
        report("render", 3, 5)
        report("render", 5, 5)
    assert capfd.readouterr().err.startswith("render: 5/5, 0 s")
    with progress_bars(quiet=True) as report:
        report("render", 3, 5)
    assert capfd.readouterr().err == ""
