"""What a listing says of itself as a whole: how many audits it finds, and at which p they are supported. Worked out once, not on every page.

A small listing is worked out when it is asked for. A large one is kept in `listing_facts` and worked out again by the sweeper; until then what
is known is told with its age. What is kept is true as long as the newest change in the trail is the one that it was worked out at:
everything that changes a listing leaves an event, but for a claim and an erased text. Reads leave events too, and change nothing.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, ScalarSelect, delete, func, literal, select, update

from db.audit_trail.trail import NEWEST_CHANGE
from db.clock import db_after, db_now
from db.counts import count_at_most
from db.models import Audit, ListingFactsRow
from db.parts import Parts, Rounds, stretches
from db.reading import support
from db.reading.asked import is_late, is_wanted, note, take_over
from db.reading.reader import select_audits
from db.reading.selection import narrow, without_support
from db.session import Database
from db.sight import is_limited
from wherefrom.records import AuditFilter, ListingFacts, Support, Supported, sha256_of_json
from wherefrom.statistics import DEFAULT_FDR

#: Most audits that a count tells apart.
COUNTED_AUDITS = 10_000
#: A listing is small where at most so many audits have to be looked at.
SMALL = 50_000
#: What took longer than this is kept, seconds.
KEPT_FROM_S = 0.05
#: Listings that nobody asked for so long are forgotten.
FORGOTTEN_AFTER = timedelta(days=7)

#: What must hold of an audit.
Conditions = Sequence[ColumnElement[bool]]


@dataclass(frozen=True)
class _Listing:
    """A filter, and the rate at which it is judged."""

    filters: AuditFilter
    level: float | None

    @property
    def key(self) -> str:
        return sha256_of_json([self.plain, self.level])

    @property
    def plain(self) -> dict[str, Any]:
        found: dict[str, Any] = self.filters.model_dump(mode="json", exclude_none=True)
        return found


@dataclass(frozen=True)
class _Kept:
    """What is known of a listing, and whether it still holds."""

    row: ListingFactsRow | None
    newest_event: int
    #: Nobody has worked it out, and somebody asked long ago.
    late: bool
    small: bool

    @property
    def facts(self) -> ListingFacts | None:
        return None if self.row is None or self.row.computed_at is None else _facts_of(self.row)

    @property
    def holds(self) -> bool:
        return self.facts is not None and self.row is not None and self.row.newest_event == self.newest_event


def facts(
    db: Database, filters: AuditFilter, *, level: float | None = None, wait: bool = True
) -> ListingFacts | None:
    """How many audits a filter finds, counted up to `COUNTED_AUDITS`, and with a level how many are supported.

    Args:
        db: The database.
        filters: The listing.
        level: The false discovery rate; None judges nothing but what the filter `support` asks for.
        wait: Work a large listing out when nothing is known of it. Without it the sweeper is left to do so, and the answer is None.
    """
    listing = _Listing(filters, level)
    if is_limited():  # what is kept was worked out over everything
        return _work_out(db, listing, newest_event=0)
    known = _look(db, listing)
    if known.holds:
        return known.facts
    if known.small or (known.facts is None and (wait or (known.late and _take_over(db, listing)))):
        return _work_out(db, listing, newest_event=known.newest_event, waited_for=known.late)
    _keep(db, listing, {"asked_at": db_now()})
    return known.facts


def support_limit(db: Database, filters: AuditFilter, level: float | None = None) -> float | None:
    """The largest conformal p that is supported in the listing of the other filters; None where the filter `support` asks for nothing of the kind."""
    if not _asks_for_limit(filters):
        return None
    found = facts(db, without_support(filters), level=level or DEFAULT_FDR)
    return None if found is None or found.support is None else found.support.limit


def _asks_for_limit(filters: AuditFilter) -> bool:
    return filters.support in {Supported.SUPPORTED, Supported.UNSUPPORTED}


def look_up(db: Database, filters: AuditFilter) -> Conditions:
    """What must hold of an audit that a filter finds, after rare parts of it were looked up."""
    limit = support_limit(db, filters)
    with db.reading() as session:
        return narrow(session, filters, limit=limit).conditions


def rounds(db: Database) -> Rounds:
    """The listings that somebody asked for since they were last worked out, as work for the sweeper's rounds."""
    return Rounds(partial(_next, db))


def _next(db: Database) -> Parts[None] | None:
    with db.reading() as session:
        row = session.scalars(_WANTED.limit(1)).first()
    if row is None:
        _forget(db)
        return None
    return _working_out(db, _Listing(AuditFilter.model_validate(row.filter), row.level))


