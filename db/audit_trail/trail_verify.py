"""Reads the whole chain and names the first link that is broken."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from db.audit_trail.trail_chain import COVERED, EVENTS, GENESIS, Link, count_events, lag_seconds, row_hash
from db.session import Database

#: Events that are read at once.
_PAGE = 10_000


class Fault(StrEnum):
    """What is wrong with the first broken link."""

    #: The event at this place, or its digest, is not what was sealed.
    CHANGED = "changed"
    #: No event has this place, though one has a later place.
    REMOVED = "removed"
    #: It does not follow the event before it: events were moved, or put in between.
    MOVED = "moved"
    #: An anchor outside saw a longer chain.
    CUT = "cut"
    #: An anchor outside saw another event at this place: the chain was computed anew.
    REWRITTEN = "rewritten"
    #: A trigger that refuses changes is missing.
    UNPROTECTED = "unprotected"


@dataclass(frozen=True)
class Verdict:
    """What a verification found."""

    #: Events whose places and digests were right.
    events: int
    #: Events that have no place yet, and the age of the oldest, seconds.
    unsealed: int
    lag_s: float
    #: Anchors that were compared.
    anchors: int
    head: Link | None
    fault: Fault | None = None
    #: Place of the first broken link.
    sequence: int | None = None
    #: Id of the event there, where there is one.
    event_id: int | None = None
    text: str = ""

    @property
    def whole(self) -> bool:
        """Nothing is wrong."""
        return self.fault is None


@dataclass(frozen=True)
class _Break:
    fault: Fault
    sequence: int | None
    event_id: int | None
    text: str


def verify(
    db: Database, *, anchors: Mapping[int, str], told: Callable[[int], None] = lambda _: None
) -> Verdict:
    """Verify the chain from its first event to its last, and against what was put outside.

    Args:
        db: The database; it is only read, in one transaction.
        anchors: Digests that were put outside, by place.
        told: Called with the number of events after each page.

    Raises:
        DatabaseUnavailable: the database is away.
    """
    _, unsealed = count_events(db)
    lag_s = lag_seconds(db)
    with db.reading() as session:
        last, broken = _walk(session, anchors, told)
        broken = broken or _unprotected(session)
    head = last if last.sequence else None
    verdict = Verdict(last.sequence, unsealed, lag_s, len(anchors), head)
    return verdict if broken is None else replace(verdict, **vars(broken))


def _walk(
    session: Session, anchors: Mapping[int, str], told: Callable[[int], None]
) -> tuple[Link, _Break | None]:
    """The last right link, or what stands before the first one, and what is wrong behind it."""
    last = Link(0, GENESIS)
    for page in _pages(session):
        for row in page:
            broken = _check(row, last, anchors)
            if broken is not None:
                return last, broken
            last = Link(row.sequence, row.row_hash)
        told(last.sequence)
    later = [place for place in anchors if place > last.sequence]
    if later:
        words = f"event {last.sequence + 1} and what follows is gone: an anchor saw {max(later)} events, the chain has {last.sequence}"
        return last, _Break(Fault.CUT, last.sequence + 1, None, words)
    return last, None


def _pages(session: Session) -> Iterator[list[Any]]:
    """The sealed events in their order."""
    columns = (EVENTS.c.sequence, EVENTS.c.prev_hash, EVENTS.c.row_hash, *COVERED)
    after = None
    while True:
        wanted = EVENTS.c.sequence.is_not(None) if after is None else EVENTS.c.sequence > after
        query = select(*columns).where(wanted).order_by(EVENTS.c.sequence).limit(_PAGE)
        page = list(session.execute(query).all())
        yield page
        if len(page) < _PAGE:
            return
        after = page[-1].sequence


def _check(row: Any, last: Link, anchors: Mapping[int, str]) -> _Break | None:
    place = last.sequence + 1
    if row.sequence != place:
        words = f"event {place} is gone: event {row.sequence} follows event {last.sequence}"
        return _Break(Fault.REMOVED, place, None, words)
    if row.prev_hash != last.row_hash:
        words = f"event {place} (id {row.id}) does not follow the event before it: events were moved, put in between or taken out"
        return _Break(Fault.MOVED, place, row.id, words)
    if row_hash(row.prev_hash, place, tuple(row)[3:]) != row.row_hash:
        return _Break(
            Fault.CHANGED, place, row.id, f"event {place} (id {row.id}) was changed after it was sealed"
        )
    if anchors.get(place, row.row_hash) != row.row_hash:
        words = f"event {place} (id {row.id}) is not the one that an anchor saw: the chain was computed anew"
        return _Break(Fault.REWRITTEN, place, row.id, words)
    return None


#: Triggers that both engines have, and the one that only PostgreSQL needs.
TRIGGERS = ("trail_event_no_update", "trail_event_no_delete", "trail_event_new_only")
_ON_POSTGRESQL = "trail_event_no_truncate"


def missing_triggers(session: Session) -> list[str]:
    """Triggers that would refuse a change of the trail and are not there, or are disabled."""
    if session.get_bind().dialect.name == "sqlite":
        wanted: tuple[str, ...] = TRIGGERS
        query = "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'trail_event'"
    else:
        wanted = (*TRIGGERS, _ON_POSTGRESQL)
        query = "SELECT tgname FROM pg_trigger WHERE tgrelid = 'trail_event'::regclass AND tgenabled <> 'D'"
    there = set(session.scalars(text(query)))
    return [name for name in wanted if name not in there]


def _unprotected(session: Session) -> _Break | None:
    missing = missing_triggers(session)
    if not missing:
        return None
    words = f"the chain is whole, but nothing stops a change of it: the trigger {', '.join(missing)} is missing or disabled"
    return _Break(Fault.UNPROTECTED, None, None, words)
