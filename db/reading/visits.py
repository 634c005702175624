"""When somebody last looked at the list of audits, so that "since my last visit" means something."""

from datetime import datetime, timedelta

from sqlalchemy import select, update

from db.clock import db_now
from db.models import Person
from db.session import Database
from wherefrom.errors import DatabaseUnavailable

#: After so long without a look at the list, the next one is another visit.
PAUSE = timedelta(minutes=30)
#: A look that follows so soon is not noted: nobody waits for a write with every page.
NOTED_AFTER = timedelta(minutes=1)


def last_visit(db: Database, person_id: int) -> datetime | None:
    """When the visit before the present one ended; None where there was none."""
    with db.reading() as session:
        query = select(Person.seen_at, Person.seen_before, db_now().label("now")).where(
            Person.id == person_id
        )
        row = session.execute(query).one_or_none()
    if row is None or row.seen_at is None:
        return None
    found: datetime | None = row.seen_at if row.now - row.seen_at > PAUSE else row.seen_before
    return found


def note_visit(db: Database, person_id: int) -> None:
    """Somebody looks at the list now. It is no loss where a lock is held: the next look is noted."""
    with db.reading() as session:
        query = select(Person.seen_at, db_now().label("now")).where(Person.id == person_id)
        row = session.execute(query).one_or_none()
    if row is None or (row.seen_at is not None and row.now - row.seen_at < NOTED_AFTER):
        return
    ended = {"seen_before": row.seen_at} if row.seen_at is not None and row.now - row.seen_at > PAUSE else {}
    try:
        with db.writing_at_once() as session:
            mine = update(Person).where(
                Person.id == person_id, Person.seen_at.is_not_distinct_from(row.seen_at)
            )
            session.execute(mine.values(seen_at=row.now, **ended))
    except DatabaseUnavailable:
        return