def _working_out(db: Database, listing: _Listing) -> Parts[None]:
    """Work a listing out a part at a time. It is told as it was when this began."""
    filters, level = listing.filters, listing.level
    with db.reading() as session:
        newest, began = session.execute(select(NEWEST_CHANGE, db_now())).one()
    judged = limit = None
    if level is not None or _asks_for_limit(filters):
        found = yield from support.judging(db, filters, level or DEFAULT_FDR)
        judged, limit = None if level is None else found, found.limit
    with db.reading() as session:
        wanted = narrow(session, filters, limit=limit).conditions
    number = 0
    for some in stretches(db, Audit.id):
        if number > COUNTED_AUDITS:
            break
        with db.reading() as session:
            number += session.scalar(select(_counted(Audit.id.between(*some), *wanted))) or 0
        yield
    values = _values(_facts(number, judged, as_of=began)) | {"newest_event": newest or 0}
    with db.writing() as session:  # a row that an erasure took away meanwhile stays away
        session.execute(update(ListingFactsRow).where(ListingFactsRow.key == listing.key).values(**values))


def _forget(db: Database) -> None:
    """Forget listings that nobody asked for."""
    old = ListingFactsRow.asked_at < db_after(-FORGOTTEN_AFTER.total_seconds())
    with db.reading() as session:
        forgotten = session.scalar(select(literal(1)).where(select(ListingFactsRow.id).where(old).exists()))
    if forgotten:
        with db.writing() as session:
            session.execute(delete(ListingFactsRow).where(old))


_WANTED = select(ListingFactsRow).where(is_wanted(ListingFactsRow)).order_by(ListingFactsRow.asked_at)


def _look(db: Database, listing: _Listing) -> _Kept:
    filters = listing.filters
    with db.reading() as session:
        row = session.scalars(select(ListingFactsRow).where(ListingFactsRow.key == listing.key)).one_or_none()
        now, newest, audits = session.execute(
            select(db_now(), NEWEST_CHANGE, count_at_most(SMALL + 1, *_in_time(filters)))
        ).one()
        small = audits <= SMALL or (listing.level is None and not listing.plain)
        if not small:
            small = narrow(session, without_support(filters)).few is not None
    late = row is not None and row.computed_at is None and is_late(row, now)
    return _Kept(row, newest or 0, late, small)


def _in_time(filters: AuditFilter) -> list[ColumnElement[bool]]:
    """The time of a listing, which has an index: no more audits than lie in it are ever looked at."""
    ends = [Audit.created_at >= filters.since] if filters.since else []
    ends += [Audit.created_at <= filters.until] if filters.until else []
    return ends or [Audit.id > 0]


def _take_over(db: Database, listing: _Listing) -> bool:
    return take_over(db, ListingFactsRow, ListingFactsRow.key == listing.key)


def _work_out(
    db: Database, listing: _Listing, *, newest_event: int, waited_for: bool = False
) -> ListingFacts:
    """Work a listing out at once, for whoever asks; it is kept where it took long or others wait for it."""
    began = time.monotonic()
    filters, level = listing.filters, listing.level
    judged = None if level is None else support.judge(db, filters, level)
    limit = judged.limit if judged is not None else support_limit(db, filters)
    with db.reading() as session:
        wanted = narrow(session, filters, limit=limit).conditions
        number, now = session.execute(select(_counted(*wanted), db_now())).one()
    found = _facts(number, judged, as_of=now)
    if not is_limited() and (waited_for or time.monotonic() - began > KEPT_FROM_S):
        _keep(db, listing, _values(found) | {"newest_event": newest_event})
    return found


def _counted(*wanted: ColumnElement[bool]) -> ScalarSelect[int]:
    rows = select_audits(literal(1).label("one")).where(*wanted).limit(COUNTED_AUDITS + 1)
    return select(func.count()).select_from(rows.subquery()).scalar_subquery()


def _facts(number: int, judged: Support | None, *, as_of: datetime) -> ListingFacts:
    more = number > COUNTED_AUDITS
    return ListingFacts(matching=min(number, COUNTED_AUDITS), more=more, support=judged, as_of=as_of)


def _keep(db: Database, listing: _Listing, values: dict[str, Any]) -> None:
    """Write what is known of a listing, or that somebody asked for it."""
    new = {"key": listing.key, "filter": listing.plain, "level": listing.level}
    empty = {"newest_event": 0, "matching": 0, "more": False}
    note(db, ListingFactsRow, new | empty, unique=(ListingFactsRow.key,), values=values)


def _values(found: ListingFacts) -> dict[str, Any]:
    judged = found.support
    return {
        "matching": found.matching,
        "more": found.more,
        "computed_at": found.as_of,
        "p_limit": judged and judged.limit,
        "supported": judged and judged.supported,
        "judged": judged and judged.judged,
        "uncalibrated": judged and judged.uncalibrated,
    }


def _facts_of(row: ListingFactsRow) -> ListingFacts:
    judged = None
    if row.level is not None and row.judged is not None:
        judged = Support(
            level=row.level,
            limit=row.p_limit,
            supported=row.supported or 0,
            judged=row.judged,
            uncalibrated=row.uncalibrated or 0,
        )
    return ListingFacts(matching=row.matching, more=row.more, support=judged, as_of=row.computed_at)
