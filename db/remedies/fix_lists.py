"""Fix lists: made, read, given away, closed, and their history. `db.remedies.fix_rows` has what is on them.

A list is changed under a lock on its row, so that its history has an order and nothing changes on a closed one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import case, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from db.access.producers import checked_name
from db.audit_trail.reads import note_event
from db.audit_trail.trail import Event, TrailKind, record_events
from db.clock import db_now
from db.models import FixList, FixListEntry, FixListRow, Person
from db.reviewing.reviews import Reviewer
from db.session import Database
from db.statements import AnySelect
from wherefrom.errors import ConfigurationError, InvalidRequest, NotFound
from wherefrom.records import FixAction, FixEntry, FixEvent, FixListDraft, FixListSummary, Via

#: Entries of a history that are read.
ENTRIES = 200


@dataclass(frozen=True)
class NamedList:
    """A list as forms offer it, without what is on it."""

    list_id: int
    name: str
    is_open: bool


def create_list(db: Database, draft: FixListDraft, *, by: Reviewer) -> int:
    """The number of a new list, which belongs to whoever made it.

    Raises:
        InvalidRequest: the name is taken or cannot be used.
    """
    try:
        name = checked_name(draft.name, what="a fix list")
        with db.writing() as session:
            row = {"name": name, "note": draft.note.strip(), "owner_id": by.person.person_id}
            list_id: int | None = session.scalar(insert(FixList).values(**row).returning(FixList.id))
            if list_id is None:
                raise RuntimeError("the database returned no id for the new fix list")
            add_entry(session, list_id, FixEvent.CREATED, by=by)
            _record(session, TrailKind.FIX_LIST_CREATED, list_id, by)
    except ConfigurationError as error:
        raise InvalidRequest(str(error)) from error
    except IntegrityError as error:
        raise InvalidRequest(f"a fix list named {draft.name!r} exists; choose another name") from error
    return list_id


def list_lists(db: Database) -> list[FixListSummary]:
    """All lists, open ones first, the newest first; one statement."""
    order = (FixList.closed_at.is_not(None), FixList.id.desc())
    with db.reading() as session:
        return [FixListSummary(**row) for row in session.execute(_summaries().order_by(*order)).mappings()]


def named_lists(db: Database) -> list[NamedList]:
    """All lists, the newest first; what is on them is not counted."""
    query = select(FixList.id, FixList.name, FixList.closed_at).order_by(FixList.id.desc())
    with db.reading() as session:
        return [NamedList(row.id, row.name, row.closed_at is None) for row in session.execute(query)]


def get_list(db: Database, list_id: int) -> FixListSummary:
    """One list.

    Raises:
        NotFound: there is none with this number.
    """
    with db.reading() as session:
        row = session.execute(_summaries().where(FixList.id == list_id)).mappings().one_or_none()
    if row is None:
        raise NotFound(f"fix list {list_id} does not exist")
    return FixListSummary(**row)


def history(db: Database, list_id: int) -> list[FixEntry]:
    """The newest `ENTRIES` entries of a list, newest first."""
    query = (
        select(
            FixListEntry.id.label("entry_id"),
            FixListEntry.event,
            FixListEntry.action,
            FixListEntry.reason,
            FixListEntry.rows.label("rows"),
            FixListEntry.training_example_ids,
            FixListEntry.source,
            FixListEntry.culprits,
            Person.name.label("by"),
            FixListEntry.via,
            FixListEntry.created_at.label("at"),
        )
        .join(Person, Person.id == FixListEntry.person_id)
        .where(FixListEntry.list_id == list_id)
        .order_by(FixListEntry.id.desc())
        .limit(ENTRIES)
    )
    with db.reading() as session:
        return [_entry(dict(row)) for row in session.execute(query).mappings()]


def give_list(db: Database, list_id: int, owner_id: int, *, by: Reviewer) -> None:
    """Give a list to another owner.

    Raises:
        NotFound: there is no such list.
        InvalidRequest: it is closed.
    """
    with db.writing() as session:
        lock_open(session, list_id)
        session.execute(update(FixList).where(FixList.id == list_id).values(owner_id=owner_id))
        add_entry(session, list_id, FixEvent.GIVEN, by=by)
        _record(session, TrailKind.FIX_LIST_GIVEN, list_id, by, owner=owner_id)


def close_list(db: Database, list_id: int, *, by: Reviewer) -> None:
    """Let nothing on a list change any more; closing a closed list changes nothing.

    Raises:
        NotFound: there is no such list.
    """
    with db.writing() as session:
        if lock(session, list_id) is not None:
            return
        session.execute(update(FixList).where(FixList.id == list_id).values(closed_at=db_now()))
        add_entry(session, list_id, FixEvent.CLOSED, by=by)
        _record(session, TrailKind.FIX_LIST_CLOSED, list_id, by)


def lock(session: Session, list_id: int) -> Any:
    """Hold a list for this transaction; when it was closed.

    Raises:
        NotFound: there is no such list.
    """
    row = session.execute(
        select(FixList.id, FixList.closed_at).where(FixList.id == list_id).with_for_update()
    )
    found = row.one_or_none()
    if found is None:
        raise NotFound(f"fix list {list_id} does not exist")
    return found.closed_at


def lock_open(session: Session, list_id: int) -> None:
    """Hold a list that can still be changed.

    Raises:
        NotFound: there is no such list.
        InvalidRequest: it is closed.
    """
    if lock(session, list_id) is not None:
        raise InvalidRequest(f"fix list {list_id} is closed; make a new one for further changes")


def add_entry(
    session: Session,
    list_id: int,
    event: FixEvent,
    *,
    by: Reviewer,
    action: FixAction | None = None,
    reason: str = "",
    ids: Sequence[int] = (),
    **what: Any,
) -> int:
    """Append to a list's history; the entry's number.

    Args:
        session: The caller's transaction.
        list_id: The list.
        event: What happened.
        by: Who did it.
        action: What the rows got.
        reason: Why.
        ids: Training examples that were named one by one.
        **what: `source` or `culprits`.
    """
    row = {
        "list_id": list_id,
        "event": event,
        "action": action,
        "reason": reason,
        "rows": 0,
        "training_example_ids": list(ids) or None,
        "person_id": by.person.person_id,
        "via": by.via,
        **what,
    }
    entry_id: int | None = session.scalar(insert(FixListEntry).values(**row).returning(FixListEntry.id))
    if entry_id is None:
        raise RuntimeError("the database returned no id for the new entry")
    return entry_id


def note_export(db: Database, list_id: int, *, rows: int, what: str) -> None:
    """Tell the trail that the rows of a list left the service."""
    note_event(db, Event(TrailKind.FIX_LIST_EXPORTED, f"fix_list:{list_id}", {"rows": rows, "what": what}))


def _record(session: Session, kind: TrailKind, list_id: int, by: Reviewer, **more: int) -> None:
    payload = {"by": by.person.person_id, "via": by.via.value} | more
    record_events(session, [Event(kind, f"fix_list:{list_id}", payload)])


def _summaries() -> AnySelect:
    counted = (
        select(
            FixListRow.list_id,
            *(
                func.sum(case((FixListRow.action == action, 1), else_=0)).label(action.value)
                for action in FixAction
            ),
        )
        .group_by(FixListRow.list_id)
        .subquery("counted")
    )
    return (
        select(
            FixList.id.label("list_id"),
            FixList.name,
            FixList.note,
            Person.name.label("owner"),
            FixList.created_at,
            FixList.closed_at,
            *(func.coalesce(counted.c[action.value], 0).label(action.value) for action in FixAction),
        )
        .join(Person, Person.id == FixList.owner_id)
        .outerjoin(counted, counted.c.list_id == FixList.id)
    )


def _entry(row: dict[str, Any]) -> FixEntry:
    proven = row.pop("via") is not Via.LOCAL
    return FixEntry(**(row | {"training_example_ids": row["training_example_ids"] or (), "proven": proven}))
