"""What happens now: throughput, processes, what is stuck and why, what is new; each bounded, on both engines."""

from datetime import timedelta

import pytest
from sqlalchemy import select, update

from db import signs
from db.access import people
from db.clock import db_after
from db.comparison import comparisons
from db.measuring import measurements
from db.models import (
    Audit,
    BundleComparisonRow,
    Citation,
    Measurement,
    Person,
    ProcessSign,
    WebhookDelivery,
    WhatIf,
)
from db.notices import outbox
from db.queues.audit_queue import AuditQueue, Finished
from db.queues.queue import Failure
from db.reading import reader, stuck, today
from db.remedies import fix_lists, fix_rows, hypotheticals, what_ifs
from db.reviewing.reviews import Reviewer
from db.session import Database
from db.signs import Sign
from tests.integration.db.builders import (
    accept,
    answered,
    claim,
    claim_one,
    five_citations,
    record,
    recorded_statements,
    register,
)
from wherefrom.records import (
    AuditFilter,
    AuditState,
    FixAction,
    FixChange,
    FixListDraft,
    HypotheticalRequest,
    Method,
    Notice,
    NoticeKind,
    Via,
)


def dead(db: Database, bundle_id: int, code: str = "out_of_memory") -> int:
    """An audit that died of something."""
    held = claim_one(db, bundle_id)
    AuditQueue(db).fail(held.lease, Failure(code, "x", retry_in_s=None), max_attempts=5)
    return held.audit_id


def test_what_ended_in_each_minute(db: Database, bundle_id: int) -> None:
    """The last hour only, in the minutes of the database's clock, without what somebody supposes."""
    one, two, three = answered(db, bundle_id, record(1), record(2), record(3))
    accept(db, record(4))
    dead(db, bundle_id)
    hypotheticals.suppose(db, one, HypotheticalRequest(completion="No."), producer="local")
    AuditQueue(db).finish([Finished(claim_one(db, bundle_id), five_citations(), 0.1)])
    with db.writing() as session:
        for audit_id, seconds in ((two, -600), (three, -7200)):
            session.execute(update(Audit).where(Audit.id == audit_id).values(finished_at=db_after(seconds)))
    found = today.today(db)
    assert len(found.minutes) == 60
    ends = [one.start for one in found.minutes]
    assert ends == [ends[0] + timedelta(minutes=minute) for minute in range(60)]
    assert sum(one.done for one in found.minutes) == 2
    assert sum(one.dead for one in found.minutes[-2:]) == 1
    assert sum(one.done for one in found.minutes[48:51]) == 1
    assert found.queue.states[AuditState.DONE] == 3
    assert not found.partial


