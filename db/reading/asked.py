"""What somebody asks for and the sweeper works out: listings, sources, and comparisons of bundles. One place says who waits for what."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, or_, update
from sqlalchemy.orm import InstrumentedAttribute

from db.models import BundleComparisonRow, ListingFactsRow, SourceLook
from db.session import Database
from db.statements import insert_new
from wherefrom.errors import DatabaseUnavailable

#: Tables whose rows say what was asked for, when, and as of when it is known.
Asked = type[ListingFactsRow] | type[SourceLook] | type[BundleComparisonRow]

#: Without an answer of the sweeper for so long, whoever asks works it out, seconds.
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
