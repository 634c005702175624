"""Erasures that people ask for: a row that says what and why, worked off in transactions of bounded size.

A command carries its own request out at once. What comes over HTTP waits for the sweeper, which also looks through Redis. Held outputs refuse the whole request.
"""

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import ScalarSelect, Select, func, select, update
from sqlalchemy.orm import Session

from db.audit_trail.trail import Event, TrailKind, record_events
from db.clock import db_now
from db.erasure import holds
from db.erasure.erasing import ErasedOutput, erase_outputs, output_ids_of, read_outputs
from db.models import Erasure, FlaggedOutput
from db.session import Database
from db.storing.output_class import in_class
from wherefrom.errors import Held, NotFound
from wherefrom.records import ErasureDraft, ErasureRecord

#: Outputs that one transaction erases.
AT_ONCE = 200
#: Erasures that a list shows.
LISTED = 200
#: What is erased.
KINDS = ("output", "example")
#: What a tombstone says of an erasure that somebody asked for.
BY_REQUEST = "request"

#: Erases copies outside of the database; told before the rows are erased.
BeforeErasing = Callable[[Sequence[ErasedOutput]], object]


def ask(db: Database, draft: ErasureDraft, *, by: str) -> int:
    """Ask for an erasure of outputs; its id.

    Args:
        db: The database.
        draft: What is to go, and why.
        by: Actor of the trail.

    Raises:
        NotFound: nothing is there to erase.
        Held: a part of it is under a legal hold; nothing was asked for.
        DatabaseUnavailable: nothing was stored.
    """
    with db.writing() as session:
        holds.lock_erasing(session)
        number = _meant(session, draft)
        plain = draft.model_dump(mode="json", exclude_none=True, include={"audit_ids", "outputs"})
        made = Erasure(kind="output", reason=draft.reason, asked_by=by, chosen=plain)
        session.add(made)
        session.flush()
        record_events(
            session, [Event(TrailKind.ERASURE_REQUESTED, f"erasure:{made.id}", {"outputs": number})]
        )
        return made.id


def count_meant(db: Database, draft: ErasureDraft) -> int:
    """How many outputs an erasure would erase now; nothing is asked for.

    Raises:
        NotFound: nothing is there to erase.
        Held: a part of it is under a legal hold.
    """
    with db.reading() as session:
        return _meant(session, draft)


def _meant(session: Session, draft: ErasureDraft) -> int:
    """How many outputs a draft means, at least one, none of them held."""
    chosen = _chosen(session, draft)
    _refuse_held(session, chosen)
    number = session.scalar(select(func.count()).select_from(chosen.subquery()))
    if not number:
        raise NotFound("no output with a text is meant; nothing was erased")
    return number


def carry_out(db: Database, erasure_id: int, *, before: BeforeErasing) -> ErasureRecord:
    """Erase what a request chose, a few outputs in one transaction; a run that was stopped is gone on with.

    Args:
        db: The database.
        erasure_id: The request.
        before: Erases copies outside of the database; if it raises, the outputs stay as they are and the request stays open.

    Raises:
        DatabaseUnavailable: some outputs may be erased; call again.
    """
    try:
        while _step(db, erasure_id, before):
            pass
    except Held as error:
        _refuse(db, erasure_id, error)
    return get(db, erasure_id)


def _step(db: Database, erasure_id: int, before: BeforeErasing) -> bool:
    """Whether there may be more."""
    with db.reading() as session:
        row = session.get_one(Erasure, erasure_id)
        if row.done_at is not None or row.chosen is None:
            return False
        chosen = _chosen(session, ErasureDraft.model_validate({**row.chosen, "reason": row.reason}))
        ids = session.scalars(chosen.order_by(FlaggedOutput.id).limit(AT_ONCE)).all()
        holds.refuse_held_outputs(session, ids)
        found = read_outputs(session, ids)
    if found:
        before(found)
    with db.writing() as session:
        gone = erase_outputs(session, ids, by=BY_REQUEST)
        change: dict[str, Any] = {"erased": Erasure.erased + gone}
        if not ids:
            change |= {"done_at": db_now(), "chosen": None}
        session.execute(update(Erasure).where(Erasure.id == erasure_id).values(**change))
    return bool(ids)


def _chosen(session: Session, draft: ErasureDraft) -> Select[int]:
    query = select(FlaggedOutput.id).where(FlaggedOutput.erased_at.is_(None))
    if draft.outputs is not None:
        return query.where(*in_class(draft.outputs))
    ids = output_ids_of(session, draft.audit_ids)
    return query.where(FlaggedOutput.id.in_(ids))


def _refuse_held(session: Session, chosen: Select[int]) -> None:
    held = session.scalars(chosen.where(holds.is_held(session)).limit(1)).all()
    holds.refuse_held_outputs(session, held)


def _refuse(db: Database, erasure_id: int, error: Held) -> None:
    with db.writing() as session:
        values = {"done_at": db_now(), "chosen": None, "code": error.code, "refused": str(error)}
        session.execute(update(Erasure).where(Erasure.id == erasure_id).values(**values))
        record_events(
            session, [Event(TrailKind.ERASURE_REFUSED, f"erasure:{erasure_id}", {"code": error.code})]
        )


def waiting(db: Database) -> list[int]:
    """Requests that are not carried out, oldest first."""
    query = select(Erasure.id).where(Erasure.done_at.is_(None), Erasure.chosen.is_not(None))
    with db.reading() as session:
        return list(session.scalars(query.order_by(Erasure.id)))


def erased_texts(db: Database) -> dict[str, int]:
    """How many texts were erased so far, by kind."""
    summed = select(Erasure.kind, func.sum(Erasure.erased)).group_by(Erasure.kind)
    with db.reading() as session:
        return dict.fromkeys(KINDS, 0) | {kind: int(number) for kind, number in session.execute(summed)}


def lag_seconds(db: Database) -> float:
    """How long the oldest request waits that nobody has carried out, seconds; 0 where none waits."""
    asked = select(Erasure.asked_at).where(Erasure.done_at.is_(None), Erasure.chosen.is_not(None))
    oldest: ScalarSelect[Any] = asked.order_by(Erasure.id).limit(1).scalar_subquery()
    with db.reading() as session:
        since, now = session.execute(select(oldest, db_now())).one()
    return max(0.0, (now - since).total_seconds()) if since else 0.0


def note_examples(session: Session, *, reason: str, by: str, erased: int) -> int:
    """Keep that training examples were erased in this transaction; the id of the erasure."""
    made = Erasure(kind="example", reason=reason, asked_by=by, erased=erased, done_at=db_now())
    session.add(made)
    session.flush()
    return made.id


def get(db: Database, erasure_id: int) -> ErasureRecord:
    """One erasure.

    Raises:
        NotFound: there is none with this id.
    """
    with db.reading() as session:
        row = session.get(Erasure, erasure_id)
        if row is None:
            raise NotFound(f"no erasure has the id {erasure_id}")
        return _record(row)


def listed(db: Database) -> list[ErasureRecord]:
    """The newest erasures."""
    with db.reading() as session:
        rows = session.scalars(select(Erasure).order_by(Erasure.id.desc()).limit(LISTED)).all()
    return [_record(row) for row in rows]


def _record(row: Erasure) -> ErasureRecord:
    return ErasureRecord(
        erasure_id=row.id,
        kind=row.kind,
        reason=row.reason,
        asked_by=row.asked_by,
        asked_at=row.asked_at,
        erased=row.erased,
        done_at=row.done_at,
        cleaned_at=row.cleaned_at,
        code=row.code,
        refused=row.refused,
    )
