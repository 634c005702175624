"""The trail as a list: the newest events first, with filters and keyset pages."""

from sqlalchemy import ColumnElement, select

from db.models import TrailEvent
from db.pages import Keyset
from db.session import Database
from wherefrom.records import Page, TrailFilter, TrailRecord

_NEWEST = Keyset(TrailEvent.id, TrailEvent.id)
_COLUMNS = (
    TrailEvent.id.label("event_id"),
    *(
        getattr(TrailEvent, name)
        for name in ("at", "kind", "subject", "actor", "payload", "sequence", "row_hash")
    ),
)


def list_events(
    db: Database, filters: TrailFilter, *, cursor: str | None = None, limit: int = 50
) -> Page[TrailRecord]:
    """One page of the trail, the newest events first; one statement.

    Args:
        db: The database.
        filters: Which events.
        cursor: `next_cursor` of the page before; None for the first page.
        limit: Most events of the page.

    Raises:
        InvalidRecord: the cursor is not one that this list gave out.
    """
    query = select(*_COLUMNS).where(*_conditions(filters))
    with db.reading() as session:
        return _NEWEST.read(
            session,
            query,
            cursor=cursor,
            limit=limit,
            record=lambda row: TrailRecord(**{name: row[name] for name in TrailRecord.model_fields}),
        )


def _conditions(filters: TrailFilter) -> list[ColumnElement[bool]]:
    named = [
        getattr(TrailEvent, name) == value
        for name in ("kind", "subject", "actor")
        if (value := getattr(filters, name)) is not None
    ]
    if filters.since is not None:
        named.append(TrailEvent.at >= filters.since)
    if filters.until is not None:
        named.append(TrailEvent.at <= filters.until)
    return named
