"""Does at once what a process does in parts."""

from typing import TypeVar

from db.parts import Parts

T = TypeVar("T")


def all_parts(parts: Parts[T]) -> T:
    """Do all parts at once, and return what they came to."""
    while True:
        try:
            next(parts)
        except StopIteration as end:
            result: T = end.value
            return result
