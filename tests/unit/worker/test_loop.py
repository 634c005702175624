"""The loop of intake and sweeper."""

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.waiting import wait_until
from wherefrom.errors import QueueUnavailable
from worker.loop import run_loop


def rounds(outcomes, monkeypatch):
    """Run one round per outcome (an error to raise, or None); the waits and the number of beats."""
    stop = threading.Event()
    waits: list[float] = []
    beats: list[int] = []
    left = list(outcomes)

    def _step():
        outcome = left.pop(0)
        if not left:
            stop.set()
        if outcome is not None:
            raise outcome

    monkeypatch.setattr(stop, "wait", waits.append)
    run_loop(_step, name="x", stop=stop, beat=lambda: beats.append(1), pause_s=7)
    return waits, len(beats)


def test_absences_are_waited_out_with_growing_waits(monkeypatch):
    """Each failure waits longer, up to five seconds; after a success the usual pause is back."""
    waits, beats = rounds([QueueUnavailable("x")] * 9 + [None, None], monkeypatch)
    assert beats == 11
    assert waits[0] <= 0.2
    assert 2.5 <= waits[8] <= 5
    assert waits[9:] == [7, 7]


def test_a_bug_ends_the_loop(monkeypatch):
    """Anything but an absence is not waited out."""
    with pytest.raises(ZeroDivisionError):
        rounds([ZeroDivisionError(), None], monkeypatch)


_DEAF = """
import os, signal, subprocess, sys, threading
from worker import loop
loop.STOP_GRACE_S = 0.2
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import threading; threading.Event().wait()"])
sys.stdout.write(f"{child.pid}\\n")
sys.stdout.flush()
loop.end_with_parent(0)
threading.Event().wait()
"""


def test_an_orphan_that_does_not_end_is_killed_with_what_it_started():
    """It does not react to SIGTERM; nobody else is left to kill it."""
    with subprocess.Popen(
        [sys.executable, "-c", _DEAF],
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as orphan:
        assert orphan.stdout is not None
        child = int(orphan.stdout.readline())
        assert orphan.wait(60) == -signal.SIGKILL

    def ended():
        status = Path(f"/proc/{child}/stat")
        return not status.exists() or status.read_text().rsplit(")", 1)[1].split()[0] == "Z"

    wait_until(ended, 30, "the child to end")
