"""Legal holds: outputs that nothing erases, and training examples that these cite. A hold is placed and lifted with a reason; it is never deleted.

A hold on a class also holds outputs that come later. Whoever erases asks under the same lock under which holds are placed.
"""

from collections.abc import Iterable, Iterator, Sequence

from sqlalchemy import ColumnElement, and_, exists, false, func, or_, select, text, true, update
from sqlalchemy.orm import Session, aliased

from db.audit_trail.trail import Event, TrailKind, record_events
from db.clock import db_now
from db.models import Audit, Citation, FlaggedOutput, LegalHold, LegalHoldAudit, OutputGroupMember
from db.pages import LARGEST_ID
from db.session import Database
from db.statements import insert_rows
from db.storing.examples import CHUNK
from db.storing.output_class import in_class
from wherefrom.errors import Held, InvalidRequest, NotFound
from wherefrom.records import HoldDraft, HoldRecord, OutputClass

#: Number of PostgreSQL's advisory lock between erasures and new holds.
ERASING_LOCK = 0x65726173
#: Holds that are open at once.
MOST_OPEN = 200


def lock_erasing(session: Session) -> None:
    """Wait for whoever places a hold or erases. SQLite has one writer anyway."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": ERASING_LOCK})


def place(db: Database, draft: HoldDraft, *, by: str) -> HoldRecord:
    """Place a hold.

    Args:
        db: The database.
        draft: What is held, and why.
        by: Actor of the trail.

    Raises:
        NotFound: there is no audit with one of the ids.
        InvalidRequest: too many holds are open.
        DatabaseUnavailable: nothing was placed.
    """
    ids = sorted(set(draft.audit_ids))
    with db.writing() as session:
        lock_erasing(session)
        _check_audits(session, ids)
        if (session.scalar(select(func.count()).where(LegalHold.lifted_at.is_(None))) or 0) >= MOST_OPEN:
            raise InvalidRequest(f"{MOST_OPEN} holds are open; lift one first, or hold a class")
        outputs = None if draft.outputs is None else draft.outputs.model_dump(mode="json", exclude_none=True)
        hold = LegalHold(outputs=outputs, reason=draft.reason, placed_by=by)
        session.add(hold)
        session.flush()
        if ids:
            session.execute(
                insert_rows(LegalHoldAudit), [{"hold_id": hold.id, "audit_id": one} for one in ids]
            )
        facts = {"audits": len(ids)} if ids else {"filters": sorted(outputs or {})}
        record_events(session, [Event(TrailKind.HOLD_PLACED, f"legal_hold:{hold.id}", facts)])
        hold_id = hold.id
    return get(db, hold_id)


def lift(db: Database, hold_id: int, *, reason: str, by: str) -> HoldRecord:
    """Lift a hold; what rules would have erased meanwhile is erased with their next look.

    Raises:
        NotFound: there is no such hold.
        InvalidRequest: it was lifted before.
        DatabaseUnavailable: nothing was lifted.
    """
    get(db, hold_id)
    with db.writing() as session:
        lock_erasing(session)
        change = (
            update(LegalHold)
            .where(LegalHold.id == hold_id, LegalHold.lifted_at.is_(None))
            .values(lifted_at=db_now(), lifted_by=by, lift_reason=reason)
        )
        if session.scalar(change.returning(LegalHold.id)) is None:
            raise InvalidRequest(f"hold {hold_id} was lifted already")
        record_events(session, [Event(TrailKind.HOLD_LIFTED, f"legal_hold:{hold_id}")])
    return get(db, hold_id)


def get(db: Database, hold_id: int) -> HoldRecord:
    """One hold.

    Raises:
        NotFound: there is none with this id.
    """
    found = _read(db, LegalHold.id == hold_id) if 0 < hold_id <= LARGEST_ID else []
    if not found:
        raise NotFound(f"no legal hold has the id {hold_id}")
    return found[0]


def listed(db: Database, *, lifted: bool = False) -> list[HoldRecord]:
    """The holds, newest first; with `lifted` those that were lifted too."""
    return _read(db) if lifted else _read(db, LegalHold.lifted_at.is_(None))


def _read(db: Database, *wanted: ColumnElement[bool]) -> list[HoldRecord]:
    """The holds that meet all conditions, with their audits; two statements."""
    named = (
        select(LegalHoldAudit.hold_id, LegalHoldAudit.audit_id)
        .join(LegalHold, LegalHold.id == LegalHoldAudit.hold_id)
        .where(*wanted)
        .order_by(LegalHoldAudit.audit_id)
    )
    audits: dict[int, list[int]] = {}
    with db.reading() as session:
        rows = session.scalars(select(LegalHold).where(*wanted).order_by(LegalHold.id.desc())).all()
        for hold_id, audit_id in session.execute(named):
            audits.setdefault(hold_id, []).append(audit_id)
    return [_record(one, audits.get(one.id, [])) for one in rows]


def _record(one: LegalHold, audits: Sequence[int]) -> HoldRecord:
    return HoldRecord(
        hold_id=one.id,
        audit_ids=tuple(audits),
        outputs=None if one.outputs is None else OutputClass.model_validate(one.outputs),
        reason=one.reason,
        placed_by=one.placed_by,
        placed_at=one.placed_at,
        lifted_by=one.lifted_by,
        lifted_at=one.lifted_at,
        lift_reason=one.lift_reason,
    )


def is_held(session: Session) -> ColumnElement[bool]:
    """Whether any open hold is about a `FlaggedOutput`: about itself, about a group that it belongs to, or about the output in whose place it is supposed."""
    # `IS TRUE`, or the negation of what is NULL, such as a label that an output lacks, would keep it for ever.
    conditions = [_by_hold(one).is_(true()) for one in _open(session)]
    return or_(*conditions) if conditions else false()


def _by_hold(hold: LegalHold) -> ColumnElement[bool]:
    other = aliased(FlaggedOutput)
    group = OutputGroupMember.group_id == other.id
    # What a group says stands in its members: who holds the group holds their texts.
    member = exists().where(OutputGroupMember.member_id == FlaggedOutput.id, group, _names(hold, other))
    supposed = exists().where(other.id == FlaggedOutput.hypothetical_of, _names(hold, other))
    return or_(_names(hold, FlaggedOutput), member, supposed)


def _names(hold: LegalHold, output: type[FlaggedOutput]) -> ColumnElement[bool]:
    """Whether a hold is about an output by itself."""
    if hold.outputs is not None:
        return and_(*in_class(OutputClass.model_validate(hold.outputs), output))
    named = (
        select(Audit.flagged_output_id)
        .join(LegalHoldAudit, LegalHoldAudit.audit_id == Audit.id)
        .where(LegalHoldAudit.hold_id == hold.id)
    )
    return output.id.in_(named)


def refuse_held_outputs(session: Session, output_ids: Iterable[int]) -> None:
    """Refuse to erase outputs that are held.

    Raises:
        Held: names the first audit and its hold.
    """
    for some in _chunks(output_ids):
        _refuse(session, FlaggedOutput.id.in_(some), "is of a flagged output that")


def refuse_held_examples(session: Session, example_ids: Iterable[int]) -> None:
    """Refuse to erase training examples that held outputs cite: they are evidence too.

    Raises:
        Held: names the first audit and its hold.
    """
    for some in _chunks(example_ids):
        cites = exists().where(Citation.audit_id == Audit.id, Citation.training_example_id.in_(some))
        _refuse(session, cites, "cites a training example, and")


def _chunks(ids: Iterable[int]) -> Iterator[Sequence[int]]:
    ordered = sorted(set(ids))
    return (ordered[start : start + CHUNK] for start in range(0, len(ordered), CHUNK))


def _refuse(session: Session, condition: ColumnElement[bool], what: str) -> None:
    of_output = select(Audit.id).join(FlaggedOutput, FlaggedOutput.id == Audit.flagged_output_id)
    for hold in _open(session):
        held = of_output.where(condition, _by_hold(hold)).order_by(Audit.id).limit(1)
        found = session.scalar(held)
        if found is not None:
            raise Held(
                f"audit {found} {what} is under legal hold {hold.id} ({hold.reason}); nothing was erased. Lift the hold first"
            )


def _open(session: Session) -> Sequence[LegalHold]:
    return session.scalars(select(LegalHold).where(LegalHold.lifted_at.is_(None))).all()


def _check_audits(session: Session, ids: Sequence[int]) -> None:
    known: set[int] = set()
    for some in _chunks(ids):
        known |= set(session.scalars(select(Audit.id).where(Audit.id.in_(some))))
    missing = [one for one in ids if one not in known]
    if missing:
        raise NotFound(f"audit {missing[0]} does not exist")
