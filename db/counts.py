"""Counts with a bound: nobody waits for a million rows to be counted, and who reads a count learns that there are more."""

from enum import StrEnum
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, ScalarSelect, func, literal, literal_column, select
from sqlalchemy.orm import Session

from db.models import Base
from db.queues.leases import Leased

State = TypeVar("State", bound=StrEnum)

#: Most rows counted of each state.
COUNTED = 100_000
#: Most rows counted of what one bundle has to do: more than all processes can take at once.
COUNTED_WORK = 10_000


def count_at_most(
    limit: int | None, *conditions: ColumnElement[bool], correlate: type[Base] | None = None
) -> ScalarSelect[int]:
    """How many rows match, as an expression; `limit` where there are as many or more.

    Args:
        limit: Where counting ends; None counts all.
        conditions: What a row must match.
        correlate: Table of the enclosing statement that the conditions name.
    """
    rows = select(literal(1).label("one")).where(*conditions).limit(limit)
    if correlate is not None:
        rows = rows.correlate(correlate)
    return select(func.count()).select_from(rows.subquery()).scalar_subquery()


def count_states(
    session: Session,
    row: Leased,
    states: type[State],
    *conditions: ColumnElement[bool],
    most: int | None = None,
) -> dict[State, int]:
    """How many rows that match stand in each state; one more than `most`, or `COUNTED`, means that there are more."""
    limit = (most or COUNTED) + 1
    counts: list[ScalarSelect[Any]] = [
        count_at_most(limit, row.state == literal_column(f"'{state.value}'"), *conditions) for state in states
    ]
    return dict(zip(states, session.execute(select(*counts)).one(), strict=True))
