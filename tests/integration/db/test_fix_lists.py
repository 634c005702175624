"""Fix lists in SQL: what goes on them and in which way, their history, who may still change them, and culprits across a selection."""

from typing import Any

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.dialects import sqlite

from db.access import people
from db.counts import count_at_most
from db.models import FixListRow, FlaggedOutput, TrailEvent
from db.reading import blame, culprits, source_facts
from db.remedies import fix_lists, fix_rows
from db.reviewing import reviews
from db.reviewing.reviews import Reviewer
from db.session import Database
from tests.integration.db.builders import (
    answered,
    attribution,
    draft,
    example,
    plan_of,
    record,
    recorded_statements,
    register,
)
from wherefrom.errors import InvalidRequest, NotFound
from wherefrom.records import (
    AuditFilter,
    FixAction,
    FixChange,
    FixEvent,
    FixListDraft,
    ReviewDraft,
    Verdict,
    Via,
)


@pytest.fixture
def ann(db: Database) -> Reviewer:
    """Somebody who chose a name."""
    return Reviewer(people.choose_local(db, "ann").ref, Via.LOCAL)


@pytest.fixture
def fix_list(db: Database, bundle_id: int, ann: Reviewer) -> int:
    """An empty list over the corpus of five."""
    assert bundle_id
    return fix_lists.create_list(db, FixListDraft(name="refunds", note="before March"), by=ann)


def put(db: Database, fix_list: int, by: Reviewer, **change: Any) -> tuple[int, int]:
    """How many rows a change named, and how many changed."""
    done = fix_rows.change_rows(db, fix_list, FixChange(**change), by=by)
    return done.matched, done.changed


def actions(db: Database, fix_list: int) -> dict[str, str]:
    """What is to become of each row of a list."""
    return {one.example_id: one.action.value for one in fix_rows.all_rows(db, fix_list)}


def test_rows_get_on_a_list_once(db: Database, fix_list: int, ann: Reviewer) -> None:
    """A later decision on a ticked row takes the place of the earlier one; both stand in the history, with who and why."""
    assert put(db, fix_list, ann, training_example_ids=(1, 2), reason="no receipt") == (2, 2)
    assert put(db, fix_list, ann, training_example_ids=(2,), action=FixAction.KEEP, reason="looked") == (1, 1)
    assert actions(db, fix_list) == {"ex-00000": "remove", "ex-00001": "keep"}
    [first, second] = list(fix_rows.all_rows(db, fix_list))
    assert (first.reason, first.by, first.proven, second.reason) == ("no receipt", "ann", False, "looked")
    found = fix_lists.get_list(db, fix_list)
    assert (found.remove, found.fix, found.keep, found.owner) == (1, 0, 1, "ann")
    told = [
        (one.event, one.action, one.rows, one.training_example_ids) for one in fix_lists.history(db, fix_list)
    ]
    assert told == [
        (FixEvent.SET, FixAction.KEEP, 1, (2,)),
        (FixEvent.SET, FixAction.REMOVE, 2, (1, 2)),
        (FixEvent.CREATED, None, 0, ()),
    ]


def test_a_whole_source_keeps_what_was_decided(db: Database, fix_list: int, ann: Reviewer) -> None:
    """Rows that somebody looked at and keeps do not go with their source."""
    put(db, fix_list, ann, training_example_ids=(1,), action=FixAction.KEEP)
    assert put(db, fix_list, ann, source="source-0") == (2, 1)  # rows 0 and 3 of the corpus
    assert actions(db, fix_list) == {"ex-00000": "keep", "ex-00003": "remove"}
    assert put(db, fix_list, ann, source="source-0", action=None) == (2, 2)
    assert actions(db, fix_list) == {}


def test_rows_that_do_not_exist_change_nothing(db: Database, fix_list: int, ann: Reviewer) -> None:
    """Neither the rows beside them nor the history."""
    with pytest.raises(NotFound, match="1 of the training examples"):
        put(db, fix_list, ann, training_example_ids=(1, 999))
    with pytest.raises(NotFound):
        put(db, 77, ann, training_example_ids=(1,))
    assert actions(db, fix_list) == {}
    assert len(fix_lists.history(db, fix_list)) == 1


