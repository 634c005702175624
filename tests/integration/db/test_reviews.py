"""Verdicts: append-only, newest stands, taken back by whoever gave them; work in queues follows."""

import pytest
from sqlalchemy import text

from db.access import people
from db.reviewing import agreement, review_queues, review_work, reviews
from db.reviewing.reviews import Reviewer
from db.session import Database
from tests.integration.db.builders import accept, answered, plan_of, record, recorded_statements
from wherefrom.errors import Forbidden, InvalidRequest, NotFound
from wherefrom.records import AuditFilter, QueueDraft, ReviewDraft, Verdict, Via


def reviewer(db: Database, name: str = "ann") -> Reviewer:
    """Somebody who judges."""
    return Reviewer(people.choose_local(db, name).ref, Via.LOCAL)


def judged(db: Database, audit_id: int, by: Reviewer, verdict: str, **fields):
    """A verdict that was given."""
    return reviews.judge(db, audit_id, ReviewDraft.model_validate({"verdict": verdict} | fields), by=by)


def standing(db: Database, audit_id: int) -> list[tuple[str, int | None, str]]:
    """Who finds what now, by the records and by the view alike."""
    found = [
        (one.reviewer, one.rank, one.verdict.value)
        for one in reviews.reviews_of(db, audit_id)
        if one.stands and one.verdict
    ]
    query = text(
        "SELECT reviewer, rank, verdict FROM v_reviews WHERE stands = 1 AND audit_id = :audit ORDER BY review_id"
    )
    with db.reading() as session:
        assert [tuple(row) for row in session.execute(query, {"audit": audit_id})] == found
        assert len(session.scalars(_standing_ids(audit_id)).all()) == len(found)
    return found


def _standing_ids(audit_id: int):
    from sqlalchemy import select

    from db.models import Review
    from db.reading.standing import standing as standing_rule

    return select(Review.id).where(Review.audit_id == audit_id, *standing_rule())


def test_the_newest_verdict_of_each_person_stands(db: Database, bundle_id: int) -> None:
    """Per target; comments change nothing, and the history keeps everything."""
    [audit_id] = answered(db, bundle_id, record(1))
    ann, ben = reviewer(db), reviewer(db, "ben")
    judged(db, audit_id, ann, "plausible")
    judged(db, audit_id, ann, "confirmed", rank=1)
    judged(db, audit_id, ben, "unrelated", rank=1)
    judged(db, audit_id, ann, "second_look", rank=1, comment="look again")
    reviews.judge(db, audit_id, ReviewDraft(comment="why?", rank=1), by=ann)
    assert standing(db, audit_id) == [
        ("ann", None, "plausible"),
        ("ben", 1, "unrelated"),
        ("ann", 1, "second_look"),
    ]
    assert len(reviews.reviews_of(db, audit_id)) == 5


def test_taking_back_lets_the_one_before_stand_again(db: Database, bundle_id: int) -> None:
    """Once each, and only by whoever gave it."""
    [audit_id] = answered(db, bundle_id, record(1))
    ann, ben = reviewer(db), reviewer(db, "ben")
    judged(db, audit_id, ann, "plausible")
    last = judged(db, audit_id, ann, "unrelated")
    with pytest.raises(Forbidden):
        reviews.undo(db, last.review_id, by=ben)
    assert reviews.undo(db, last.review_id, by=ann).undone
    assert standing(db, audit_id) == [("ann", None, "plausible")]
    with pytest.raises(InvalidRequest, match="before"):
        reviews.undo(db, last.review_id, by=ann)
    newest = reviews.reviews_of(db, audit_id)[-1]
    with pytest.raises(InvalidRequest, match="takes another one back"):
        reviews.undo(db, newest.review_id, by=ann)
    with pytest.raises(NotFound):
        reviews.undo(db, 999, by=ann)


def test_nothing_that_was_written_changes(db: Database, bundle_id: int) -> None:
    """Giving, replacing and taking back only insert into `review`."""
    [audit_id] = answered(db, bundle_id, record(1))
    ann = reviewer(db)
    with recorded_statements() as statements:
        judged(db, audit_id, ann, "plausible")
        reviews.undo(db, judged(db, audit_id, ann, "unrelated", comment="x").review_id, by=ann)
    assert not [one for one in statements if one.startswith(("UPDATE review ", "DELETE"))]


@pytest.mark.parametrize(
    ("fields", "part", "found"),
    [
        ({"quote": "1."}, "output", "1."),
        ({"quote": "is 0", "part": "example", "rank": 1}, "example", "is 0"),
    ],
)
def test_a_comment_on_some_words(db: Database, bundle_id: int, *, fields, part, found) -> None:
    """Their place is stored and not the words; words that do not stand there are refused."""
    [audit_id] = answered(db, bundle_id, record(1))
    made = reviews.judge(
        db, audit_id, ReviewDraft.model_validate({"comment": "here"} | fields), by=reviewer(db)
    )
    assert made.range is not None
    whole = {"output": "Answer 1.", "example": "It is 0."}[part]
    assert (made.range.part, whole[made.range.start : made.range.end]) == (part, found)
    with pytest.raises(InvalidRequest, match="copy them"):
        reviews.judge(db, audit_id, ReviewDraft(comment="x", quote="nowhere"), by=reviewer(db))


def test_what_cannot_be_judged(db: Database, bundle_id: int) -> None:
    """No such audit, no such citation, not ended."""
    [audit_id] = answered(db, bundle_id, record(1))
    [waiting] = accept(db, record(2))
    assert waiting.audit_id is not None
    ann = reviewer(db)
    for number, rank, kind in (
        (999, None, NotFound),
        (audit_id, 99, NotFound),
        (waiting.audit_id, None, InvalidRequest),
    ):
        with pytest.raises(kind):
            judged(db, number, ann, "plausible", rank=rank)


def test_a_verdict_on_the_audit_finishes_the_work(db: Database, bundle_id: int) -> None:
    """Wherever it was given; taking it back opens the work again; a citation's verdict does not finish it."""
    [audit_id] = answered(db, bundle_id, record(1))
    queue_id = review_queues.create_queue(db, QueueDraft(name="all", rule=AuditFilter()), created_by=None)
    review_queues.fill(db, queue_id)
    ann = reviewer(db)
    review_work.take_next(db, queue_id, ann.person.person_id)
    judged(db, audit_id, ann, "plausible", rank=1)
    assert review_queues.get_queue(db, queue_id).open == 1
    given = judged(db, audit_id, ann, "confirmed")
    assert review_queues.get_queue(db, queue_id).done == 1
    reviews.undo(db, given.review_id, by=ann)
    assert review_queues.get_queue(db, queue_id, person_id=ann.person.person_id).mine == 1


def test_the_history_costs_one_statement(db: Database, bundle_id: int) -> None:
    """However long it is."""
    [audit_id] = answered(db, bundle_id, record(1))
    for verdict in Verdict:
        judged(db, audit_id, reviewer(db), verdict.value)
    with recorded_statements() as statements:
        reviews.reviews_of(db, audit_id)
    assert len(statements) == 1


def test_measured_effects_are_found_by_their_own_index(sqlite_copy: str) -> None:
    """Many citations state a confidence and few were measured: the page of agreement reads those few."""
    with Database(sqlite_copy) as database:
        with recorded_statements() as statements:
            agreement.compare(database)
        asked = next(one for one in statements if "measured_effect_nats" in one)
        plan = plan_of(database, asked)
    assert "ix_citation_measured" in plan[0]
    assert "confidence IS NOT NULL" not in asked, "with statistics, SQLite takes the index of that condition"
