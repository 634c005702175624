"""Values that the filters propose: all there are, found by steps from one value to the next in an index, whatever the number of rows."""

from typing import Any

from sqlalchemy import ColumnElement, func, literal, select, union_all
from sqlalchemy.orm import InstrumentedAttribute

from db.models import Bundle, Citation, FlaggedOutput, Person, ReviewQueue
from db.session import Database
from db.statements import AnySelect

#: Most values of one filter; nobody looks through more.
MOST = 500

#: Columns with an index that begins with them, by the filter that they propose values for.
_COLUMNS: dict[str, InstrumentedAttribute[Any]] = {
    "model": FlaggedOutput.model,
    "flag_reason": FlaggedOutput.reason,
    "source": Citation.source,
    "channel": FlaggedOutput.channel,
    "bundle": Bundle.name,
    "assignee": Person.name,
    "in_queue": ReviewQueue.name,
}


def suggest(db: Database) -> dict[str, list[str]]:
    """The values of each filter that proposes any, sorted, at most `MOST` of each; one statement."""
    found: dict[str, list[str]] = {name: [] for name in _COLUMNS}
    with db.reading() as session:
        for name, value in session.execute(union_all(*(_values(*one) for one in _COLUMNS.items()))):
            found[name].append(value)
    return {name: sorted(values) for name, values in found.items()}


def _values(name: str, column: InstrumentedAttribute[Any]) -> AnySelect:
    """All values of a column: the least one, and from each the next, which costs one step in the index."""
    first: ColumnElement[Any] = select(func.min(column)).scalar_subquery()
    steps = select(first.label("value"), literal(1).label("step")).cte(f"{name}_values", recursive=True)
    following = select(func.min(column)).where(column > steps.c.value).correlate(steps).scalar_subquery()
    steps = steps.union_all(
        select(following, steps.c.step + 1).where(steps.c.value.is_not(None), steps.c.step < MOST)
    )
    return select(literal(name).label("name"), steps.c.value).where(steps.c.value.is_not(None))
