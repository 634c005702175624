"""Ends this process when one piece of work takes too long: it hangs, and nothing inside of Python may be able to tell it so."""

import faulthandler
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: Standard error, by its number: the traceback is written without the help of a Python that hangs.
_STDERR = 2
#: Seconds from the traceback to the end.
_WRITE_S = 0.5


@contextmanager
def hard_limit(seconds: float) -> Iterator[Callable[[], None]]:
    """End the process when the block takes longer, after the traceback of every thread.

    The clock runs outside of Python, and the signal's default action ends the process, so it needs no lock of Python's. The main
    process reads SIGALRM as the time limit (`worker.pool.lost_process`). Where something else handles that signal, the process ends with code 1.
    One block at a time in a process. It is given a function with which the time begins anew: for the next piece of work.

    Args:
        seconds: Longest time of the block, or of one piece of its work.
    """
    is_free = signal.getsignal(signal.SIGALRM) is signal.SIG_DFL

    def begin() -> None:
        faulthandler.dump_traceback_later(seconds, exit=not is_free, file=_STDERR)
        if is_free:
            signal.setitimer(signal.ITIMER_REAL, seconds + _WRITE_S)

    begin()
    try:
        yield begin
    finally:
        if is_free:
            signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()
