"""What is done to every audit that a filter finds, not to a page of them: sent back to the queue, judged as a whole, judged no longer, or asked again under another bundle.

Each press takes at most `MOST` audits, in transactions of a bounded size; the answer says how many are left. Putting audits into a review queue is
the business of `db.reviewing.review_queues`.
"""

from typing import Any

from sqlalchemy import ColumnElement, exists, func, literal, select
from sqlalchemy.orm import Session, aliased

from db.bundles import routing
from db.clock import db_now
from db.models import Audit, FlaggedOutput, FlaggedText, Review
from db.queues import waiting
from db.reading.listings import Conditions, look_up
from db.reading.reader import select_audits
from db.reading.selection import ANSWERED
from db.reading.standing import standing
from db.reviewing.reviews import Reviewer, judge, undo
from db.session import Database
from db.statements import AnySelect, unindexed
from wherefrom.records import AuditFilter, AuditState, BulkPreview, BulkResult, ReviewDraft, Verdict

#: Audits that one press changes.
MOST = 5_000
#: Audits of one press that are judged: each is an entry of its history.
MOST_JUDGED = 500
#: Up to here a preview counts.
PREVIEWED = 10_000


def preview(
    db: Database, filters: AuditFilter, *, person_id: int | None = None, under: int | None = None
) -> BulkPreview:
    """How many audits of a filter each bulk action would change, counted up to `PREVIEWED`.

    Args:
        db: The database.
        filters: The filter.
        person_id: Who would judge; what they judged already is left alone.
        under: Bundle that the outputs would be audited under too; None where that is not asked for.
    """
    wanted = look_up(db, filters)
    with db.reading() as session:
        answered, unjudged = _count_answered(session, wanted, person_id)
        requeued = _count(session, [*wanted, *_REQUEUABLE])
        judged = 0 if person_id is None else _count(session, [*wanted, _judged_by(person_id)])
        again = None
        if under is not None:
            outputs = _unasked(wanted, under, most=PREVIEWED + 1).subquery()
            again = session.scalar(select(func.count()).select_from(outputs))
        now = session.scalar(select(db_now()))
    return BulkPreview(
        answered=answered,
        requeuable=requeued,
        unjudged=unjudged,
        judged=judged,
        reauditable=again,
        most=PREVIEWED,
        as_of=now,
    )


def requeue(db: Database, filters: AuditFilter) -> BulkResult:
    """Send every abstained, rejected or dead audit of a filter back to the queue; those that wait for a bundle or whose text was erased stay."""
    ids = _ids(db, filters, _REQUEUABLE, most=MOST)
    changed = waiting.requeue(db, audit_ids=ids) if ids else 0
    return BulkResult(changed=changed, left=_left(db, filters, _REQUEUABLE, changed, most=MOST))


def judge_all(
    db: Database, filters: AuditFilter, verdict: Verdict, comment: str, *, by: Reviewer
) -> BulkResult:
    """Give one verdict on every answered audit of a filter that this person has not judged as a whole."""
    open_ones = _unjudged(by.person.person_id)
    ids = _ids(db, filters, open_ones, most=MOST_JUDGED)
    for audit_id in ids:
        judge(db, audit_id, ReviewDraft(verdict=verdict, comment=comment), by=by)
    return BulkResult(changed=len(ids), left=_left(db, filters, open_ones, len(ids), most=MOST_JUDGED))


def take_back_all(db: Database, filters: AuditFilter, *, by: Reviewer) -> BulkResult:
    """Take back what this person has found about each audit of a filter as a whole, earlier verdicts too; verdicts on citations stay."""
    me = by.person.person_id
    ids = _ids(db, filters, (_judged_by(me),), most=MOST_JUDGED)
    for review_id in _verdicts(db, ids, me):
        undo(db, review_id, by=by)
    left = _left(db, filters, (_judged_by(me),), len(ids), most=MOST_JUDGED)
    return BulkResult(changed=len(ids), left=left)


def _verdicts(db: Database, audit_ids: list[int], person_id: int) -> list[int]:
    """A person's verdicts on audits as a whole that were not taken back, newest first."""
    taken_back = aliased(Review)
    query = select(Review.id).where(
        Review.audit_id.in_(audit_ids),
        *_on_the_whole(person_id),
        Review.verdict.is_not(None),
        ~exists().where(taken_back.undoes_id == Review.id),
    )
    with db.reading() as session:
        return list(session.scalars(query.order_by(Review.id.desc())))


