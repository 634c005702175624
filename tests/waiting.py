"""Waiting by polling with a deadline; tests never sleep for a fixed time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(
    predicate: Callable[[], T], timeout_s: float = 10.0, message: str = "", interval_s: float = 0.02
) -> T:
    """The predicate's first true answer.

    Raises:
        TimeoutError: the predicate was not true within `timeout_s`; the text holds `message` and the last answer.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        answer = predicate()
        if answer:
            return answer
        if time.monotonic() >= deadline:
            what = message or getattr(predicate, "__name__", "the condition")
            raise TimeoutError(f"waited {timeout_s:g} s for: {what}; last answer: {answer!r}")
        time.sleep(interval_s)
