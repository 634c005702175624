"""Erasing outputs: every copy in the database is gone, byte by byte, and the rows stay as tombstones."""

import json
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from db.access import people
from db.clock import db_after
from db.erasure import cleaning, erasures, holds, retention
from db.erasure.erasing import ErasedOutput, erase_outputs
from db.models import (
    Erasure,
    FlaggedOutput,
    FlaggedText,
    OutputVector,
    RetentionRule,
    TrailEvent,
)
from db.reading import listings, reader, saved_views
from db.remedies import fix_lists, fix_rows, hypotheticals
from db.reviewing import review_queues, reviews
from db.reviewing.reviews import Reviewer
from db.session import Database
from db.storing import item_keys
from tests.byte_scan import holding_database
from tests.integration.db.builders import (
    accept,
    answered,
    count,
    five_citations,
    forget,
    record,
    register,
)
from wherefrom.errors import Held, InvalidRequest, NotFound
from wherefrom.records import (
    AuditFilter,
    ErasureDraft,
    FixChange,
    FixListDraft,
    HoldDraft,
    HypotheticalRequest,
    OutputClass,
    QueueDraft,
    RetentionDraft,
    ReviewDraft,
    Via,
    ViewDraft,
)

#: Words that stand nowhere else.
SECRET = "Quizzical Zanzibar walruses whistle at 4711"
VECTOR = bytes(range(3, 67))
ANSWER = five_citations().model_copy(update={"vector": VECTOR})
BY = "operator"


def nothing(found: object) -> None:
    """No Redis to look through."""
    del found


def finished(db: Database, bundle_id: int, *records: Any) -> list[int]:
    """Ids of audits that were answered with a vector."""
    return answered(db, bundle_id, *records, answer=ANSWER)


def quote_everywhere(db: Database, audit_id: int, *, words: str) -> None:
    """People who copy words of a text: into comments, names, reasons, filters, another answer, and a search that was worked out."""
    ann = Reviewer(people.choose_local(db, "ann").ref, Via.LOCAL)
    for draft in (
        ReviewDraft(comment=f"it says {words}"),
        ReviewDraft(comment="hm", quote=words.split(maxsplit=1)[0], verdict="confirmed"),
    ):
        reviews.judge(db, audit_id, draft, by=ann)
    view = ViewDraft(name=f"look: {words}", parameters={"in_output": words, "severity": "high"})
    saved_views.save_view(db, ann.person.person_id, view)
    rule = AuditFilter(in_output=words)
    review_queues.create_queue(db, QueueDraft(name="queue", rule=rule), created_by=None)
    listings.facts(db, rule, level=0.1)
    made = fix_lists.create_list(db, FixListDraft(name="list", note=f"see: {words}"), by=ann)
    fix_rows.change_rows(db, made, FixChange(training_example_ids=(1,), reason=f"taught {words}"), by=ann)
    hypotheticals.suppose(db, audit_id, HypotheticalRequest(completion=f"Not: {words}"), producer="ann")


def test_nothing_of_an_erased_output_is_left(own: Database, own_url: str) -> None:
    """Prompt, answer, label, vector, words, quotations: found before, in no byte after; what is beside it stays."""
    bundle_id = register(own)
    beside, gone = finished(
        own,
        bundle_id,
        record(1),
        record(
            2,
            completion=f"{SECRET}.",
            prompt="Sesquipedalian llamas?",
            labels={"user": "u-Marigold-99"},
            idempotency_key=None,
        ),
    )
    quote_everywhere(own, gone, words=SECRET)
    digest = output(own, gone).content_sha256
    marks = [
        SECRET.encode(),
        b"Sesquipedalian llamas",
        b"u-Marigold-99",
        b"quizzical zanzibar walruses",
        b"sesquipedalian",
        digest.encode(),
        VECTOR if own_url.startswith("sqlite") else b"whistle",
    ]
    found = holding_database(own_url, marks)
    assert set(found) == set(marks)
    with own.writing() as session:  # the other output has the same vector; it stays, so it must differ
        other = OutputVector.flagged_output_id == output(own, beside).id
        session.execute(update(OutputVector).where(other).values(vector=b"\x01\x02"))
    done = forget(own, gone)
    assert (done.erased, done.code) == (2, None)  # with what was supposed in its place
    assert cleaning.clean(own)
    assert holding_database(own_url, marks) == {}
    assert reader.get_audit(own, beside).completion == "Answer 1."


def output(db: Database, audit_id: int) -> FlaggedOutput:
    """The row of an audit's output."""
    with db.reading() as session:
        found = session.get(FlaggedOutput, reader.get_audit(db, audit_id).audit.output_id)
        assert found is not None
        return found


