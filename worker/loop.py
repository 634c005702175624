"""Runs a step again and again until told to stop; waits out what is away. Intake and sweeper are such loops."""

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import TypeVar

from wherefrom.backoff import backoff_seconds
from wherefrom.errors import TransientError
from wherefrom.logs import get_logger

log = get_logger(__name__)

T = TypeVar("T")

#: Waits while Redis or the database is away: short, for nothing is spent by asking.
RETRY_BASE_S = 0.2
RETRY_CAP_S = 5.0
#: How often a process looks whether its supervisor is still there.
PARENT_POLL_S = 1.0
#: How long a process of the service may take to end after SIGTERM before it is killed; leases bring back what it held.
STOP_GRACE_S = 30.0


def run_loop(
    step: Callable[[], None], *, name: str, stop: threading.Event, beat: Callable[[], None], pause_s: float
) -> None:
    """Call `step` every `pause_s` seconds until `stop` is set; after a transient error wait longer, and go on.

    Args:
        step: One round. Any error but a `TransientError` is a bug and ends the process.
        name: Who runs, for the log.
        stop: Ends the loop after the present round.
        beat: Sign of life, given before each round, also while something is away.
        pause_s: Seconds between two rounds.
    """
    failures = 0
    while not stop.is_set():
        beat()
        try:
            step()
        except TransientError as error:
            failures += 1
            wait_s = backoff_seconds(failures, base_s=RETRY_BASE_S, cap_s=RETRY_CAP_S)
            log.warning("waiting", process=name, code=error.code, reason=str(error), failures=failures)
            stop.wait(wait_s)
            continue
        if failures:
            log.info("recovered", process=name, failures=failures)
            failures = 0
        stop.wait(pause_s)


def guarded(step: Callable[[], T], *, name: str, otherwise: T) -> T:
    """One step of a thread that must not die: what it raises is told in the log with its traceback, and `otherwise` is the answer."""
    try:
        return step()
    except Exception:  # the boundary of a thread: nobody else would hear of it
        log.exception("thread_failed", thread=name)
        return otherwise


def stop_on_signals() -> threading.Event:
    """An event that SIGTERM and SIGINT set; the second such signal ends the process at once."""
    stop = threading.Event()

    def _on_signal(number: int, _frame: FrameType | None) -> None:
        stop.set()
        signal.signal(number, signal.SIG_DFL)

    signal.signal(signal.SIGTERM, _on_signal)
    signal.signal(signal.SIGINT, _on_signal)
    return stop


def end_with_parent(parent: int) -> None:
    """End this process when its parent has died, so that a killed supervisor leaves no orphans.

    It gets what the supervisor would have given it: SIGTERM, and SIGKILL with all that it started if it has not ended in time.

    Args:
        parent: Its process id, as it said it itself: it may have died before anybody here could ask.
    """

    def _watch() -> None:
        pause = threading.Event()
        while os.getppid() == parent:
            pause.wait(PARENT_POLL_S)
        log.warning("parent_died", parent=parent)
        os.kill(os.getpid(), signal.SIGTERM)
        pause.wait(STOP_GRACE_S)
        log.error("orphan_killed", seconds=STOP_GRACE_S)
        _kill_own_group()

    threading.Thread(target=_watch, name="parent-watch", daemon=True).start()


def _kill_own_group() -> None:
    """Kill this process with what it started, where it leads a group of its own; else this process alone."""
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
