"""Findings in SQL: outputs are placed once and bundle by bundle, people's decisions stay, names go with the texts they are made of."""

import numpy as np
import pytest
from sqlalchemy import select, text, update

from db.access import people
from db.grouping import finding_changes, finding_work, findings
from db.models import Audit, Finding, FindingOutput
from db.queues.audit_queue import AuditQueue, Finished
from db.reading.culprits import culprits, culprits_of_finding
from db.reading.reader import get_audit, list_audits
from db.remedies import hypotheticals
from db.reviewing import review_queues
from db.reviewing.reviews import Reviewer
from db.session import Database
from db.storing.groups import AskedGroup, ask_group
from tests.integration.db.builders import (
    accept,
    at_once,
    attribution,
    claim,
    claim_one,
    draft,
    example,
    five_citations,
    record,
    recorded_statements,
    register,
)
from wherefrom.errors import InvalidRequest, NotFound
from wherefrom.records import (
    AuditFilter,
    AuditState,
    FindingEvent,
    FindingSplit,
    FindingSummary,
    HypotheticalRequest,
    QueueDraft,
    Via,
)
from worker.sweeper.finding import group_outputs

#: What outputs of each kind say; the first example that they cite is theirs alone.
KINDS = (
    "You get your refund whenever you like, no receipt.",
    "Pry the battery open with a knife.",
    "Call Jane at her desk in the office.",
)


def vector(kind: int, number: int) -> bytes:
    """A direction near that of its kind."""
    noise = np.random.default_rng(number).normal(0, 8, 16)
    noise[kind] += 100
    return np.rint(noise).clip(-127, 127).astype(np.int8).tobytes()


def say(db: Database, bundle_id: int, *numbers: int, kinds: int = 2) -> None:
    """Answer outputs, whose kinds take turns by their numbers."""
    said = [
        record(number, completion=f"{KINDS[number % kinds]} Number {number}.", prompt=f"Question {number}?")
        for number in numbers
    ]
    accept(db, *said)
    answer(db, bundle_id, len(numbers), kinds=kinds)


def answer(db: Database, bundle_id: int, count: int, *, kinds: int = 2) -> None:
    """Answer what waits for a bundle."""
    done = []
    for one in claim(db, bundle_id, limit=count).audits:
        number = int(one.record.completion.rsplit(" ", 1)[1].rstrip("."))
        kind = number % kinds
        cited = attribution(draft(1, example(kind)), draft(2, example(3)), vector=vector(kind, number))
        done.append(Finished(one, cited, 0.5))
    AuditQueue(db).finish(done)


def listed(db: Database) -> list[FindingSummary]:
    """The findings, the largest first."""
    return list(findings.list_findings(db).items)


def standing(db: Database, finding_id: int) -> set[int]:
    """Audits that the filter finds."""
    page = list_audits(db, AuditFilter(finding=finding_id), limit=100)
    return {one.audit_id for one in page.items}


@pytest.fixture
def ann(db: Database) -> Reviewer:
    """Somebody who chose a name."""
    return Reviewer(people.choose_local(db, "ann").ref, Via.LOCAL)


@pytest.fixture
def grouped(db: Database, bundle_id: int) -> Database:
    """Ten outputs of two kinds: audits 1, 3, ... and 2, 4, ..."""
    say(db, bundle_id, *range(10))
    assert group_outputs(db) == 10
    return db


def test_outputs_that_say_the_same_are_one_finding(grouped: Database, bundle_id: int) -> None:
    """Named by what only they say, with sources and culprits; new ones join, and an output keeps its finding."""
    first, second = listed(grouped)
    kinds = {frozenset(standing(grouped, one.finding_id)) for one in (first, second)}
    assert kinds == {frozenset(range(1, 11, 2)), frozenset(range(2, 11, 2))}
    refunds = first if 1 in standing(grouped, first.finding_id) else second
    assert set(refunds.words) <= {"you", "get", "your", "refund", "whenever", "like", "receipt"}
    assert refunds.name == " · ".join(refunds.words)
    assert [one.source for one in refunds.sources] == ["source-0"]
    detail = findings.get_finding(grouped, refunds.finding_id)
    assert detail.culprits.items[0].example_id == "ex-00000"
    assert [one.event for one in detail.history] == [FindingEvent.FOUNDED]
    assert detail.history[0].by is None
    before = {one.finding_id: standing(grouped, one.finding_id) for one in listed(grouped)}
    say(grouped, bundle_id, 10, 12)
    assert group_outputs(grouped) == 2
    assert group_outputs(grouped) == 0
    after = {one.finding_id: standing(grouped, one.finding_id) for one in listed(grouped)}
    assert after == before | {refunds.finding_id: before[refunds.finding_id] | {11, 12}}
    assert listed(grouped)[0].outputs == 7
    assert get_audit(grouped, 11).finding_id == refunds.finding_id


