"""Review queues: made, filled by their rule or by hand, closed. `db.reviewing.review_work` has what people do in them.

Only answered audits enter: the others have no citations to judge. An audit enters a queue once; its row stays when it is taken
out, so neither the rule nor a hand brings it in again.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import exists, func, insert, literal, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, aliased

from db.access.producers import checked_name
from db.audit_trail.trail import Event, TrailKind, record_events
from db.clock import LATE_COMMIT, db_now
from db.counts import count_at_most
from db.models import (
    Audit,
    FlaggedOutput,
    FlaggedText,
    Person,
    ReviewAssignment,
    ReviewItem,
    ReviewMember,
    ReviewQueue,
)
from db.reading.listings import look_up
from db.reading.reader import select_audits
from db.reading.selection import ANSWERED
from db.reviewing.blind import draw
from db.reviewing.review_work import assign
from db.session import Database
from db.statements import AnySelect, insert_new
from wherefrom.errors import ConfigurationError, InvalidRequest, NotFound
from wherefrom.records import (
    Added,
    AuditFilter,
    ItemState,
    QueueDraft,
    QueueOrder,
    QueueSummary,
    sha256_of_json,
)

#: Most audits that a count of a queue tells apart.
COUNTED_ITEMS = 10_000
#: Audits that enter with one transaction.
CHUNK = 500


@dataclass(frozen=True)
class _Open:
    """What filling needs to know of a queue."""

    queue_id: int
    rule: AuditFilter | None
    order: QueueOrder
    dedupe: bool
    blind: bool


def create_queue(db: Database, draft: QueueDraft, *, created_by: int | None) -> int:
    """The number of a new queue; it is empty until it is filled.

    Raises:
        InvalidRequest: the name is taken or cannot be used.
    """
    try:
        name = checked_name(draft.name, what="a queue")
        with db.writing() as session:
            row = {
                "name": name,
                "rule": None if draft.rule is None else draft.rule.model_dump(mode="json", exclude_none=True),
                "order": draft.order,
                "reviewers": draft.reviewers,
                "dedupe": draft.dedupe,
                "blind": draft.blind,
                "created_by": created_by,
            }
            queue_id: int | None = session.scalar(insert(ReviewQueue).values(**row).returning(ReviewQueue.id))
            if queue_id is None:
                raise RuntimeError("the database returned no id for the new queue")
            record_events(
                session, [Event(TrailKind.QUEUE_CREATED, f"review_queue:{queue_id}", {"by": created_by})]
            )
    except ConfigurationError as error:
        raise InvalidRequest(str(error)) from error
    except IntegrityError as error:
        raise InvalidRequest(f"a queue named {draft.name!r} exists; choose another name") from error
    return queue_id


def list_queues(db: Database, *, person_id: int | None = None, sees_all: bool = True) -> list[QueueSummary]:
    """The queues, open ones first, with counts up to `COUNTED_ITEMS`; one statement.

    Args:
        db: The database.
        person_id: Whose open audits are counted as `mine`.
        sees_all: False: only queues of which the person is a member, or in which something is assigned to them.
    """
    query = _summaries(person_id).order_by(ReviewQueue.closed_at.is_not(None), ReviewQueue.name)
    if not sees_all:
        query = query.where(visible_to(person_id))
    with db.reading() as session:
        return [QueueSummary(**row) for row in session.execute(query).mappings()]


def get_queue(
    db: Database, queue_id: int, *, person_id: int | None = None, sees_all: bool = True
) -> QueueSummary:
    """One queue; see `list_queues`.

    Raises:
        NotFound: there is none, or none that the person may see.
    """
    query = _summaries(person_id).where(ReviewQueue.id == queue_id)
    if not sees_all:
        query = query.where(visible_to(person_id))
    with db.reading() as session:
        row = session.execute(query).mappings().one_or_none()
    if row is None:
        raise NotFound(f"review queue {queue_id} does not exist")
    return QueueSummary(**row)


def queue_named(db: Database, name: str) -> int:
    """The number of the queue of this name.

    Raises:
        NotFound: there is none.
    """
    with db.reading() as session:
        found = session.scalar(select(ReviewQueue.id).where(ReviewQueue.name == name))
    if found is None:
        raise NotFound(f"no review queue is named {name!r}")
    return found


def close_queue(db: Database, queue_id: int, *, by: int | None) -> None:
    """Let nothing more enter; what is in it can still be judged."""
    with db.writing() as session:
        mine = (ReviewQueue.id == queue_id, ReviewQueue.closed_at.is_(None))
        if session.execute(update(ReviewQueue).where(*mine).values(closed_at=db_now())).rowcount:  # type: ignore[attr-defined] # a CursorResult
            record_events(session, [Event(TrailKind.QUEUE_CLOSED, f"review_queue:{queue_id}", {"by": by})])


def add_member(db: Database, queue_id: int, person_id: int, *, by: int | None) -> None:
    """Let somebody take audits of a queue by themselves; nothing where they may."""
    with db.writing() as session:
        statement = insert_new(session, ReviewMember, (ReviewMember.queue_id, ReviewMember.person_id))
        if session.scalar(
            statement.values(queue_id=queue_id, person_id=person_id).returning(ReviewMember.person_id)
        ):
            payload = {"person": person_id, "by": by}
            record_events(session, [Event(TrailKind.QUEUE_MEMBER, f"review_queue:{queue_id}", payload)])


def fill(db: Database, queue_id: int) -> int:
    """Apply the rule of a queue to what was answered since the last time; how many audits entered.

    Raises:
        NotFound: there is no such queue.
    """
    with db.reading() as session:
        queue = _open_queue(session, queue_id)
        began, last = session.execute(
            select(db_now(), ReviewQueue.filled_at).where(ReviewQueue.id == queue_id)
        ).one()
    if queue is None or queue.rule is None:
        return 0
    # An output comes into a finding some time after it was answered, and people move it later: all of it is looked at.
    since = (
        [] if last is None or queue.rule.finding is not None else [Audit.finished_at >= last - LATE_COMMIT]
    )
    added = _enter(db, queue, [*look_up(db, queue.rule), *since], by="rule")
    with db.writing() as session:
        session.execute(update(ReviewQueue).where(ReviewQueue.id == queue_id).values(filled_at=began))
    return len(added)


def fill_all(db: Database) -> int:
    """Apply the rules of all open queues; how many audits entered."""
    wanted = select(ReviewQueue.id).where(ReviewQueue.closed_at.is_(None), ReviewQueue.rule.is_not(None))
    with db.reading() as session:
        queue_ids = session.scalars(wanted).all()
    return sum(fill(db, queue_id) for queue_id in queue_ids)


def preview(db: Database, filters: AuditFilter, *, most: int) -> int:
    """How many answered audits match a filter; `most` where there are as many or more."""
    wanted = look_up(db, filters)
    rows = select_audits(literal(1).label("one")).where(*wanted, Audit.state.in_(ANSWERED)).limit(most)
    with db.reading() as session:
        return session.scalar(select(func.count()).select_from(rows.subquery())) or 0


def put_in(
    db: Database, queue_id: int, filters: AuditFilter, *, by: int | None, assign_to: int | None = None
) -> Added:
    """Put every audit that matches into a queue, and have somebody judge those that entered.

    Args:
        db: The database.
        queue_id: The queue.
        filters: Which audits; only answered ones enter.
        by: Who does it.
        assign_to: Who is to judge them; nobody where it is None.

    Raises:
        NotFound: there is no such queue.
        InvalidRequest: it is closed.
    """
    with db.reading() as session:
        queue = _open_queue(session, queue_id)
    if queue is None:
        raise InvalidRequest("this queue is closed; nothing more enters")
    matched = preview(db, filters, most=2**31)
    entered = _enter(db, queue, look_up(db, filters), by=by)
    if assign_to is not None and entered:
        assign(db, entered, assign_to, by=by)
    return Added(matched=matched, added=len(entered), assigned=len(entered) if assign_to is not None else 0)


def _open_queue(session: Session, queue_id: int) -> _Open | None:
    """The queue, or None where it is closed.

    Raises:
        NotFound: there is no such queue.
    """
    row = session.get(ReviewQueue, queue_id)
    if row is None:
        raise NotFound(f"review queue {queue_id} does not exist")
    if row.closed_at is not None:
        return None
    rule = None if row.rule is None else AuditFilter.model_validate(row.rule)
    return _Open(row.id, rule, row.order, row.dedupe, row.blind)


def _enter(db: Database, queue: _Open, wanted: Sequence[Any], *, by: int | str | None) -> list[int]:
    """Let audits in, some at a time, in the order of their numbers; the items that are new."""
    entered: list[int] = []
    after = 0
    while True:
        with db.writing() as session:
            rows = session.execute(_candidates(queue.queue_id, wanted, after=after)).all()
            new = _insert_items(session, queue, rows)
            if new:
                if queue.blind:
                    draw(session, new)
                payload = {"audits": len(new), "by": by}
                event = Event(TrailKind.QUEUE_FILLED, f"review_queue:{queue.queue_id}", payload)
                record_events(session, [event])
        entered += new
        if len(rows) < CHUNK:
            return entered
        after = rows[-1].id


def _candidates(queue_id: int, wanted: Sequence[Any], *, after: int) -> AnySelect:
    present = exists().where(ReviewItem.queue_id == queue_id, ReviewItem.audit_id == Audit.id)
    return (
        select_audits(
            Audit.id, Audit.priority, FlaggedOutput.model, FlaggedText.turns, FlaggedText.completion
        )
        .where(*wanted, Audit.state.in_(ANSWERED), Audit.id > after, ~present)
        .order_by(Audit.id)
        .limit(CHUNK)
    )


def _insert_items(session: Session, queue: _Open, rows: Iterable[Any]) -> list[int]:
    """Insert what is not there; the ids of what is new."""
    values = [
        {
            "queue_id": queue.queue_id,
            "audit_id": row.id,
            "state": ItemState.OPEN,
            "dedupe_key": _dedupe_key(row) if queue.dedupe else None,
            "order_key": _order_key(queue, row),
            "assigned": 0,
            "finished": 0,
        }
        for row in rows
    ]
    if not values:
        return []
    unique = {
        one["dedupe_key"] or one["audit_id"]: one for one in reversed(values)
    }  # the oldest of equal ones
    numbers = [one["audit_id"] for one in unique.values()]
    highest = session.scalar(select(func.max(ReviewItem.id))) or 0
    statement = insert_new(session, ReviewItem)
    session.execute(statement, sorted(unique.values(), key=lambda one: one["audit_id"]))
    new = select(ReviewItem.id).where(
        ReviewItem.queue_id == queue.queue_id, ReviewItem.audit_id.in_(numbers), ReviewItem.id > highest
    )
    return list(session.scalars(new.order_by(ReviewItem.id)))


def _dedupe_key(row: Any) -> str | None:
    """The same for outputs with the same text of the same model; None where the text was erased."""
    if row.completion is None:
        return None
    return sha256_of_json([row.model, row.turns, row.completion])


def _order_key(queue: _Open, row: Any) -> int:
    """The place in the queue's order, smallest first; numbers of audits grow with time."""
    number: int = row.id
    keys: dict[QueueOrder, int] = {
        QueueOrder.OLDEST: number,
        QueueOrder.NEWEST: -number,
        QueueOrder.SEVERITY: row.priority * 2**40 + number,
        QueueOrder.SHUFFLED: int(sha256_of_json([queue.queue_id, number])[:8], 16),
    }
    return keys[queue.order]


