"""What long work is told of to, and progress that nobody looks at."""

from collections.abc import Callable

#: Called with a stage's name, what is done and what there is to do.
Progress = Callable[[str, int, int], None]


def silent(stage: str, done: int, total: int) -> None:
    """Say nothing; what a caller gives where a function asks for its `Progress`."""
