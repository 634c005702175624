"""What people found: given, taken back, read. Rows are only ever added; what stands now follows from them.

The verdict of a person on a target (an audit, or one training example beside it) is their newest one that was not taken back.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import exists, func, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from db.audit_trail.trail import Event, TrailKind, record_events
from db.models import (
    Audit,
    Citation,
    FlaggedOutput,
    FlaggedText,
    Review,
    ReviewAssignment,
    ReviewItem,
    ReviewQueue,
    ReviewRow,
    TrainingExample,
)
from db.reading.standing import standing
from db.reviewing.review_work import mark_finished
from db.session import Database
from db.statements import AnySelect
from wherefrom.errors import Forbidden, InvalidRequest, NotFound
from wherefrom.records import PersonRef, ReviewDraft, ReviewRecord, TextRange, Verdict, Via


@dataclass(frozen=True)
class Reviewer:
    """Who judges, and how it is known who they are."""

    person: PersonRef
    via: Via


def judge(
    db: Database, audit_id: int, draft: ReviewDraft, *, by: Reviewer, item_id: int | None = None
) -> ReviewRecord:
    """Store a verdict or a comment with the scores in view; a verdict on the whole audit finishes the person's work on it in queues.

    Raises:
        NotFound: there is no such audit or citation.
        InvalidRequest: the quoted words do not stand in the text, the audit has not ended, or a verdict on a hypothetical audit.
    """
    with db.writing() as session:
        audit = session.get(Audit, audit_id)
        if audit is None:
            raise NotFound(f"audit {audit_id} does not exist")
        if audit.state.is_open:
            raise InvalidRequest(f"audit {audit_id} has not ended; there is nothing to judge yet")
        if draft.verdict is not None and _is_supposed(session, audit):
            raise InvalidRequest(
                f"audit {audit_id} is of an answer that was never given, so a verdict on it counts for nothing; comment on it instead"
            )
        example_id = None if draft.rank is None else _cited(session, audit_id, draft.rank)
        row = {
            "audit_id": audit_id,
            "rank": draft.rank,
            "training_example_id": example_id,
            "verdict": draft.verdict,
            "comment": draft.comment.strip(),
            "item_id": item_id,
            "blind": False,
            **_range(session, audit, example_id, draft),
        }
        review_id = _insert(session, row, by)
        if draft.rank is None and draft.verdict is not None:
            _finish_audit(session, audit_id, by.person.person_id, item_id=item_id, finished=True)
        return _history(session, Review.audit_id == audit_id)[review_id]


def _is_supposed(session: Session, audit: Audit) -> bool:
    """Whether somebody only supposed the output (`hypotheticals`)."""
    found = select(FlaggedOutput.hypothetical_of).where(FlaggedOutput.id == audit.flagged_output_id)
    return session.scalar(found) is not None


def judge_blind(
    db: Database, item_id: int, training_example_id: int, verdict: Verdict, *, by: Reviewer
) -> ReviewRecord:
    """Store a verdict that was given with scores, ranks and confidences hidden.

    Raises:
        NotFound: the item does not show this training example.
        InvalidRequest: the person judged this audit with its scores in view before, so they are not blind.
    """
    with db.writing() as session:
        found = session.execute(
            select(ReviewRow.rank, ReviewItem.audit_id)
            .join(ReviewItem, ReviewItem.id == ReviewRow.item_id)
            .join(ReviewQueue, ReviewQueue.id == ReviewItem.queue_id)
            .where(ReviewRow.item_id == item_id, ReviewRow.training_example_id == training_example_id)
        ).one_or_none()
        if found is None:
            raise NotFound(f"review item {item_id} does not show training example {training_example_id}")
        if _has_seen(session, found.audit_id, by.person.person_id):
            raise InvalidRequest(
                f"you judged audit {found.audit_id} with its scores in view, so a verdict of yours is not blind"
            )
        row = {
            "audit_id": found.audit_id,
            "rank": found.rank,
            "training_example_id": training_example_id,
            "verdict": verdict,
            "comment": "",
            "item_id": item_id,
            "blind": True,
        }
        review_id = _insert(session, row, by)
        _finish_blind(session, item_id, by.person.person_id)
        return _history(session, Review.audit_id == found.audit_id)[review_id]


def undo(db: Database, review_id: int, *, by: Reviewer) -> ReviewRecord:
    """Take back an entry of one's own; the one before it stands again.

    Raises:
        NotFound: there is no such entry.
        Forbidden: it is somebody else's.
        InvalidRequest: it was taken back before, or takes something back itself.
    """
    with db.writing() as session:
        review = session.get(Review, review_id)
        if review is None:
            raise NotFound(f"review {review_id} does not exist")
        if review.person_id != by.person.person_id:
            raise Forbidden("only whoever gave a verdict can take it back")
        if review.undoes_id is not None:
            raise InvalidRequest("this entry takes another one back; give a new verdict instead")
        row = {
            "audit_id": review.audit_id,
            "rank": review.rank,
            "training_example_id": review.training_example_id,
            "comment": "",
            "item_id": review.item_id,
            "blind": review.blind,
            "undoes_id": review_id,
        }
        try:
            with session.begin_nested():
                _insert(session, row, by, kind=TrailKind.REVIEW_UNDONE)
        except IntegrityError as error:
            raise InvalidRequest("this entry was taken back before") from error
        _undone(session, review, by.person.person_id)
        return _history(session, Review.audit_id == review.audit_id)[review_id]


def reviews_of(db: Database, audit_id: int) -> tuple[ReviewRecord, ...]:
    """The whole history of an audit's reviews, oldest first; one statement."""
    with db.reading() as session:
        return tuple(_history(session, Review.audit_id == audit_id).values())


