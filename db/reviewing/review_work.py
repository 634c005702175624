"""What people do in a review queue: take the next audit, be assigned some, finish them, take them out; and how far they are.

`review_item.assigned` and `.finished` count assignments. Every function that changes assignments counts them again in its transaction.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import ColumnElement, and_, case, delete, exists, func, or_, select, update
from sqlalchemy.orm import Session

from db.audit_trail.trail import Event, TrailKind, record_events
from db.clock import db_now
from db.models import Audit, Person, ReviewAssignment, ReviewItem, ReviewMember, ReviewQueue
from db.reading.reader import SUMMARY, select_audits, summary_of
from db.session import Database
from db.statements import insert_new
from wherefrom.errors import NotFound
from wherefrom.records import ItemState, PersonProgress, PersonRef, QueueItem

#: Items of one statement.
_AT_ONCE = 500


def take_next(db: Database, queue_id: int, person_id: int, *, members_only: bool = False) -> int | None:
    """The item that somebody works on next, in the queue's order: one that is theirs, or one that nobody has; None at the end.

    Of two people who ask at once each gets their own, as long as the queue wants one person per audit.

    Args:
        db: The database.
        queue_id: The queue.
        person_id: Who asks.
        members_only: Give what nobody has to members of the queue only.
    """
    with db.writing() as session:
        query = _next(queue_id, person_id, members_only=members_only)
        item = session.execute(query.with_for_update(of=ReviewItem, skip_locked=True)).first()
        if item is None:
            return None
        if not item.mine:
            _assign(session, [item.id], person_id, by=None)
        return int(item.id)


def _next(queue_id: int, person_id: int, *, members_only: bool) -> Any:
    mine = exists().where(_assigned_to(person_id), ReviewAssignment.finished_at.is_(None))
    free = _wants(person_id)
    if members_only:
        free = and_(free, _is_member(person_id))
    return (
        select(ReviewItem.id, mine.label("mine"))
        .join(ReviewQueue, ReviewQueue.id == ReviewItem.queue_id)
        .where(ReviewItem.queue_id == queue_id, ReviewItem.state == ItemState.OPEN, or_(mine, free))
        .order_by(ReviewItem.order_key, ReviewItem.id)
        .limit(1)
    )


def _assigned_to(person_id: int) -> ColumnElement[bool]:
    return and_(ReviewAssignment.item_id == ReviewItem.id, ReviewAssignment.person_id == person_id)


def _wants(person_id: int) -> ColumnElement[bool]:
    """Whether an item still wants people, and this one never had it."""
    return and_(ReviewItem.assigned < ReviewQueue.reviewers, ~exists().where(_assigned_to(person_id)))


def _visible_to(person_id: int) -> ColumnElement[bool]:
    """Whether somebody who does not see everything may open an item: it is theirs, or in a queue of theirs."""
    return or_(_is_member(person_id), exists().where(_assigned_to(person_id)))


def _is_member(person_id: int) -> ColumnElement[bool]:
    return exists().where(ReviewMember.queue_id == ReviewItem.queue_id, ReviewMember.person_id == person_id)


def assign(db: Database, item_ids: Collection[int], person_id: int, *, by: int | None) -> int:
    """Have somebody judge items; how many are new to them."""
    with db.writing() as session:
        return _assign(session, sorted(item_ids), person_id, by=by)


def assign_open(db: Database, queue_id: int, person_id: int, *, most: int, by: int | None) -> int:
    """Have somebody judge the next items of a queue that too few people have; how many there were."""
    with db.writing() as session:
        wanted = (
            select(ReviewItem.id)
            .join(ReviewQueue, ReviewQueue.id == ReviewItem.queue_id)
            .where(
                ReviewItem.queue_id == queue_id,
                ReviewItem.state == ItemState.OPEN,
                _wants(person_id),
            )
            .order_by(ReviewItem.order_key, ReviewItem.id)
            .limit(most)
        )
        return _assign(session, list(session.scalars(wanted)), person_id, by=by)


def _assign(session: Session, item_ids: Sequence[int], person_id: int, *, by: int | None) -> int:
    statement = insert_new(session, ReviewAssignment, (ReviewAssignment.item_id, ReviewAssignment.person_id))
    assigned = 0
    for start in range(0, len(item_ids), _AT_ONCE):
        chunk = item_ids[start : start + _AT_ONCE]
        before = _assignments(session, chunk)
        session.execute(
            statement, [{"item_id": one, "person_id": person_id, "assigned_by": by} for one in chunk]
        )
        assigned += _assignments(session, chunk) - before
        _recount(session, chunk)
    if assigned:
        payload = {"person": person_id, "items": assigned, "by": by}
        record_events(session, [Event(TrailKind.QUEUE_ASSIGNED, f"review_item:{item_ids[0]}", payload)])
    return assigned


def _assignments(session: Session, item_ids: Sequence[int]) -> int:
    counted = select(func.count()).select_from(ReviewAssignment).where(ReviewAssignment.item_id.in_(item_ids))
    return session.scalar(counted) or 0


def unassign(db: Database, item_id: int, person_id: int, *, by: int | None) -> None:
    """Take an item off somebody who has not judged it; nothing where they do not have it."""
    with db.writing() as session:
        mine = (
            ReviewAssignment.item_id == item_id,
            ReviewAssignment.person_id == person_id,
            ReviewAssignment.finished_at.is_(None),
        )
        if session.execute(delete(ReviewAssignment).where(*mine)).rowcount:  # type: ignore[attr-defined] # a CursorResult
            payload = {"person": person_id, "by": by}
            record_events(session, [Event(TrailKind.QUEUE_UNASSIGNED, f"review_item:{item_id}", payload)])
        _recount(session, [item_id])


def mark_finished(session: Session, item_id: int, person_id: int, *, finished: bool) -> None:
    """Note that somebody has judged an item, or has taken that back; who judges an item has it."""
    if finished:
        _assign(session, [item_id], person_id, by=None)
    changed = update(ReviewAssignment).where(
        ReviewAssignment.item_id == item_id,
        ReviewAssignment.person_id == person_id,
        ReviewAssignment.finished_at.is_(None) if finished else ReviewAssignment.finished_at.is_not(None),
    )
    session.execute(changed.values(finished_at=db_now() if finished else None))
    _recount(session, [item_id])


def remove(db: Database, item_id: int, *, by: int | None) -> None:
    """Take an item out; neither its queue's rule nor a hand lets it in again.

    Raises:
        NotFound: there is no such item.
    """
    _set_state(db, item_id, ItemState.REMOVED, kind=TrailKind.QUEUE_REMOVED, by=by)


def restore(db: Database, item_id: int, *, by: int | None) -> None:
    """Take back that an item was taken out.

    Raises:
        NotFound: there is no such item.
    """
    _set_state(db, item_id, ItemState.OPEN, kind=TrailKind.QUEUE_RESTORED, by=by)


def _set_state(db: Database, item_id: int, state: ItemState, *, kind: TrailKind, by: int | None) -> None:
    with db.writing() as session:
        changed = update(ReviewItem).where(ReviewItem.id == item_id).values(state=state)
        if not session.execute(changed).rowcount:  # type: ignore[attr-defined] # a CursorResult
            raise NotFound(f"review item {item_id} does not exist")
        record_events(session, [Event(kind, f"review_item:{item_id}", {"by": by})])
        if state is ItemState.OPEN:
            _recount(session, [item_id])


def _recount(session: Session, item_ids: Sequence[int]) -> None:
    """Count assignments again, and say whether enough people have judged the items."""
    mine = select(func.count()).where(ReviewAssignment.item_id == ReviewItem.id).correlate(ReviewItem)
    assigned = mine.scalar_subquery()
    finished = mine.where(ReviewAssignment.finished_at.is_not(None)).scalar_subquery()
    wanted = (
        select(ReviewQueue.reviewers)
        .where(ReviewQueue.id == ReviewItem.queue_id)
        .correlate(ReviewItem)
        .scalar_subquery()
    )
    state = case(
        (ReviewItem.state == ItemState.REMOVED, ItemState.REMOVED.value),
        (finished >= wanted, ItemState.DONE.value),
        else_=ItemState.OPEN.value,
    )
    session.execute(
        update(ReviewItem)
        .where(ReviewItem.id.in_(item_ids))
        .values(assigned=assigned, finished=finished, state=state)
        .execution_options(synchronize_session=False)
    )


def get_item(db: Database, queue_id: int, item_id: int) -> QueueItem:
    """One item with its audit's summary; two statements.

    Raises:
        NotFound: the queue has no such item.
    """
    with db.reading() as session:
        found = _items(session, ReviewItem.queue_id == queue_id, ReviewItem.id == item_id, limit=1)
    if not found:
        raise NotFound(f"review queue {queue_id} has no item {item_id}")
    return found[0]


def may_see(db: Database, item_id: int, person_id: int) -> bool:
    """Whether somebody who does not see everything may open an item: it is theirs, or free in a queue of theirs."""
    with db.reading() as session:
        query = select(ReviewItem.id).where(ReviewItem.id == item_id, _visible_to(person_id))
        return session.scalar(query) is not None


def sees_audit(db: Database, audit_id: int, person_id: int) -> bool:
    """The same for an audit: some item of it may be opened."""
    with db.reading() as session:
        query = select(ReviewItem.id).where(ReviewItem.audit_id == audit_id, _visible_to(person_id)).limit(1)
        return session.scalar(query) is not None


def list_items(
    db: Database,
    queue_id: int,
    *,
    state: ItemState = ItemState.OPEN,
    after: tuple[int, int] | None = None,
    limit: int = 50,
) -> list[QueueItem]:
    """Items of a queue in its order; two statements.

    Args:
        db: The database.
        queue_id: The queue.
        state: Which of them.
        after: Order key and number of the last item of the page before; None for the first page.
        limit: Most items.
    """
    wanted = [ReviewItem.queue_id == queue_id, ReviewItem.state == state]
    if after is not None:
        wanted.append(_behind(*after))
    with db.reading() as session:
        return _items(session, *wanted, limit=limit)


def _behind(order_key: int, item_id: int) -> ColumnElement[bool]:
    return or_(
        ReviewItem.order_key > order_key, and_(ReviewItem.order_key == order_key, ReviewItem.id > item_id)
    )


def position(db: Database, item_id: int) -> tuple[int, int] | None:
    """The place of an item in its queue's order; None where there is no such item."""
    with db.reading() as session:
        row = session.execute(
            select(ReviewItem.order_key, ReviewItem.id).where(ReviewItem.id == item_id)
        ).one_or_none()
    return None if row is None else (row.order_key, row.id)


