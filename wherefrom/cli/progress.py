"""Progress of long commands on stderr: bars on a terminal, a line every ten seconds and one at the end of each stage where the output goes to a file or a log."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from wherefrom.attribution.progress import silent
from wherefrom.terminal import say

#: Called with a stage's name, what is done and what there is to do.
Report = Callable[[str, int, int], None]

#: Seconds between two lines.
LINE_S = 10.0


@contextmanager
def progress_bars(*, quiet: bool) -> Iterator[Report]:
    """Show the progress that is reported: a bar per stage on a terminal, else a line every ten seconds; nothing where `quiet`."""
    if quiet:
        yield silent
    elif sys.stderr.isatty():
        with _bars() as report:
            yield report
    else:
        lines = ProgressLines()
        stopped = threading.Event()
        thread = threading.Thread(target=_tick, args=(lines, stopped), name="wherefrom-progress", daemon=True)
        thread.start()
        try:
            yield partial(_report, lines)
        finally:
            stopped.set()
            thread.join()


def _report(lines: "ProgressLines", stage: str, done: int, total: int) -> None:
    """Take a report; the last one of a stage is a line at once."""
    lines.report(stage, done, total)
    if done >= total:
        _say(lines)


def _say(lines: "ProgressLines") -> None:
    line = lines.line()
    if line is not None:
        say(line, to_stderr=True)


def _tick(lines: "ProgressLines", stopped: threading.Event) -> None:
    while not stopped.wait(LINE_S):
        _say(lines)


@dataclass(frozen=True)
class _Stage:
    name: str
    done: int
    total: int
    #: What was done when the stage was first reported, and when that was.
    first_done: int
    started: float


class ProgressLines:
    """The latest report as one line; `report` and `line` may be called from two threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._stage: _Stage | None = None

    def report(self, stage: str, done: int, total: int) -> None:
        """Take a report; less than was done before, or another total, is a further round of the stage."""
        known = self._stage
        if known is None or known.name != stage or done < known.done or total != known.total:
            known = _Stage(stage, done, total, done, self._clock())
        self._stage = replace(known, done=done, total=total)

    def line(self) -> str | None:
        """What is done of the present stage, how fast, and what is left of it in seconds; None before the first report."""
        stage = self._stage
        if stage is None:
            return None
        seconds = self._clock() - stage.started
        text = f"{stage.name}: {stage.done}/{stage.total}, {seconds:.0f} s"
        gone = stage.done - stage.first_done
        if not gone or seconds <= 0:
            return text
        rate = gone / seconds
        return f"{text}, {rate:.1f}/s, about {(stage.total - stage.done) / rate:.0f} s left"


@contextmanager
def _bars() -> Iterator[Report]:
    """A progress bar per stage, with rate and time left."""
    columns = (
        TextColumn("{task.description:<24}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, TaskID] = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total, rate="")
            shown = bars.tasks[tasks[stage]]
            if done < shown.completed or total != shown.total:  # a further round of the stage
                bars.reset(tasks[stage], total=total)
            speed = bars.tasks[tasks[stage]].speed
            bars.update(tasks[stage], completed=done, total=total, rate=f"{speed:.0f}/s" if speed else "")

        yield report
