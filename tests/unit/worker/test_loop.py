"""The loop of intake and sweeper."""

import threading

import pytest

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