def test_what_is_stuck_and_why(db: Database, bundle_id: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By state and code, the most first; only what can be tried again says so; beyond a bound it says that there are more."""
    accept(db, *(record(number) for number in range(5)), record(9, model="unknown"))
    for code in ("out_of_memory", "out_of_memory", "disk_full"):
        dead(db, bundle_id, code)
    held = claim_one(db, bundle_id)
    AuditQueue(db).fail(held.lease, Failure("disk_full", "x", retry_in_s=60), max_attempts=5)
    found = [(one.state.value, one.code, one.audits, one.retry, one.more) for one in today.today(db).stuck]
    assert found == [
        ("dead", "out_of_memory", 2, True, False),
        ("dead", "disk_full", 1, True, False),
        ("rejected", "unknown_model", 1, False, False),
        ("pending", "disk_full", 1, False, False),
    ]
    listed = reader.list_audits(db, AuditFilter(state=AuditState.DEAD, code="disk_full")).items
    assert [one.code for one in listed] == ["disk_full"]
    monkeypatch.setattr(stuck, "LOOKED_AT", 2)
    capped = today.today(db).stuck
    assert sum(one.audits for one in capped if one.state is AuditState.DEAD) == 2
    assert [one.more for one in capped if one.state is AuditState.DEAD] == [True] * sum(
        one.state is AuditState.DEAD for one in capped
    )


def test_what_else_is_stuck(db: Database, bundle_id: int) -> None:
    """Measurements, what-ifs, comparisons and notices: what died by its code, and what has waited for its process too long; fresh work is not stuck."""
    (audit_id,) = answered(db, bundle_id, record(1))
    measurements.request_measurement(db, audit_id=audit_id, rank=1, method=Method.REFIT, requested_by="ann")
    ann = Reviewer(people.choose_local(db, "ann").ref, Via.LOCAL)
    list_id = fix_lists.create_list(db, FixListDraft(name="fix"), by=ann)
    with db.reading() as session:
        cited = session.scalars(select(Citation.training_example_id)).first()
    change = FixChange(action=FixAction.REMOVE, training_example_ids=(cited or 0,))
    fix_rows.change_rows(db, list_id, change, by=ann)
    (asked,) = what_ifs.ask(db, list_id, AuditFilter(), most=5, by="ann")
    register(db, "bundle-b", activate=False, form="activation")
    comparisons.compare_bundles(db, "bundle-a", "bundle-b")
    with db.writing() as session:
        outbox.announce(session, Notice(kind=NoticeKind.TEST))
    assert today.today(db).stuck_work == ()
    with db.writing() as session:
        long_ago = db_after(-2 * stuck.WAITS_S)
        session.execute(update(Measurement).values(created_at=long_ago))
        session.execute(update(WhatIf).values(state="dead", code="bundle_corrupt"))
        session.execute(
            update(BundleComparisonRow).values(asked_at=long_ago, computed_at=None, stepped_at=long_ago)
        )
        session.execute(update(WebhookDelivery).values(state="dead", code="webhook_gone"))
    found = today.today(db).stuck_work
    assert [(one.kind.value, one.state.value, one.code, one.number, one.leads_to) for one in found] == [
        ("measurement", "pending", None, 1, audit_id),
        ("what_if", "dead", "bundle_corrupt", 1, asked.what_if_id),
        ("comparison", "pending", None, 1, None),
        ("notice", "dead", "webhook_gone", 1, None),
    ]
    assert not any(one.more for one in found)


def test_a_comparison_that_goes_on_is_not_stuck(db: Database, bundle_id: int) -> None:
    """However long ago it was asked for: what counts is when it went on last. Whoever looks again has not asked anew."""
    assert bundle_id
    register(db, "bundle-b", activate=False, form="activation")
    comparisons.compare_bundles(db, "bundle-a", "bundle-b")
    long_ago = db_after(-2 * stuck.WAITS_S)
    for stepped_at, number in ((db_after(-60), 0), (None, 1), (long_ago, 1)):
        with db.writing() as session:
            session.execute(
                update(BundleComparisonRow).values(
                    asked_at=long_ago, computed_at=None, summary=None, stepped_at=stepped_at, seen=10**6
                )
            )
        comparisons.compare_bundles(db, "bundle-a", "bundle-b")
        assert [one.number for one in today.today(db).stuck_work] == [number] * number


def test_who_works(db: Database, bundle_id: int) -> None:
    """With bundle and model; silent after a minute, gone after ten, and at once after an end in order."""
    accept(db, record(1))
    for pid in (1, 2, 3, 4):
        signs.give_sign(db, Sign(f"h:{pid}", "attribute", "h", pid))
    signs.give_sign(db, Sign("h:1", "attribute", "h", 1, (bundle_id, 4711)))
    with db.writing() as session:
        for pid, ago in ((2, -90), (3, -1000)):
            session.execute(update(ProcessSign).where(ProcessSign.pid == pid).values(seen_at=db_after(ago)))
    signs.take_sign(db, "h:4")
    found = today.today(db)
    assert [(one.pid, one.alive, one.bundles, one.models) for one in found.workers] == [
        (1, True, ("bundle-a",), ("support-7",)),
        (2, False, (), ()),
    ]
    assert [(one.bundle, one.audits, one.workers) for one in found.waiting] == [("bundle-a", 1, 1)]
    signs.give_sign(db, Sign("h:5", "sweep", "h", 5))
    with db.reading() as session:
        assert session.get(ProcessSign, "h:3") is None, "forgotten when another process starts"


def test_what_is_new_since_the_last_visit(db: Database, bundle_id: int) -> None:
    """Received and answered after it; nothing for whoever was never there; two statements more."""
    old, _ = answered(db, bundle_id, record(1), record(2))
    person = people.choose_local(db, "ann").ref.person_id
    assert today.today(db, person_id=person).news is None
    with db.writing() as session:
        session.execute(update(Person).values(seen_at=db_after(-3600)))
        long_ago = db_after(-7200)
        session.execute(
            update(Audit).where(Audit.id == old).values(created_at=long_ago, finished_at=long_ago)
        )
    news = today.today(db, person_id=person).news
    assert news is not None
    assert (news.received, news.answered, news.findings) == (1, 1, 0)


def test_it_costs_the_same_however_much_there_is(db: Database, bundle_id: int) -> None:
    """And every count ends at a bound."""
    counted = set()
    for numbers in (range(1), range(1, 9)):
        accept(db, *(record(number) for number in numbers))
        held = claim(db, bundle_id, limit=3).audits
        AuditQueue(db).finish([Finished(one, five_citations(), 0.1) for one in held])
        with recorded_statements() as statements:
            today.today(db)
        counted.add(len(statements))
    assert counted == {7}, statements
    assert all("LIMIT" in one or "bundle" in one for one in statements), statements