def neighbours(db: Database, item_id: int) -> tuple[int | None, int | None]:
    """The open items before and behind one in its queue's order, whoever has them; two index steps."""
    with db.reading() as session:
        here = session.execute(
            select(ReviewItem.queue_id, ReviewItem.order_key, ReviewItem.id).where(ReviewItem.id == item_id)
        ).one_or_none()
        if here is None:
            return None, None
        others = select(ReviewItem.id).where(
            ReviewItem.queue_id == here.queue_id, ReviewItem.state == ItemState.OPEN, ReviewItem.id != here.id
        )
        behind = _behind(here.order_key, here.id)
        following = others.where(behind).order_by(ReviewItem.order_key, ReviewItem.id).limit(1)
        before = others.where(~behind).order_by(ReviewItem.order_key.desc(), ReviewItem.id.desc()).limit(1)
        return session.scalar(before), session.scalar(following)


def _items(session: Session, *wanted: ColumnElement[bool], limit: int) -> list[QueueItem]:
    query = (
        select_audits(
            ReviewItem.id.label("item_id"),
            ReviewItem.queue_id,
            ReviewItem.state.label("item_state"),
            ReviewItem.finished,
            ReviewItem.added_at,
            *SUMMARY,
        )
        .join(ReviewItem, ReviewItem.audit_id == Audit.id)
        .where(*wanted)
        .order_by(ReviewItem.order_key, ReviewItem.id)
        .limit(limit)
    )
    rows = session.execute(query).mappings().all()
    people = _people_of(session, [row["item_id"] for row in rows])
    return [
        QueueItem(
            item_id=row["item_id"],
            queue_id=row["queue_id"],
            state=row["item_state"],
            assigned=tuple(people[row["item_id"]]),
            finished=row["finished"],
            added_at=row["added_at"],
            audit=summary_of(row),
        )
        for row in rows
    ]