def reviews_of_each(db: Database, audit_ids: Collection[int]) -> dict[int, list[ReviewRecord]]:
    """The same of several audits; one statement."""
    given: dict[int, list[ReviewRecord]] = {one: [] for one in audit_ids}
    with db.reading() as session:
        for record in _history(session, Review.audit_id.in_(audit_ids)).values():
            given[record.audit_id].append(record)
    return given


def reviews_of_item(db: Database, item_id: int, person_id: int) -> tuple[ReviewRecord, ...]:
    """What one person found about an item; a blind reviewer must not see what others found."""
    with db.reading() as session:
        found = _history(session, Review.item_id == item_id)
    return tuple(one for one in found.values() if one.reviewer_id == person_id)


def _insert(
    session: Session, row: dict[str, Any], by: Reviewer, *, kind: TrailKind = TrailKind.REVIEW_GIVEN
) -> int:
    values = row | {"reviewer": by.person.name, "person_id": by.person.person_id, "via": by.via}
    review_id: int | None = session.scalar(insert(Review).values(**values).returning(Review.id))
    if review_id is None:
        raise RuntimeError("the database returned no id for the new review")
    payload = {"review": review_id, "person": by.person.person_id, "via": by.via.value, "rank": row["rank"]}
    record_events(session, [Event(kind, f"audit:{row['audit_id']}", payload)])
    return review_id


def _cited(session: Session, audit_id: int, rank: int) -> int:
    found = session.scalar(
        select(Citation.training_example_id).where(Citation.audit_id == audit_id, Citation.rank == rank)
    )
    if found is None:
        raise NotFound(f"audit {audit_id} has no citation with rank {rank}")
    return found


def _range(session: Session, audit: Audit, example_id: int | None, draft: ReviewDraft) -> dict[str, Any]:
    """Where the quoted words first stand, in characters; the words themselves are not stored."""
    quote = (draft.quote or "").strip()
    if not quote:
        return {}
    if draft.part == "example":
        text = session.scalar(select(TrainingExample.completion).where(TrainingExample.id == example_id))
    else:
        text = session.scalar(
            select(FlaggedText.completion).where(FlaggedText.flagged_output_id == audit.flagged_output_id)
        )
    start = (text or "").find(quote)
    if start < 0:
        raise InvalidRequest("the quoted words do not stand in the text; copy them from it exactly")
    return {"range_part": draft.part, "range_start": start, "range_end": start + len(quote)}