def visible_to(person_id: int | None) -> Any:
    """Whether somebody who does not see everything sees a queue: as a member, or for what is assigned to them."""
    member = exists().where(ReviewMember.queue_id == ReviewQueue.id, ReviewMember.person_id == person_id)
    item = aliased(ReviewItem)
    assigned = exists().where(
        ReviewAssignment.item_id == item.id,
        item.queue_id == ReviewQueue.id,
        ReviewAssignment.person_id == person_id,
    )
    return member | assigned


def _summaries(person_id: int | None) -> AnySelect:
    def items(state: ItemState) -> Any:
        mine = (ReviewItem.queue_id == ReviewQueue.id, ReviewItem.state == state)
        return count_at_most(COUNTED_ITEMS + 1, *mine, correlate=ReviewQueue).label(state.value)

    mine = count_at_most(
        COUNTED_ITEMS + 1,
        ReviewItem.queue_id == ReviewQueue.id,
        ReviewItem.state == ItemState.OPEN,
        ReviewAssignment.item_id == ReviewItem.id,
        ReviewAssignment.person_id == person_id,
        ReviewAssignment.finished_at.is_(None),
        correlate=ReviewQueue,
    )
    return select(
        ReviewQueue.id.label("queue_id"),
        ReviewQueue.name,
        ReviewQueue.rule,
        ReviewQueue.order.label("order"),
        ReviewQueue.reviewers,
        ReviewQueue.dedupe,
        ReviewQueue.blind,
        Person.name.label("created_by"),
        ReviewQueue.created_at,
        ReviewQueue.closed_at,
        ReviewQueue.filled_at,
        *(items(state) for state in ItemState),
        mine.label("mine"),
    ).outerjoin(Person, Person.id == ReviewQueue.created_by)