def test_a_closed_list_stays_as_it_is(db: Database, fix_list: int, ann: Reviewer) -> None:
    """Its rows can be read for ever, its owner and rows change no more."""
    put(db, fix_list, ann, training_example_ids=(1,))
    fix_lists.close_list(db, fix_list, by=ann)
    fix_lists.close_list(db, fix_list, by=ann)
    with pytest.raises(InvalidRequest, match="closed"):
        put(db, fix_list, ann, training_example_ids=(2,))
    with pytest.raises(InvalidRequest, match="closed"):
        fix_lists.give_list(db, fix_list, ann.person.person_id, by=ann)
    assert actions(db, fix_list) == {"ex-00000": "remove"}
    assert fix_lists.history(db, fix_list)[0].event is FixEvent.CLOSED


def test_a_list_has_an_owner_and_one_name(db: Database, fix_list: int, ann: Reviewer) -> None:
    """The name is taken for ever; the owner can be another one."""
    with pytest.raises(InvalidRequest, match="exists"):
        fix_lists.create_list(db, FixListDraft(name="refunds"), by=ann)
    ben = people.choose_local(db, "ben")
    fix_lists.give_list(db, fix_list, ben.person_id, by=ann)
    assert [one.owner for one in fix_lists.list_lists(db)] == ["ben"]


def test_the_trail_has_every_act_and_no_text(db: Database, fix_list: int, ann: Reviewer) -> None:
    """Ids and counts: what may have to be erased is not there."""
    put(db, fix_list, ann, training_example_ids=(1,), reason="a secret reason")
    put(db, fix_list, ann, culprits=AuditFilter(text="a secret"), reason="x")
    fix_lists.note_export(db, fix_list, rows=1, what="rows")
    fix_lists.close_list(db, fix_list, by=ann)
    with db.reading() as session:
        events = [(one.kind, one.subject, str(one.payload)) for one in session.query(TrailEvent)]
    mine = [kind for kind, subject, _ in events if subject == f"fix_list:{fix_list}"]
    assert mine == [
        "fix_list.created",
        "fix_list.changed",
        "fix_list.changed",
        "fix_list.exported",
        "fix_list.closed",
    ]
    assert not any("secret" in payload for _, _, payload in events)


def cite(db: Database, bundle_id: int, number: int, *rows: int, **fields: Any) -> int:
    """An audit that cites these rows of the corpus in this order, and row 4 as an opponent."""
    drafts = [draft(rank, example(row)) for rank, row in enumerate(rows, start=1)]
    answer = attribution(*drafts, draft(-1, example(4)))
    return answered(db, bundle_id, record(number, **fields), answer=answer)[0]


def test_culprits_are_ranked_across_a_selection(db: Database, bundle_id: int, ann: Reviewer) -> None:
    """Each training example once, by the sum of 1 / rank; opponents do not count; the filter chooses the audits."""
    first = cite(db, bundle_id, 1, 0, 1)
    cite(db, bundle_id, 2, 0, 2)
    cite(db, bundle_id, 3, 3, 2, 1, reason="other")
    reviews.judge(db, first, ReviewDraft(rank=1, verdict=Verdict.CONFIRMED), by=ann)
    with recorded_statements() as statements:
        found = culprits.culprits(db, AuditFilter())
    assert len(statements) == 3
    assert [
        (one.example_id, one.outputs, one.first_citations, round(one.strength, 3)) for one in found.items
    ] == [
        ("ex-00000", 2, 2, 2.0),
        ("ex-00002", 2, 0, 1.0),
        ("ex-00003", 1, 1, 1.0),
        ("ex-00001", 2, 0, 0.833),
    ]
    assert (found.items[0].confirmed, found.items[1].confirmed, found.audits, found.more) == (1, 0, 3, False)
    some = culprits.culprits(db, AuditFilter(flag_reason="policy"), least_outputs=2)
    assert [one.example_id for one in some.items] == ["ex-00000"]
    newest = culprits.culprits(db, AuditFilter(), newest=1)
    assert (newest.audits, newest.more, newest.items[0].example_id) == (1, True, "ex-00003")


def test_outputs_are_counted_up_to_a_bound(
    db: Database, bundle_id: int, fix_list: int, ann: Reviewer
) -> None:
    """A page learns that there are more, an export counts all; opponents do not count."""
    for number in range(3):
        cite(db, bundle_id, number, 0)
    answered(
        db,
        bundle_id,
        record(9),
        answer=attribution(draft(1, example(1)), draft(-1, example(0)), draft(-2, example(2))),
    )
    put(db, fix_list, ann, training_example_ids=(1, 2, 3))
    exact, counted = fix_rows.rows_of(db, fix_list), fix_rows.rows_of(db, fix_list, counted=1)
    assert [one.outputs for one in exact] == [3, 1, 0]
    assert [one.outputs for one in counted] == [2, 1, 0]