def _has_seen(session: Session, audit_id: int, person_id: int) -> bool:
    seen = select(Review.id).where(
        Review.audit_id == audit_id, Review.person_id == person_id, Review.blind.is_(False)
    )
    return session.scalar(seen.limit(1)) is not None


def _finish_audit(
    session: Session, audit_id: int, person_id: int, *, item_id: int | None, finished: bool
) -> None:
    """Finish, or open again, the person's work on an audit in every queue that is not blind."""
    theirs = exists().where(
        ReviewAssignment.item_id == ReviewItem.id, ReviewAssignment.person_id == person_id
    )
    wanted = (
        select(ReviewItem.id)
        .join(ReviewQueue, ReviewQueue.id == ReviewItem.queue_id)
        .where(
            ReviewItem.audit_id == audit_id,
            ReviewQueue.blind.is_(False),
            theirs if item_id is None else (theirs | (ReviewItem.id == item_id)),
        )
    )
    for one in session.scalars(wanted).all():
        mark_finished(session, one, person_id, finished=finished)


def _finish_blind(session: Session, item_id: int, person_id: int) -> None:
    shown = session.scalar(select(func.count()).select_from(ReviewRow).where(ReviewRow.item_id == item_id))
    judged = select(func.count(Review.training_example_id.distinct())).where(
        Review.item_id == item_id, Review.person_id == person_id, Review.blind.is_(True), *standing()
    )
    mark_finished(session, item_id, person_id, finished=session.scalar(judged) == shown)


def _undone(session: Session, review: Review, person_id: int) -> None:
    """Work that an entry had finished is open again where nothing else finishes it."""
    if review.blind and review.item_id is not None:
        _finish_blind(session, review.item_id, person_id)
    elif review.rank is None and review.verdict is not None:
        others = select(Review.id).where(
            Review.audit_id == review.audit_id,
            Review.rank.is_(None),
            Review.training_example_id.is_(None),
            Review.person_id == person_id,
            Review.blind.is_(False),
            *standing(),
        )
        if session.scalar(others.limit(1)) is None:
            _finish_audit(session, review.audit_id, person_id, item_id=None, finished=False)


def _history(session: Session, *wanted: Any) -> dict[int, ReviewRecord]:
    query: AnySelect = select(Review).where(*wanted).order_by(Review.id)
    rows: Sequence[Review] = session.scalars(query).all()
    undone = {row.undoes_id for row in rows if row.undoes_id is not None}
    stands = _newest(rows, undone)
    return {row.id: _record(row, undone=row.id in undone, stands=row.id in stands) for row in rows}


def _newest(rows: Sequence[Review], undone: Collection[int]) -> set[int]:
    """The verdicts that stand: the newest of each person on each target that was not taken back."""
    newest: dict[tuple[Any, ...], int] = {}
    for row in rows:
        if row.verdict is not None and row.id not in undone:
            newest[row.audit_id, row.person_id, row.blind, row.training_example_id] = row.id
    return set(newest.values())


def _record(row: Review, *, undone: bool, stands: bool) -> ReviewRecord:
    text_range = None
    if row.range_part is not None:
        text_range = TextRange.model_validate(
            {"part": row.range_part, "start": row.range_start, "end": row.range_end}
        )
    return ReviewRecord(
        review_id=row.id,
        audit_id=row.audit_id,
        rank=row.rank,
        training_example_id=row.training_example_id,
        verdict=row.verdict,
        comment=row.comment,
        range=text_range,
        reviewer=row.reviewer,
        reviewer_id=row.person_id,
        proven=row.via is not None and row.via is not Via.LOCAL,
        blind=row.blind,
        created_at=row.created_at,
        undoes_id=row.undoes_id,
        undone=undone,
        stands=stands,
    )
