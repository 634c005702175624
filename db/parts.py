"""Long work in parts: each part is one short look at the database, so that nothing else of a process waits long for it.

What is under way is in the memory of one process. Where that ends, the next one begins anew; what was worked out before is told until then, with its age.
"""

import time
from collections.abc import Callable, Generator, Iterator
from typing import Any, TypeVar

from sqlalchemy import func, select
from sqlalchemy.orm import InstrumentedAttribute

from db.session import Database

T = TypeVar("T")
#: Work that yields after each part, and returns what it came to.
Parts = Generator[None, None, T]

#: Rows of one part.
PART = 10_000
#: After so long no further part is begun in a round, seconds.
ROUND_S = 0.5


def stretches(
    db: Database, number: InstrumentedAttribute[int], *, rows: int | None = None
) -> Iterator[tuple[int, int]]:
    """First and last number of stretches of a table. Each holds at most `rows` rows (`PART`), and all together every row that is there now."""
    rows = rows or PART
    with db.reading() as session:
        first, last = session.execute(select(func.min(number), func.max(number))).one()
    if first is not None:
        yield from ((start, start + rows - 1) for start in range(first, last + 1, rows))


class Rounds:
    """Pieces of work that a process goes on with, one after the other, in rounds between which it does other things."""

    def __init__(self, begin: Callable[[], Parts[Any] | None]) -> None:
        """Prepare; nothing is begun yet.

        Args:
            begin: The next piece of work; None where nothing waits.
        """
        self._begin = begin
        self._under_way: Parts[Any] | None = None

    def go_on(self) -> int:
        """Go on for a while, by one part at least where something waits; how many pieces came to their end."""
        began, done = time.monotonic(), 0
        while (work := self._under_way or self._begin()) is not None:
            self._under_way = None  # a part that fails ends its work
            if _goes_on(work):
                self._under_way = work
            else:
                done += 1
            if time.monotonic() - began >= ROUND_S:
                break
        return done


def _goes_on(work: Parts[Any]) -> bool:
    try:
        next(work)
    except StopIteration:
        return False
    return True