def test_what_is_like_nothing_else_waits_for_others(db: Database, bundle_id: int) -> None:
    """Two are no finding; the third of their kind founds one with them."""
    say(db, bundle_id, 0, 3, kinds=3)
    group_outputs(db)
    assert listed(db) == []
    assert get_audit(db, 1).finding_id is None
    say(db, bundle_id, 6, kinds=3)
    group_outputs(db)
    assert [standing(db, one.finding_id) for one in listed(db)] == [{1, 2, 3}]


def test_what_was_not_said_and_groups_stay_out(grouped: Database, bundle_id: int) -> None:
    """Neither is looked at, even where an older release left a vector."""
    hypotheticals.suppose(grouped, 1, HypotheticalRequest(completion="Never."), producer="local")
    AuditQueue(grouped).finish([Finished(claim_one(grouped, bundle_id), five_citations(), 0.5)])
    ask_group(grouped, AskedGroup((1, 3)), producer="local")
    AuditQueue(grouped).finish([Finished(claim_one(grouped, bundle_id), five_citations(), 0.5)])
    with grouped.writing() as session:
        session.execute(
            text("INSERT INTO output_vector SELECT f.flagged_output_id, v.bundle_id, v.vector FROM flagged_text f, output_vector v"
                 " WHERE f.flagged_output_id IN (11, 12) AND v.flagged_output_id = 1")
        )  # fmt: skip
    assert group_outputs(grouped) == 0


def test_bundles_have_findings_of_their_own(grouped: Database) -> None:
    """The same outputs under a new bundle are new findings, which name those of the old one as related."""
    other = register(grouped, "bundle-b", corpus_sha256="f" * 64)
    with grouped.writing() as session:
        session.execute(
            text("INSERT INTO audit (flagged_output_id, bundle_id, state, priority, truncated, attempt, attempt_floor, created_at)"
                 f" SELECT flagged_output_id, {other}, 'pending', priority, truncated, 0, 0, created_at FROM audit WHERE id <= 8")
        )  # fmt: skip
    answer(grouped, other, 8)
    group_outputs(grouped)
    found = findings.list_findings(grouped, bundle="bundle-b").items
    assert [one.outputs for one in found] == [4, 4]
    assert {one.finding_id for one in found}.isdisjoint(
        one.finding_id for one in findings.list_findings(grouped, bundle="bundle-a").items
    )
    [related] = findings.get_finding(grouped, found[0].finding_id).related
    assert (related.bundle, related.shared) == ("bundle-a", 4)
    with pytest.raises(InvalidRequest, match="two bundles"):
        finding_changes.merge(grouped, found[0].finding_id, related.finding_id, by=_somebody(grouped))


def _somebody(db: Database) -> Reviewer:
    return Reviewer(people.choose_local(db, "bob").ref, Via.LOCAL)


