"""What people said of findings is carried over to another bundle: names, merges and splits."""

import pytest
from sqlalchemy import text

from db.grouping import finding_changes, findings
from db.grouping.finding_carrying import Origin, take_over
from db.grouping.finding_work import new_finding
from db.models import Finding
from db.reviewing import bulk
from db.reviewing.reviews import Reviewer
from db.session import Database
from tests.integration.db.builders import register
from tests.integration.db.test_findings import ann, answer, grouped, listed, standing
from wherefrom.records import AuditFilter, FindingEvent, FindingSplit, FindingSummary
from worker.sweeper.finding import group_outputs

__all__ = ["ann", "grouped"]


@pytest.fixture
def second(db: Database, grouped: Database) -> int:
    """A bundle of another form, under which every output is asked again."""
    del grouped
    return register(db, "bundle-b", form="activation", activate=False)


def ask_again(db: Database, bundle_id: int, *, kinds: int = 2) -> dict[int, FindingSummary]:
    """Audit every output under the bundle too, and group: its findings by number."""
    bulk.reaudit(db, AuditFilter(bundle="bundle-a"), bundle_id)
    answer(db, bundle_id, 100, kinds=kinds)
    group_outputs(db)
    return {one.finding_id: one for one in findings.list_findings(db, bundle="bundle-b").items}


def test_a_name_carries_over_to_another_bundle(db: Database, second: int, ann: Reviewer) -> None:
    """Outputs that are asked again found findings that are called as people called those that most of them stood in; what nobody named gets its words."""
    named, other = listed(db)
    finding_changes.rename(db, named.finding_id, "Refunds", by=ann)
    found = ask_again(db, second)
    assert sorted(one.title or "" for one in found.values()) == ["", "Refunds"]
    carried = next(one for one in found.values() if one.title)
    assert {one.finding_id for one in findings.get_finding(db, carried.finding_id).related} == {
        named.finding_id
    }
    founded = findings.get_finding(db, carried.finding_id).history[-1]
    assert (founded.event, founded.other, founded.title) == (
        FindingEvent.FOUNDED,
        named.finding_id,
        "Refunds",
    )
    assert other.finding_id != named.finding_id


def test_without_a_majority_nothing_carries_over(db: Database, second: int, ann: Reviewer) -> None:
    """Under a bundle that finds all outputs alike, half of them name nothing."""
    for number, one in enumerate(listed(db)):
        finding_changes.rename(db, one.finding_id, f"Name {number}", by=ann)
    (only,) = ask_again(db, second, kinds=1).values()
    assert (only.title, only.outputs) == (None, 10)


def test_merges_and_splits_carry_over(db: Database, second: int, ann: Reviewer) -> None:
    """What people put together is one again, although it is not alike; what they took apart is apart, although it is."""
    refunds, batteries = listed(db)
    finding_changes.rename(db, refunds.finding_id, "All", by=ann)
    root = finding_changes.merge(db, batteries.finding_id, refunds.finding_id, by=ann)
    (whole,) = ask_again(db, second).values()
    assert (whole.title, whole.outputs) == ("All", 10)
    third = register(db, "bundle-c", form="forward", activate=False)
    audits = sorted(standing(db, root))
    wanted = FindingSplit(audit_ids=tuple(one for one in audits if one % 2 == 0)[:4], title="Four")
    finding_changes.split(db, root, wanted, by=ann)
    bulk.reaudit(db, AuditFilter(bundle="bundle-a"), third)
    with db.writing() as session:  # the second bundle knows nothing of the split
        session.execute(
            text("UPDATE finding_output SET finding_id = NULL WHERE bundle_id = :id"), {"id": second}
        )
    answer(db, third, 100, kinds=1)
    group_outputs(db)
    apart = findings.list_findings(db, bundle="bundle-c").items
    assert [(one.title, one.outputs) for one in apart] == [("All", 6), ("Four", 4)]


def test_a_split_of_others_takes_nothing_apart(db: Database, second: int, ann: Reviewer) -> None:
    """A finding that lost outputs to a split was not split from every other one; which outputs are alike, the new bundle says."""
    batteries = listed(db)[1].finding_id
    some = FindingSplit(audit_ids=tuple(sorted(standing(db, batteries))[:2]))
    finding_changes.split(db, batteries, some, by=ann)
    (only,) = ask_again(db, second, kinds=1).values()
    assert only.outputs == 10


def test_nothing_goes_through_two_findings(grouped: Database, bundle_id: int, ann: Reviewer) -> None:
    """What took a finding over may just have gone into another one, which then gets what follows."""
    whole, part = (one.finding_id for one in listed(grouped))
    finding_changes.merge(grouped, part, whole, by=ann)
    with grouped.writing() as session:
        new = new_finding(session, bundle_id, outputs=2)
        take_over(session, new, Origin(part, None, taken_by=part), outputs=2)
    with grouped.reading() as session:
        assert session.get_one(Finding, new).merged_into == whole
        assert [session.get_one(Finding, one).outputs for one in (whole, part)] == [12, 5]
