"""Readings and changes of many rows in transactions of a bounded size: no lock is held for long, and what was done stays done."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVarTuple

from sqlalchemy import Row, Select
from sqlalchemy.orm import InstrumentedAttribute, Session

from db.session import Database
from db.storing.examples import CHUNK

Columns = TypeVarTuple("Columns")

#: Most rows that one transaction changes.
ROWS = CHUNK
#: Ids read at once: so many that few readings suffice, for each may have to look at all rows.
IDS = 100_000


def read_in_chunks(
    db: Database, wanted: Select[int, *Columns], key: InstrumentedAttribute[int]
) -> Iterator[Sequence[Row[int, *Columns]]]:
    """The rows that match in the order of their ids, `ROWS` in one transaction.

    Args:
        db: The database.
        wanted: Selects the id and what else is wanted; the id is its first column.
        key: The id column.
    """
    last = 0
    while True:
        with db.reading() as session:
            rows = session.execute(wanted.where(key > last).order_by(key).limit(ROWS)).all()
        if rows:
            yield rows
        if len(rows) < ROWS:
            return
        last = rows[-1][0]


def change_in_chunks(
    db: Database,
    wanted: Select[int],
    key: InstrumentedAttribute[Any],
    change: Callable[[Session, Sequence[int]], None],
) -> int:
    """Change the rows that match in the order of their ids, `ROWS` in one transaction; how many there were.

    When it is stopped in the middle the rest is as it was; call it again. Whether a row still matches is asked once more under its
    lock.

    Args:
        db: The database.
        wanted: Selects the ids; its conditions use `db.statements.unindexed` for columns that have an index.
        key: The id column; its rows are locked.
        change: Changes the rows with these ids.
    """
    changed, last = 0, 0
    while True:
        with db.reading() as session:
            ids = session.scalars(wanted.where(key > last).order_by(key).limit(IDS)).all()
        for start in range(0, len(ids), ROWS):
            some = wanted.where(key.in_(ids[start : start + ROWS])).order_by(key)
            with db.writing() as session:
                locked = session.scalars(some.with_for_update(of=key.class_)).all()
                if locked:
                    change(session, locked)
            changed += len(locked)
        if len(ids) < IDS:
            return changed
        last = ids[-1]