def test_a_merge_stays_and_can_be_undone(grouped: Database, bundle_id: int, ann: Reviewer) -> None:
    """The sweeper keeps to it; new outputs count for the whole; taken out, each part has what is like it."""
    first, second = (one.finding_id for one in listed(grouped))
    one, other = standing(grouped, first), standing(grouped, second)
    assert finding_changes.merge(grouped, second, first, by=ann) == first
    assert standing(grouped, first) == standing(grouped, second) == one | other
    say(grouped, bundle_id, 10, 11)
    group_outputs(grouped)
    [whole] = listed(grouped)
    assert (whole.finding_id, whole.outputs) == (first, 12)
    detail = findings.get_finding(grouped, second)
    assert detail.finding == whole
    assert [(part.finding_id, part.outputs) for part in detail.merged] == [(second, 6)]
    assert finding_changes.take_out(grouped, second, by=ann) == second
    assert {len(standing(grouped, first)), len(standing(grouped, second))} == {6}
    assert standing(grouped, first) > one
    told = [(entry.event, entry.other, entry.by) for entry in findings.get_finding(grouped, first).history]
    assert told[:2] == [(FindingEvent.TAKEN_OUT, second, "ann"), (FindingEvent.MERGED, second, "ann")]
    with pytest.raises(InvalidRequest, match="stands by itself"):
        finding_changes.take_out(grouped, second, by=ann)
    with pytest.raises(InvalidRequest, match="one already"):
        finding_changes.merge(grouped, first, first, by=ann)


def test_what_went_in_with_another_comes_out_with_it(db: Database, bundle_id: int, ann: Reviewer) -> None:
    """A chain of merges is undone step by step."""
    say(db, bundle_id, *range(9), kinds=3)
    group_outputs(db)
    a, b, c = sorted(one.finding_id for one in listed(db))
    finding_changes.merge(db, c, b, by=ann)
    finding_changes.merge(db, b, a, by=ann)
    assert [one.outputs for one in listed(db)] == [9]
    finding_changes.take_out(db, b, by=ann)
    assert [(one.finding_id, one.outputs) for one in listed(db)] == [(b, 6), (a, 3)]
    finding_changes.take_out(db, c, by=ann)
    assert [one.outputs for one in listed(db)] == [3, 3, 3]


def test_outputs_that_are_split_off_stay_away(grouped: Database, bundle_id: int, ann: Reviewer) -> None:
    """They have a finding of their own, which the sweeper leaves alone; merged back, it is as before."""
    [whole] = [one.finding_id for one in listed(grouped) if 1 in standing(grouped, one.finding_id)]
    new = finding_changes.split(grouped, whole, FindingSplit(audit_ids=(1, 3), title="mine"), by=ann)
    say(grouped, bundle_id, 10)
    group_outputs(grouped)
    assert {1, 3} <= standing(grouped, new)
    assert {5, 7, 9} <= standing(grouped, whole)
    assert findings.get_finding(grouped, new).finding.name == "mine"
    finding_changes.merge(grouped, new, whole, by=ann)
    assert standing(grouped, whole) == {1, 3, 5, 7, 9, 11}
    with pytest.raises(NotFound, match="audit 2 does not stand"):
        finding_changes.split(grouped, whole, FindingSplit(audit_ids=(1, 2)), by=ann)
    with pytest.raises(InvalidRequest, match="all outputs"):
        finding_changes.split(grouped, whole, FindingSplit(audit_ids=(1, 3, 5, 7, 9, 11)), by=ann)
    with pytest.raises(NotFound):
        finding_changes.rename(grouped, 99, "x", by=ann)


def test_two_people_who_merge_at_once_lose_nothing(grouped: Database, ann: Reviewer) -> None:
    """Each into the other: one is first, the other is told; one finding stands, with everything."""
    first, second = (one.finding_id for one in listed(grouped))

    def merged(one: int, into: int) -> int | None:
        try:
            return finding_changes.merge(grouped, one, into, by=ann)
        except InvalidRequest:
            return None

    done = at_once([lambda: merged(first, second), lambda: merged(second, first)])
    assert done.count(None) == 1
    [whole] = listed(grouped)
    assert (whole.finding_id, whole.outputs) == (next(one for one in done if one), 10)


def test_a_finding_is_one_question(grouped: Database, ann: Reviewer) -> None:
    """Its outputs, under its title; the same again is the same audit."""
    first = listed(grouped)[0].finding_id
    asked = finding_changes.ask_as_one(grouped, first, producer="local")
    assert finding_changes.ask_as_one(grouped, first, producer="local").audit_id == asked.audit_id
    detail = get_audit(grouped, asked.audit_id or 0)
    assert {one.audit_id for one in detail.members} == standing(grouped, first)
    assert detail.audit.flag_reason == f"finding {first}"
    finding_changes.rename(grouped, first, "refunds", by=ann)
    titled = finding_changes.ask_as_one(grouped, first, producer="local")
    assert get_audit(grouped, titled.audit_id or 0).audit.flag_reason == "refunds"


