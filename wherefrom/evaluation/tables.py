"""Tables as lines of text: a column says how wide it is and how its values are written."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

#: What stands where nothing was measured.
NOTHING = "-"


@dataclass(frozen=True)
class Column:
    """One column."""

    title: str
    width: int
    #: Format of a number, as in f-strings (``.3f``, ``.0%``); of both ends where the value is an interval.
    spec: str = ""
    #: Whether text stands on the left, as names do.
    left: bool = False

    def cell(self, value: Any) -> str:
        """A value, as wide as the column: text as it is, a pair as an interval, None as a dash."""
        return f"{self._written(value):{'<' if self.left else '>'}{self.width}}"

    def _written(self, value: Any) -> str:
        if value is None:
            return NOTHING
        if isinstance(value, str):
            return value
        if isinstance(value, list | tuple):
            return " to ".join(f"{end:{self.spec}}" for end in value)
        return f"{value:{self.spec}}"


def table(columns: Sequence[Column], rows: Iterable[Sequence[Any]]) -> list[str]:
    """A head and one line for each row.

    Args:
        columns: from left to right.
        rows: values in the order of the columns; a shorter row leaves its last columns empty.

    Raises:
        ValueError: a row has more values than there are columns.
    """
    return ["".join(one.cell(one.title) for one in columns), *(_line(columns, row) for row in rows)]


def _line(columns: Sequence[Column], row: Sequence[Any]) -> str:
    if len(row) > len(columns):
        raise ValueError(f"{len(row)} values for {len(columns)} columns")
    return "".join(one.cell(value) for one, value in zip(columns, row, strict=False))