def _people_of(session: Session, item_ids: Sequence[int]) -> dict[int, list[PersonRef]]:
    query = (
        select(ReviewAssignment.item_id, Person.id, Person.name)
        .join(Person, Person.id == ReviewAssignment.person_id)
        .where(ReviewAssignment.item_id.in_(item_ids))
        .order_by(Person.name)
    )
    people: dict[int, list[PersonRef]] = defaultdict(list)
    for row in session.execute(query):
        people[row.item_id].append(PersonRef(person_id=row.id, name=row.name))
    return people


def progress(db: Database, queue_id: int) -> list[PersonProgress]:
    """How far each person is: members, and everybody to whom something is or was assigned; one statement."""
    work = (
        select(
            ReviewAssignment.person_id,
            func.count().label("assigned"),
            func.count(ReviewAssignment.finished_at).label("finished"),
            func.max(ReviewAssignment.finished_at).label("last"),
        )
        .join(ReviewItem, ReviewItem.id == ReviewAssignment.item_id)
        .where(ReviewItem.queue_id == queue_id, ReviewItem.state != ItemState.REMOVED)
        .group_by(ReviewAssignment.person_id)
        .subquery()
    )
    member = exists().where(ReviewMember.person_id == Person.id, ReviewMember.queue_id == queue_id)
    query = (
        select(Person.id, Person.name, member.label("member"), work.c.assigned, work.c.finished, work.c.last)
        .outerjoin(work, work.c.person_id == Person.id)
        .where(or_(member, work.c.person_id.is_not(None)))
        .order_by(Person.name)
    )
    with db.reading() as session:
        return [
            PersonProgress(
                person=PersonRef(person_id=row.id, name=row.name),
                member=bool(row.member),
                assigned=row.assigned or 0,
                finished=row.finished or 0,
                last_finished_at=row.last,
            )
            for row in session.execute(query)
        ]
