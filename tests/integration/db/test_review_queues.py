"""Review queues: what enters, in which order, what stays out; and the work of people in them."""

from functools import partial

import pytest

from db.access import people
from db.queues.audit_queue import AuditQueue, Finished
from db.reviewing import review_queues, review_work
from db.session import Database
from tests.integration.db.builders import (
    accept,
    answered,
    at_once,
    claim_one,
    five_citations,
    record,
    recorded_statements,
)
from wherefrom.errors import InvalidRequest, NotFound
from wherefrom.records import AuditFilter, ItemState, QueueDraft, QueueOrder, Severity

ALL = AuditFilter()


def make(db: Database, **fields) -> int:
    """The number of a new queue; its rule takes everything unless told otherwise."""
    return review_queues.create_queue(
        db, QueueDraft.model_validate({"name": "all", "rule": ALL} | fields), created_by=None
    )


def person(db: Database, name: str = "ann") -> int:
    """The number of a person."""
    return people.choose_local(db, name).person_id


def audits_of(db: Database, queue_id: int, state: ItemState = ItemState.OPEN) -> list[int]:
    """The audits of a queue in its order."""
    return [one.audit.audit_id for one in review_work.list_items(db, queue_id, state=state)]


def test_a_rule_takes_what_has_ended_and_matches(db: Database, bundle_id: int) -> None:
    """Pending audits come in once they have ended; each comes in once; others never."""
    first = answered(db, bundle_id, record(1, severity="high"), record(2, severity="low"))
    queue_id = make(db, rule=AuditFilter(severity=Severity.HIGH))
    [waiting] = accept(db, record(3, severity="high"))
    assert [review_queues.fill(db, queue_id) for _ in range(2)] == [1, 0]
    assert audits_of(db, queue_id) == first[:1]
    AuditQueue(db).finish([Finished(claim_one(db, bundle_id), five_citations(), 0.5)])
    assert review_queues.fill_all(db) == 1
    assert audits_of(db, queue_id) == [first[0], waiting.audit_id]


def test_what_was_taken_out_stays_out(db: Database, bundle_id: int) -> None:
    """By the rule and by hand; only whoever puts it back puts it back."""
    [audit_id] = answered(db, bundle_id, record(1))
    queue_id = make(db)
    review_queues.fill(db, queue_id)
    [item] = review_work.list_items(db, queue_id)
    review_work.remove(db, item.item_id, by=None)
    assert review_queues.fill(db, queue_id) == 0
    assert review_queues.put_in(db, queue_id, ALL, by=None).added == 0
    assert (audits_of(db, queue_id), audits_of(db, queue_id, ItemState.REMOVED)) == ([], [audit_id])
    with db.writing() as session:
        review_work.mark_finished(session, item.item_id, person(db), finished=True)
    assert audits_of(db, queue_id, ItemState.REMOVED) == [audit_id]
    review_work.restore(db, item.item_id, by=None)
    assert audits_of(db, queue_id, ItemState.DONE) == [audit_id]


@pytest.mark.parametrize("dedupe", [True, False])
def test_equal_outputs_enter_once(db: Database, bundle_id: int, *, dedupe: bool) -> None:
    """The same text under another key, also when it comes later; another prompt is another case."""
    same = {"prompt": "May I?", "completion": "Yes."}
    first = answered(
        db, bundle_id, record(1, **same), record(2, **same), record(3, **same | {"prompt": "Who?"})
    )
    queue_id = make(db, dedupe=dedupe)
    review_queues.fill(db, queue_id)
    later = answered(db, bundle_id, record(4, **same))
    review_queues.fill(db, queue_id)
    assert audits_of(db, queue_id) == ([first[0], first[2]] if dedupe else [*first, *later])


@pytest.mark.parametrize(
    ("order", "expected"),
    [(QueueOrder.OLDEST, [0, 1, 2]), (QueueOrder.NEWEST, [2, 1, 0]), (QueueOrder.SEVERITY, [1, 0, 2])],
)
def test_the_order_is_the_stated_one(
    db: Database, bundle_id: int, order: QueueOrder, expected: list[int]
) -> None:
    """In lists, by next and previous, and over pages."""
    audits = answered(db, bundle_id, record(1), record(2, severity="critical"), record(3))
    queue_id = make(db, order=order)
    review_queues.fill(db, queue_id)
    items = review_work.list_items(db, queue_id)
    assert [audits.index(one.audit.audit_id) for one in items] == expected
    assert review_work.neighbours(db, items[1].item_id) == (items[0].item_id, items[2].item_id)
    assert review_work.neighbours(db, items[0].item_id) == (None, items[1].item_id)
    place = review_work.position(db, items[0].item_id)
    assert review_work.list_items(db, queue_id, after=place) == items[1:]


def test_people_who_ask_at_once_get_different_audits(db: Database, bundle_id: int) -> None:
    """One person per audit; whoever asks again goes on with theirs."""
    answered(db, bundle_id, *(record(number) for number in range(4)))
    queue_id = make(db)
    review_queues.fill(db, queue_id)
    names = [person(db, name) for name in ("ann", "ben", "cyd", "dan")]
    taken = at_once([partial(review_work.take_next, db, queue_id, one) for one in names])
    assert len(set(taken)) == 4
    assert [review_work.take_next(db, queue_id, one) for one in names] == taken
    assert review_work.take_next(db, queue_id, person(db, "eve")) is None