def reaudit(db: Database, filters: AuditFilter, bundle_id: int) -> BulkResult:
    """Audit every output of a filter under another bundle too, of the same model or of another; the answers that are there stay.

    Outputs that have an audit under it, wait for a bundle of their model, or whose text was erased are left alone.

    Raises:
        UnknownBundle: this bundle does not exist.
    """
    wanted = look_up(db, filters)

    def outputs(most: int) -> list[tuple[int, int]]:
        with db.reading() as session:
            return [(one.id, one.priority) for one in session.execute(_unasked(wanted, bundle_id, most=most))]

    made = routing.ask_outputs(db, bundle_id, outputs(MOST))
    return BulkResult(changed=made, left=len(outputs(PREVIEWED)) if made >= MOST else 0)


def _unasked(wanted: Conditions, bundle_id: int, *, most: int) -> AnySelect:
    """Outputs (id, priority) of a filter that can be audited under a bundle and are not yet, each once."""
    there = aliased(Audit)
    return (
        select_audits(FlaggedOutput.id.label("id"), func.min(Audit.priority).label("priority"))
        .where(
            *wanted,
            Audit.bundle_id.is_not(None),
            FlaggedText.flagged_output_id.is_not(None),
            ~exists().where(there.flagged_output_id == FlaggedOutput.id, there.bundle_id == bundle_id),
        )
        .group_by(FlaggedOutput.id)
        .order_by(FlaggedOutput.id)
        .limit(most)
    )


#: `waiting.requeue` sends it back.
_REQUEUABLE = (
    Audit.state.in_([state for state in AuditState if state.is_requeuable]),
    Audit.bundle_id.is_not(None),
    FlaggedText.flagged_output_id.is_not(None),
)
_ANSWERED = (Audit.state.in_(ANSWERED),)


def _on_the_whole(person_id: int | None) -> tuple[Any, ...]:
    return (Review.person_id == person_id, Review.rank.is_(None), Review.training_example_id.is_(None))


def _unjudged(person_id: int | None) -> tuple[Any, ...]:
    return (*_ANSWERED, ~_judged(person_id))


def _judged(person_id: int | None) -> ColumnElement[bool]:
    return exists().where(Review.audit_id == Audit.id, *_on_the_whole(person_id), *standing())


def _judged_by(person_id: int) -> ColumnElement[bool]:
    """From the verdicts to their audits: a person has judged few of a million."""
    return Audit.id.in_(select(Review.audit_id).where(*_on_the_whole(person_id), *standing()))


def _count_answered(session: Session, wanted: Conditions, person_id: int | None) -> tuple[int, int]:
    """How many are answered, and how many of these this person has not judged; both in one look, but where so many are answered that some were not looked at."""
    rows = select_audits(_judged(person_id).label("judged")).where(*wanted, *_ANSWERED)
    looked_at = rows.limit(PREVIEWED + 1).subquery()
    answered, judged = session.execute(
        select(func.count(), func.count().filter(looked_at.c.judged)).select_from(looked_at)
    ).one()
    if answered > PREVIEWED and judged:
        return answered, _count(session, [*wanted, *_unjudged(person_id)])
    return answered, answered - judged


def _count(session: Session, wanted: Conditions) -> int:
    rows = select_audits(literal(1).label("one")).where(*wanted).limit(PREVIEWED + 1)
    return session.scalar(select(func.count()).select_from(rows.subquery())) or 0


def _ids(db: Database, filters: AuditFilter, further: tuple[Any, ...], *, most: int) -> list[int]:
    wanted = look_up(db, filters)
    with db.reading() as session:
        query = select_audits(Audit.id).where(*wanted, *further).order_by(unindexed(Audit.id)).limit(most)
        return list(session.scalars(query))


def _left(db: Database, filters: AuditFilter, further: tuple[Any, ...], changed: int, *, most: int) -> int:
    """What another press would find; 0 without a look where this one found less than it may change."""
    return len(_ids(db, filters, further, most=PREVIEWED)) if changed >= most else 0
