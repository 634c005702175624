"""Totals of what all processes of the service counted; a process adds its increments, so none of its own stays behind when it dies."""

from collections.abc import Mapping

from sqlalchemy import select

from db.models import CounterTotal
from db.session import Database
from db.statements import insert_or_else
from wherefrom.metrics import Series


def add_to_totals(db: Database, increments: Mapping[Series, float]) -> None:
    """Add to the totals, all in one statement.

    Raises:
        DatabaseUnavailable: nothing was added.
    """
    if not increments:
        return
    # In one order everywhere, so that two processes never wait for each other.
    rows = [
        {"name": name, "labels": labels, "value": value}
        for (name, labels), value in sorted(increments.items())
    ]
    with db.writing() as session:
        new = insert_or_else(session, CounterTotal).values(rows)
        added = new.on_conflict_do_update(
            index_elements=[CounterTotal.name, CounterTotal.labels],
            set_={"value": CounterTotal.value + new.excluded.value},
        )
        session.execute(added)


def read_totals(db: Database) -> dict[Series, float]:
    """All totals by series.

    Raises:
        DatabaseUnavailable: they cannot be read.
    """
    with db.reading() as session:
        rows = session.execute(select(CounterTotal.name, CounterTotal.labels, CounterTotal.value))
        return {(name, labels): value for name, labels, value in rows}
