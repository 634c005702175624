"""The chain: which digest seals an event, and the one process that seals at a time.

With h(0) = 64 zeros, the event at place n has h(n) = SHA-256(h(n-1) + canonical JSON of n and of every column of the event). So h(n) stands
for the whole trail up to n: an event that is changed, removed or moved breaks the chain at its place, and a chain that was computed
anew differs from the anchors that were put outside (`worker.sweeper.anchors`). See docs/adr/0019-trail.md.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from sqlalchemy import Table, bindparam, exists, func, literal, literal_column, or_, select, text, update
from sqlalchemy.orm import Session

from db.clock import db_after, db_now
from db.models import ServiceLease, TrailEvent
from db.session import Database
from db.statements import insert_or_else

#: What stands before the first event.
GENESIS = "0" * 64
#: Events that are sealed in one transaction.
AT_ONCE = 1000
#: Name of the sealer's lease, and how long one that is gone keeps others from sealing, seconds.
LEASE, LEASE_S = "trail-sealer", 3.0
#: How long PostgreSQL waits for a sealer that was stopped in the middle of its transaction, milliseconds.
_IDLE_MS = 3000

EVENTS = cast("Table", TrailEvent.__table__)
#: The columns of an event that its digest covers, in the order of `body_of`.
COVERED = tuple(EVENTS.c[name] for name in ("id", "at", "kind", "subject", "actor", "payload", "journal_id"))


@dataclass(frozen=True)
class Link:
    """A place in the chain."""

    sequence: int
    row_hash: str


@dataclass(frozen=True)
class Sealing:
    """What one transaction of the sealer did."""

    sealed: int
    #: The end of the chain after it; None where somebody else seals, or nothing was ever sealed.
    head: Link | None


def row_hash(prev_hash: str, sequence: int, covered: Sequence[Any]) -> str:
    """The digest of an event at its place; `covered` has the values of `COVERED`."""
    event_id, at, *rest = covered
    moment = cast("datetime", at).astimezone(UTC).isoformat(timespec="microseconds")
    body = json.dumps(
        [sequence, event_id, moment, *rest], sort_keys=True, ensure_ascii=False, separators=(",", ":")
    )
    return hashlib.sha256(prev_hash.encode() + body.encode("utf-8", "surrogatepass")).hexdigest()


def is_unsealed() -> Any:
    """The event has no place in the chain; a literal, so that its partial index is used."""
    return EVENTS.c.sequence.is_(literal_column("NULL"))


def lag_seconds(db: Database) -> float:
    """Age of the oldest event that is not sealed, seconds; 0 where all are.

    Raises:
        DatabaseUnavailable: the database is away.
    """
    oldest = select(EVENTS.c.at, db_now().label("now")).where(is_unsealed()).order_by(EVENTS.c.id).limit(1)
    with db.reading() as session:
        row = session.execute(oldest).one_or_none()
    return 0.0 if row is None else max(0.0, (row.now - row.at).total_seconds())


def count_events(db: Database, *, most: int | None = None) -> tuple[int, int]:
    """Events in the chain, by the place of the last one, and events without a place.

    Args:
        db: The database.
        most: Counting those without a place ends at one more than this; None counts all, however many there are.
    """
    head = select(func.max(EVENTS.c.sequence)).scalar_subquery()
    waiting = select(literal(1).label("one")).where(is_unsealed())
    if most is not None:
        waiting = waiting.limit(most + 1)
    with db.reading() as session:
        last, number = session.execute(
            select(head, select(func.count()).select_from(waiting.subquery()).scalar_subquery())
        ).one()
    return last or 0, number


def head_of(session: Session) -> Link | None:
    """The last place of the chain; None where nothing was sealed."""
    last = select(EVENTS.c.sequence, EVENTS.c.row_hash).where(EVENTS.c.sequence.is_not(None))
    row = session.execute(last.order_by(EVENTS.c.sequence.desc()).limit(1)).one_or_none()
    return None if row is None else Link(row.sequence, row.row_hash)


def link_at(db: Database, sequence: int) -> Link | None:
    """The link at a place of the chain; None where the chain does not reach it."""
    with db.reading() as session:
        found = session.execute(
            select(EVENTS.c.sequence, EVENTS.c.row_hash).where(EVENTS.c.sequence == sequence)
        ).first()
    return None if found is None else Link(*found)


def seal(db: Database, *, owner: str, at_once: int = AT_ONCE) -> Sealing:
    """Give the oldest unsealed events their places, in one transaction, if nobody else seals.

    Costs an idle service one statement that only reads.

    Args:
        db: The database.
        owner: Name of the sealer, unique among all that live.
        at_once: Most events.

    Raises:
        DatabaseUnavailable, DatabaseReadOnly: nothing was sealed.
    """
    with db.reading() as session:
        if not session.scalar(select(exists().where(is_unsealed()))):
            return Sealing(0, None)
    with db.writing() as session:
        if db.dialect == "postgresql":
            session.execute(text(f"SET LOCAL idle_in_transaction_session_timeout = {_IDLE_MS}"))
        if not hold(session, LEASE, owner=owner, lease_s=LEASE_S):
            return Sealing(0, None)
        return _seal(session, at_once)


def hold(session: Session, name: str, *, owner: str, lease_s: float) -> bool:
    """Take or renew a lease in the caller's transaction, which keeps everybody else out until it ends; False where another holds it."""
    until = db_after(lease_s)
    statement = (
        insert_or_else(session, ServiceLease)
        .values(name=name, owner=owner, until=until)
        .on_conflict_do_update(
            index_elements=[ServiceLease.name],
            set_={"owner": owner, "until": until},
            where=or_(ServiceLease.owner == owner, ServiceLease.until <= db_now()),
        )
        .returning(ServiceLease.name)
    )
    return session.scalar(statement) is not None


_SEAL = (
    update(EVENTS)
    .where(EVENTS.c.id == bindparam("sealed_id"))
    .values(
        sequence=bindparam("new_sequence"), prev_hash=bindparam("new_prev"), row_hash=bindparam("new_hash")
    )
)


def _seal(session: Session, at_once: int) -> Sealing:
    head = head_of(session)
    rows = session.execute(select(*COVERED).where(is_unsealed()).order_by(EVENTS.c.id).limit(at_once)).all()
    last = head or Link(0, GENESIS)
    sealed = []
    for row in rows:
        place = last.sequence + 1
        digest = row_hash(last.row_hash, place, tuple(row))
        sealed.append(
            {"sealed_id": row.id, "new_sequence": place, "new_prev": last.row_hash, "new_hash": digest}
        )
        last = Link(place, digest)
    if sealed:
        session.connection().execute(_SEAL, sealed)
    return Sealing(len(sealed), last if sealed else head)