def test_the_tombstone(db: Database, bundle_id: int) -> None:
    """The audit keeps its numbers and citations and says when and by what; its key is gone, and the trail says so and verifies."""
    [audit_id] = finished(db, bundle_id, record(1, labels={"user": "u-1"}))
    before = reader.get_audit(db, audit_id)
    subject = f"flagged_output:{before.audit.output_id}"
    kept = output(db, audit_id).content_sha256
    forget(db, audit_id)
    after = reader.get_audit(db, audit_id)
    assert (after.completion, after.turns, after.erased_by) == ("", (), "request")
    assert [one.score for one in after.citations] == [one.score for one in before.citations]
    row = output(db, audit_id)
    assert (row.erased_by, row.labels, row.idempotency_key) == ("request", {}, "key-1")
    assert row.erased_at is not None
    with db.reading() as session:
        assert item_keys.digest_is_of(session, subject, kept="", digest=kept) is None
        events = session.scalars(select(TrailEvent).where(TrailEvent.kind == "output.erased")).all()
        [told] = [one for one in events if one.subject == subject]
        accepted = session.scalars(
            select(TrailEvent).where(TrailEvent.kind == "output.accepted", TrailEvent.subject == subject)
        ).one()
    assert told.payload == {"by": "request", "content_hmac": accepted.payload["content_hmac"]}


def test_a_repeated_record_stays_erased(lite: Database, lite_bundle: int) -> None:
    """A producer that sends an erased record once more is told that it is there already; its text is not stored again."""
    [audit_id] = finished(lite, lite_bundle, record(1))
    forget(lite, audit_id)
    [again] = accept(lite, record(1))
    assert (again.status, again.audit_id) == ("duplicate", audit_id)
    assert count(lite, FlaggedText) == 0


def test_a_key_made_of_the_text_goes(lite: Database, lite_bundle: int) -> None:
    """What the command line makes of a record without a key is a digest of it."""
    one = record(1)
    [audit_id] = finished(
        lite, lite_bundle, one.model_copy(update={"idempotency_key": f"sha256:{one.content_sha256()}"})
    )
    forget(lite, audit_id)
    assert output(lite, audit_id).idempotency_key == f"erased-{output(lite, audit_id).id}"