def test_outputs_are_counted_in_the_index(lite: Database) -> None:
    """The row of a citation is never read for it."""
    outputs = select(count_at_most(5, *fix_rows._CITES_IT, correlate=FixListRow)).select_from(FixListRow)
    statement = outputs.compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True})
    plan = plan_of(lite, str(statement))
    assert any("USING COVERING INDEX ix_citation_training_example_id" in one for one in plan), plan


def test_a_source_that_is_blamed_too_often_stands_out(db: Database, bundle_id: int) -> None:
    """Two of five rows are of source-0; it is the first citation of all outputs. The others are not, and the number of sources counts."""
    for number in range(8):
        cite(db, bundle_id, number, 0, 1)
    by_source = {one.source: one for one in blame.blame(db)}
    worst, other = by_source["source-0"], by_source["source-1"]
    assert (worst.examples, worst.first_citations, worst.audits, worst.share) == (2, 8, 8, 0.4)
    assert worst.p == pytest.approx(0.4**8)
    assert worst.q == pytest.approx(3 * 0.4**8)
    assert (other.first_citations, other.p, other.q) == (0, 1.0, 1.0)
    detail = source_facts.source_detail(db, "source-0")
    assert (detail.blame.citations, detail.worst.items[0].example_id, len(detail.worst.items)) == (
        8,
        "ex-00000",
        1,
    )


def test_what_somebody_supposed_blames_nobody(db: Database, bundle_id: int) -> None:
    """Outputs that no model said count neither for a source nor for a culprit."""
    said, supposed = cite(db, bundle_id, 1, 1), cite(db, bundle_id, 2, 0)
    with db.writing() as session:
        session.execute(
            update(FlaggedOutput).where(FlaggedOutput.id == supposed).values(hypothetical_of=said)
        )
    found = {one.source: (one.first_citations, one.audits) for one in blame.blame(db)}
    assert (found["source-0"], found["source-1"]) == ((0, 1), (1, 1))
    assert [one.example_id for one in culprits.culprits(db, AuditFilter()).items] == ["ex-00001"]


def test_a_corpus_that_is_stored_in_part_gives_no_test(db: Database) -> None:
    """Shares are unknown where only what was cited is stored; that is said instead of a wrong figure."""
    bundle_id = register(db, corpus_examples=1_000_000)
    cite(db, bundle_id, 1, 0, 1)
    found = {one.source: one for one in blame.blame(db)}["source-0"]
    assert (found.first_citations, found.share, found.expected, found.p, found.q) == (
        1,
        None,
        None,
        None,
        None,
    )


def test_the_culprits_of_a_filter_go_on_a_list(
    db: Database, bundle_id: int, fix_list: int, ann: Reviewer
) -> None:
    """The strongest ones, and the history says of which filter."""
    cite(db, bundle_id, 1, 0, 1)
    cite(db, bundle_id, 2, 3, 2, reason="other")
    wanted = FixChange(culprits=AuditFilter(flag_reason="policy"), most=1)
    assert fix_rows.preview(db, wanted) == 1
    fix_rows.change_rows(db, fix_list, wanted, by=ann)
    assert actions(db, fix_list) == {"ex-00000": "remove"}
    assert fix_lists.history(db, fix_list)[0].culprits == {"flag_reason": "policy"}
    assert fix_rows.actions_on(db, [1, 2]) == {1: [(fix_list, "refunds", FixAction.REMOVE)]}


def test_the_views_show_lists_rows_and_history(db: Database, fix_list: int, ann: Reviewer) -> None:
    """For people with a SQL client, with names in place of numbers."""
    put(db, fix_list, ann, training_example_ids=(1,), reason="no receipt")
    with db.reading() as session:
        [row] = session.execute(
            text("SELECT fix_list, example_id, action, reason, decided_by FROM v_fix_rows")
        )
        [own] = session.execute(text("SELECT fix_list, owner, note FROM v_fix_lists"))
        told = session.execute(
            text("SELECT event, num_rows, person FROM v_fix_history ORDER BY entry_id")
        ).all()
    assert tuple(row) == ("refunds", "ex-00000", "remove", "no receipt", "ann")
    assert tuple(own) == ("refunds", "ann", "before March")
    assert [tuple(one) for one in told] == [("created", 0, "ann"), ("set", 1, "ann")]
