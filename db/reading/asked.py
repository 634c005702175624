"""What somebody asks for and the sweeper works out: listings, sources, and comparisons of bundles. One place says who waits for what."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, or_, update
from sqlalchemy.orm import InstrumentedAttribute

from db.clock import db_after, db_now
from db.models import BundleComparisonRow, ListingFactsRow, SourceLook
from db.session import Database
from db.statements import insert_new
from wherefrom.errors import DatabaseUnavailable

#: Tables whose rows say what was asked for, when, and as of when it is known.
Asked = type[ListingFactsRow] | type[SourceLook] | type[BundleComparisonRow]

#: Without an answer of the sweeper for so long, one of those who ask works it out, seconds.
PATIENCE_S = 30.0


def is_wanted(row: Asked) -> ColumnElement[bool]:
    """Somebody asked since it was last worked out."""
    return or_(row.computed_at.is_(None), row.asked_at > row.computed_at)


def note(
    db: Database,
    row: Asked,
    new: Mapping[str, Any],
    *,
    unique: tuple[InstrumentedAttribute[Any], ...],
    values: Mapping[str, Any],
) -> int | None:
    """Write to a row, which is made where there is none. It is no loss where a lock is held: whoever asks next writes it.

    Args:
        db: The database.
        row: The table.
        new: The row where there is none; its `unique` columns say which one it is.
        unique: Columns that tell the rows apart.
        values: What is written, whether or not it was there.

    Returns:
        The number of the row; None where a lock is held.
    """
    mine = [column == new[column.key] for column in unique]
    try:
        with db.writing_at_once() as session:
            session.execute(insert_new(session, row, unique), [new])
            number: int | None = session.scalar(update(row).where(*mine).values(**values).returning(row.id))
            return number
    except DatabaseUnavailable:
        return None


def is_late(row: ListingFactsRow | SourceLook, now: datetime) -> bool:
    """Whether somebody has waited for it for `PATIENCE_S`."""
    return (now - row.first_asked_at).total_seconds() > PATIENCE_S


def take_over(db: Database, row: Asked, *mine: ColumnElement[bool]) -> bool:
    """Whether whoever asks now is the one who works it out, because nobody did for `PATIENCE_S`; the others wait as long again.

    Args:
        db: The database.
        row: The table.
        mine: Conditions that tell its row from the others.
    """
    late = (row.computed_at.is_(None), row.first_asked_at < db_after(-PATIENCE_S))
    return _sign(db, row, *mine, *late)


def keep_on(db: Database, row: Asked, *mine: ColumnElement[bool]) -> None:
    """Tell the others that whoever took over is still at it; the arguments are those of `take_over`."""
    _sign(db, row, *mine)


def _sign(db: Database, row: Asked, *wanted: ColumnElement[bool]) -> bool:
    signed = update(row).where(*wanted).values(first_asked_at=db_now()).returning(row.id)
    try:
        with db.writing_at_once() as session:
            return session.scalar(signed) is not None
    except DatabaseUnavailable:
        return False