def test_an_erasure_is_resumed(lite: Database, lite_bundle: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped between two transactions, it stays open, and the next run goes on; each output is told of once."""
    audit_ids = finished(lite, lite_bundle, *(record(number) for number in range(5)))
    monkeypatch.setattr(erasures, "AT_ONCE", 2)
    asked = erasures.ask(lite, ErasureDraft(audit_ids=tuple(audit_ids), reason="r"), by=BY)

    def stop(found: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        erasures.carry_out(lite, asked, before=stop)
    assert erasures.waiting(lite) == [asked]
    assert count(lite, FlaggedText) == 5
    told: list[ErasedOutput] = []
    done = erasures.carry_out(lite, asked, before=told.extend)
    assert (done.erased, len(told), count(lite, FlaggedText)) == (5, 5, 0)
    assert erasures.waiting(lite) == []


def test_by_class(db: Database, bundle_id: int) -> None:
    """Producer and time, label, key, reason: each finds its outputs, and what was chosen is not kept."""
    accept(db, record(1), record(2, labels={"user": "u-2"}), record(3, reason="spam"))
    accept(db, record(4), producer="chat")
    for outputs, number in (
        (OutputClass(label="user=u-2"), 1),
        (OutputClass(key="key-1"), 1),
        (OutputClass(flag_reason="spam", severity="medium"), 1),
        (OutputClass(producer="chat"), 1),
    ):
        asked = erasures.ask(db, ErasureDraft(outputs=outputs, reason="r"), by=BY)
        assert erasures.carry_out(db, asked, before=nothing).erased == number, outputs
        with db.reading() as session:
            assert session.get_one(Erasure, asked).chosen is None
        with pytest.raises(NotFound, match="nothing was erased"):
            erasures.ask(db, ErasureDraft(outputs=outputs, reason="r"), by=BY)


def test_holds_win(db: Database, bundle_id: int) -> None:
    """A held output is refused by name of its hold, also one that is held after it was asked for; lifted, it goes."""
    audit_ids = finished(db, bundle_id, record(1), record(2, reason="fraud"), record(3))
    by_id = holds.place(db, HoldDraft(audit_ids=(audit_ids[0],), reason="court"), by=BY)
    with pytest.raises(Held, match=rf"audit {audit_ids[0]} .* legal hold {by_id.hold_id} \(court\)"):
        forget(db, *audit_ids)
    asked = erasures.ask(db, ErasureDraft(audit_ids=(audit_ids[1],), reason="r"), by=BY)
    by_class = holds.place(db, HoldDraft(outputs=OutputClass(flag_reason="fraud"), reason="audit"), by=BY)
    done = erasures.carry_out(db, asked, before=nothing)
    assert (done.erased, done.code) == (0, "held")
    assert count(db, FlaggedText) == 3
    for hold in (by_id, by_class):
        holds.lift(db, hold.hold_id, reason="over", by=BY)
    with pytest.raises(InvalidRequest, match="lifted already"):
        holds.lift(db, by_id.hold_id, reason="over", by=BY)
    assert holds.listed(db) == []
    assert [one.lift_reason for one in holds.listed(db, lifted=True)] == ["over", "over"]
    assert forget(db, *audit_ids).erased == 3


def test_holds_and_rules_by_their_numbers(lite: Database, lite_bundle: int) -> None:
    """Each hold has its own audits, open or lifted; a number that nothing has is told, however large it is."""
    one, two = finished(lite, lite_bundle, record(1), record(2))
    first, second = (
        holds.place(lite, HoldDraft(audit_ids=(some,), reason="court"), by=BY) for some in (one, two)
    )
    lifted = holds.lift(lite, first.hold_id, reason="over", by=BY)
    assert (lifted.audit_ids, lifted.lift_reason) == ((one,), "over")
    assert holds.listed(lite) == [holds.get(lite, second.hold_id)] == [second]
    assert holds.listed(lite, lifted=True) == [second, lifted]
    for number in (0, 99, 2**63, -(2**70)):
        with pytest.raises(NotFound, match=f"no legal hold has the id {number}"):
            holds.lift(lite, number, reason="over", by=BY)
        with pytest.raises(NotFound, match=f"no retention rule has the id {number}"):
            retention.end(lite, number)


def test_a_hold_that_came_first_wins(lite: Database, lite_bundle: int) -> None:
    """The transaction that erases asks again, whatever was found before it."""
    [audit_id] = finished(lite, lite_bundle, record(1))
    output_id = output(lite, audit_id).id
    holds.place(lite, HoldDraft(audit_ids=(audit_id,), reason="court"), by=BY)
    with pytest.raises(Held, match="court"), lite.writing() as session:
        erase_outputs(session, [output_id], by="request")
    assert count(lite, FlaggedText) == 1


def age(db: Database, audit_id: int, days: int) -> None:
    """Let an output have been received days ago."""
    with db.writing() as session:
        mine = FlaggedOutput.id == output(db, audit_id).id
        ago = db_after(-timedelta(days=days).total_seconds())
        session.execute(update(FlaggedOutput).where(mine).values(received_at=ago))


def test_retention(db: Database, bundle_id: int) -> None:
    """Of a class, what is old enough and not held; the tombstone names the rule; an ended rule erases nothing."""
    old, held, young, other = finished(
        db,
        bundle_id,
        *(record(number, severity="low") for number in range(3)),
        record(3, severity="high"),
    )
    for audit_id, days in ((old, 31), (held, 31), (young, 29), (other, 31)):
        age(db, audit_id, days)
    holds.place(db, HoldDraft(audit_ids=(held,), reason="court"), by=BY)
    holds.place(db, HoldDraft(outputs=OutputClass(label="user=nobody"), reason="court"), by=BY)
    outputs = OutputClass(severity="low")
    rule = retention.add(db, RetentionDraft(name="low", outputs=outputs, days=30), by=BY)
    told: list[ErasedOutput] = []
    assert retention.step(db, before=told.extend) == 1
    assert [one.completion for one in told] == ["Answer 0."]
    assert output(db, old).erased_by == "rule:low"
    for audit_id in (held, young, other):
        assert output(db, audit_id).erased_at is None
    assert retention.get(db, rule.rule_id).erased == 1
    assert retention.step(db, before=nothing) == 0
    age(db, young, 31)
    retention.end(db, rule.rule_id)
    with db.writing() as session:
        session.execute(update(RetentionRule).values(looked_at=None))
    assert retention.step(db, before=nothing) == 0
    with pytest.raises(InvalidRequest, match="named 'low' already"):
        retention.add(db, RetentionDraft(name="low", days=1), by=BY)


def test_retention_is_bounded_and_resumed(
    lite: Database, lite_bundle: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A round erases and looks at so many; the next one, by whichever sweeper, goes on behind it."""
    audit_ids = finished(lite, lite_bundle, *(record(number) for number in range(7)))
    for audit_id in audit_ids[2:]:
        age(lite, audit_id, 10)
    monkeypatch.setattr(retention, "AT_ONCE", 2)
    monkeypatch.setattr(retention, "LOOKED_AT", 3)
    retention.add(lite, RetentionDraft(name="all", days=5), by=BY)
    rounds = [retention.step(lite, before=nothing) for _ in range(6)]
    assert rounds == [1, 2, 2, 0, 0, 0]
    assert count(lite, FlaggedText) == 2


def test_trail_events_hold_no_text(lite: Database, lite_bundle: int) -> None:
    """Of holds, rules and erasures: ids, counts and names of filters."""
    accept(lite, record(1, labels={"user": "u-77"}))
    outputs = OutputClass(label="user=u-77")
    hold = holds.place(lite, HoldDraft(outputs=outputs, reason="Mrs. Marigold"), by=BY)
    holds.lift(lite, hold.hold_id, reason="Mrs. Marigold", by=BY)
    retention.add(lite, RetentionDraft(name="r", outputs=outputs, days=5), by=BY)
    asked = erasures.ask(lite, ErasureDraft(outputs=outputs, reason="Mrs. Marigold"), by=BY)
    erasures.carry_out(lite, asked, before=nothing)
    with lite.reading() as session:
        events = session.scalars(select(TrailEvent)).all()
    kinds = {one.kind for one in events}
    assert kinds >= {"hold.placed", "hold.lifted", "retention.set", "erasure.requested", "output.erased"}
    written = json.dumps([one.payload for one in events])
    assert "u-77" not in written
    assert "Marigold" not in written