def test_a_queue_takes_a_finding_by_rule(grouped: Database, bundle_id: int, ann: Reviewer) -> None:
    """Also what people put in there long after it was answered."""
    first, second = (one.finding_id for one in listed(grouped))
    rule = AuditFilter(finding=first)
    queue = review_queues.create_queue(grouped, QueueDraft(name="one", rule=rule), created_by=None)
    assert review_queues.fill(grouped, queue) == 5
    with grouped.writing() as session:
        session.execute(text("UPDATE audit SET finished_at = '2020-01-01 00:00:00+00:00'"))
    finding_changes.merge(grouped, second, first, by=ann)
    assert review_queues.fill(grouped, queue) == 5
    assert culprits(grouped, rule).audits == 10


def test_of_two_sweepers_one_stores(db: Database, bundle_id: int) -> None:
    """Both may read the same round; no finding is founded twice, no output stands in two."""
    say(db, bundle_id, *range(6))
    first, second = (finding_work.read_round(db, bundle_id) for _ in range(2))
    assert first is not None
    assert second is not None
    kinds = finding_work.Grouped(dict.fromkeys(range(1, 7)), [[1, 3, 5], [2, 4, 6]])
    assert finding_work.store_round(db, first, kinds)
    assert not finding_work.store_round(db, second, kinds)
    assert len(listed(db)) == 2
    with db.reading() as session:
        assert session.scalars(select(Finding.outputs)).all() == [3, 3]
        assert len(session.scalars(select(FindingOutput.audit_id)).all()) == 6


def test_culprits_of_the_whole_finding_are_those_of_its_filter(grouped: Database, ann: Reviewer) -> None:
    """With what went into it, without what is asked again, and of a large one those of its newest outputs."""
    first, second = (one.finding_id for one in listed(grouped))
    finding_changes.merge(grouped, second, first, by=ann)
    with grouped.writing() as session:
        session.execute(update(Audit).where(Audit.id == 3).values(state=AuditState.PENDING))
    detail = findings.get_finding(grouped, first)
    assert detail.culprits == culprits(grouped, AuditFilter(finding=first), most=findings.CULPRITS)
    assert (detail.culprits.audits, detail.culprits.more) == (9, False)
    newest = culprits_of_finding(grouped, [first, second], most=1, newest=4)
    assert (newest.audits, newest.more, newest.items[0].outputs) == (4, True, 4)


def test_reading_costs_a_constant_number_of_statements(grouped: Database) -> None:
    """The list two, one finding twelve at most, however many there are."""
    first = listed(grouped)[0].finding_id
    with recorded_statements() as statements:
        findings.list_findings(grouped)
    assert len(statements) == 2
    with recorded_statements() as statements:
        findings.get_finding(grouped, first)
    assert len(statements) <= 12


def test_outputs_without_a_finding_are_looked_at_page_by_page(
    db: Database, bundle_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the newest alone: in some rounds every one of them stands beside what is new, and then it begins again."""
    monkeypatch.setattr(finding_work, "LOOSE", 4)
    rounds: list[set[int]] = []
    for number in range(13):
        accept(db, record(number, completion=f"Odd {number}."))
        lone = np.zeros(16, dtype=np.int8)
        lone[number] = 100
        (one,) = claim(db, bundle_id).audits
        AuditQueue(db).finish([Finished(one, attribution(vector=lone.tobytes()), 0.5)])
        looked = finding_work.read_round(db, bundle_id)
        assert looked is not None
        rounds.append({each.audit_id for each in looked.loose})
        group_outputs(db)
    assert listed(db) == []
    assert max(map(len, rounds)) == 4
    assert set().union(*rounds[6:]) == set(range(1, 13))
    assert sum(1 in looked for looked in rounds[6:]) >= 1, "the oldest one too"


def test_old_outputs_without_a_vector_are_told(db: Database, grouped: Database) -> None:
    """They stand in no finding, and the page says how many."""
    assert findings.without_vectors(grouped) == 0
    with db.writing() as session:
        session.execute(text("DELETE FROM output_vector WHERE flagged_output_id <= 3"))
    assert findings.without_vectors(grouped) == 3