def test_a_second_reviewer_sees_what_the_first_has_judged(db: Database, bundle_id: int) -> None:
    """An audit is done when as many people as the queue wants have judged it."""
    answered(db, bundle_id, record(1))
    queue_id = make(db, reviewers=2)
    review_queues.fill(db, queue_id)
    ann, ben, cyd = (person(db, name) for name in ("ann", "ben", "cyd"))
    item = review_work.take_next(db, queue_id, ann)
    assert item is not None
    for one in (ann, ben):
        assert review_work.take_next(db, queue_id, one) == item
        with db.writing() as session:
            review_work.mark_finished(session, item, one, finished=True)
        assert review_work.take_next(db, queue_id, one) is None
    assert review_work.take_next(db, queue_id, cyd) is None
    summary = review_queues.get_queue(db, queue_id)
    assert (summary.open, summary.done) == (0, 1)
    with db.writing() as session:
        review_work.mark_finished(session, item, ben, finished=False)
    assert review_queues.get_queue(db, queue_id, person_id=ben).mine == 1


def test_bulk_assignment_goes_over_the_whole_filter(db: Database, bundle_id: int, monkeypatch) -> None:
    """More than enters at once; told before how many there are; what is there already is not assigned again."""
    monkeypatch.setattr(review_queues, "CHUNK", 2)
    answered(db, bundle_id, *(record(number) for number in range(5)))
    accept(db, record(9))
    queue_id, ann = make(db, rule=None), person(db)
    assert review_queues.preview(db, ALL, most=100) == 5
    added = review_queues.put_in(db, queue_id, ALL, by=ann, assign_to=ann)
    assert (added.matched, added.added, added.assigned) == (5, 5, 5)
    assert review_queues.put_in(db, queue_id, ALL, by=ann, assign_to=ann).assigned == 0
    assert review_queues.get_queue(db, queue_id, person_id=ann).mine == 5
    [row] = review_work.progress(db, queue_id)
    assert (row.person.name, row.member, row.assigned, row.finished) == ("ann", False, 5, 0)


def test_assigning_one_by_one_and_taking_it_back(db: Database, bundle_id: int) -> None:
    """What somebody has judged stays theirs."""
    answered(db, bundle_id, record(1), record(2))
    queue_id, ann, ben = make(db), person(db), person(db, "ben")
    review_queues.fill(db, queue_id)
    first, second = (one.item_id for one in review_work.list_items(db, queue_id))
    assert review_work.assign(db, [first], ann, by=ben) == 1
    assert review_work.assign_open(db, queue_id, ben, most=10, by=None) == 1
    assert [[one.name for one in item.assigned] for item in review_work.list_items(db, queue_id)] == [
        ["ann"],
        ["ben"],
    ]
    review_work.unassign(db, first, ann, by=ben)
    assert review_work.take_next(db, queue_id, ben) == first
    with db.writing() as session:
        review_work.mark_finished(session, second, ben, finished=True)
    review_work.unassign(db, second, ben, by=ann)
    assert [one.finished for one in review_work.list_items(db, queue_id, state=ItemState.DONE)] == [1]


def test_who_does_not_see_everything_sees_their_queues_and_assignments(db: Database, bundle_id: int) -> None:
    """A member sees a queue; an assignment opens its audit and nothing else."""
    [mine, other] = answered(db, bundle_id, record(1), record(2))
    queue_id, ann, ben = make(db), person(db), person(db, "ben")
    hidden = make(db, name="hidden")
    review_queues.fill(db, queue_id)
    assert review_queues.list_queues(db, person_id=ann, sees_all=False) == []
    with pytest.raises(NotFound):
        review_queues.get_queue(db, hidden, person_id=ann, sees_all=False)
    [first, second] = (one.item_id for one in review_work.list_items(db, queue_id))
    review_work.assign(db, [first], ann, by=None)
    assert [one.queue_id for one in review_queues.list_queues(db, person_id=ann, sees_all=False)] == [
        queue_id
    ]
    assert [review_work.may_see(db, one, ann) for one in (first, second)] == [True, False]
    assert [review_work.sees_audit(db, one, ann) for one in (mine, other)] == [True, False]
    review_queues.add_member(db, queue_id, ben, by=None)
    assert [review_work.sees_audit(db, one, ben) for one in (mine, other)] == [True, True]


def test_a_closed_queue_takes_nothing_more(db: Database, bundle_id: int) -> None:
    """Names are unique, and what is in it stays."""
    answered(db, bundle_id, record(1))
    queue_id = make(db)
    review_queues.fill(db, queue_id)
    review_queues.close_queue(db, queue_id, by=None)
    answered(db, bundle_id, record(2))
    assert (review_queues.fill_all(db), review_queues.fill(db, queue_id)) == (0, 0)
    with pytest.raises(InvalidRequest, match="closed"):
        review_queues.put_in(db, queue_id, ALL, by=None)
    with pytest.raises(InvalidRequest, match="exists"):
        make(db)
    with pytest.raises(NotFound):
        review_queues.queue_named(db, "other")
    assert review_queues.queue_named(db, "all") == queue_id


def test_lists_cost_the_same_however_much_they_hold(db: Database, bundle_id: int) -> None:
    """One statement for queues, two for items, one for progress, two steps for next and previous."""
    answered(db, bundle_id, *(record(number) for number in range(6)))
    queue_id = make(db)
    review_queues.fill(db, queue_id)
    item = review_work.take_next(db, queue_id, person(db))
    counted = []
    for call in (
        lambda: review_queues.list_queues(db, person_id=1),
        lambda: review_work.list_items(db, queue_id),
        lambda: review_work.progress(db, queue_id),
        lambda: review_work.neighbours(db, item or 0),
    ):
        with recorded_statements() as statements:
            call()
        counted.append(len(statements))
    assert counted == [1, 2, 1, 3]
