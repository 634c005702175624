"""Accepting flagged outputs: once per key, whole or not at all, routed to the active bundle."""

from functools import partial

import pytest
from sqlalchemy import select

from db.models import Audit, FlaggedOutput, FlaggedText, TrailEvent
from db.queues.audit_queue import AuditQueue
from db.session import Database
from db.storing import intake
from tests.integration.db.builders import MODEL, accept, at_once, audit_row, claim, count, record, register
from wherefrom.records import AuditState, Severity


def test_accepted_is_an_output_its_text_and_a_pending_audit(db: Database, bundle_id: int) -> None:
    """One record makes one row of each, and a trail event."""
    (result,) = accept(db, record())
    assert (result.status, result.state, result.idempotency_key) == ("accepted", AuditState.PENDING, "key-0")
    assert [count(db, model) for model in (FlaggedOutput, FlaggedText, Audit)] == [1, 1, 1]
    assert result.audit_id is not None
    assert audit_row(db, result.audit_id).bundle_id == bundle_id
    with db.reading() as session:
        assert "output.accepted" in session.scalars(select(TrailEvent.kind)).all()


def test_same_key_and_content_is_a_duplicate_with_the_same_ids(db: Database, bundle_id: int) -> None:
    """The second answer is the first one again; nothing is stored."""
    (first,) = accept(db, record())
    (second,) = accept(db, record())
    assert second.status == "duplicate"
    assert (second.output_id, second.audit_id) == (first.output_id, first.audit_id)
    assert count(db, Audit) == 1


def test_same_key_with_other_content_is_a_conflict(db: Database, bundle_id: int) -> None:
    """The first content stays; the answer carries the code and no ids."""
    accept(db, record())
    (result,) = accept(db, record(completion="Something else."))
    assert (result.status, result.code, result.audit_id) == ("conflict", "idempotency_conflict", None)
    assert count(db, FlaggedOutput) == 1


def test_keys_repeat_within_one_call(db: Database, bundle_id: int) -> None:
    """The first of equal keys is taken, the others are answered by it."""
    results = accept(db, record(1), record(2), record(1), record(2, completion="Other."))
    assert [one.status for one in results] == ["accepted", "accepted", "duplicate", "conflict"]
    assert results[2].audit_id == results[0].audit_id


def test_producers_do_not_share_keys(db: Database, bundle_id: int) -> None:
    """A key is unique per producer."""
    assert accept(db, record(), producer="a")[0].status == "accepted"
    assert accept(db, record(), producer="b")[0].status == "accepted"


def test_a_missing_key_is_made(db: Database, bundle_id: int) -> None:
    """Two records without a key are two outputs, each with a key to name it by."""
    results = accept(db, record(idempotency_key=None), record(idempotency_key=None))
    assert len({one.idempotency_key for one in results}) == 2


def test_no_records_need_no_rows(db: Database) -> None:
    """An empty call answers with nothing."""
    assert accept(db) == []


def test_audits_keep_the_order_of_the_call(db: Database, bundle_id: int) -> None:
    """Keys in any order: audits of one call are numbered as they were given."""
    results = accept(db, record(9), record(3), record(7))
    ids = [one.audit_id for one in results]
    assert ids == sorted(ids, key=lambda one: one or 0)


def test_unknown_model_waits_and_is_queued_when_a_bundle_comes(db: Database) -> None:
    """Accepted, but rejected with a code; registering a bundle for the model makes it pending under that bundle."""
    (known, other) = accept(db, record(1), record(2, model="another"))
    assert (known.status, known.state, known.code) == ("accepted", AuditState.REJECTED, "unknown_model")
    assert known.reason is not None
    assert MODEL in known.reason
    bundle_id = register(db)
    assert [one.audit_id for one in claim(db, bundle_id).audits] == [known.audit_id]
    assert other.audit_id is not None
    assert audit_row(db, other.audit_id).state is AuditState.REJECTED
    assert accept(db, record(1))[0].state is AuditState.RUNNING


def test_severity_decides_the_order(db: Database, bundle_id: int) -> None:
    """Critical first, low last, and within one severity the oldest first."""
    severities = [Severity.LOW, Severity.MEDIUM, Severity.CRITICAL, Severity.HIGH, Severity.CRITICAL]
    accept(db, *(record(number, severity=one) for number, one in enumerate(severities)))
    keys = [one.record.idempotency_key for one in claim(db, bundle_id).audits]
    assert keys == ["key-2", "key-4", "key-3", "key-1", "key-0"]


def test_the_same_keys_from_many_threads_are_stored_once(db: Database, bundle_id: int) -> None:
    """Eight callers with the same records in different orders: each record is accepted once, all get the same ids."""
    records = [record(number) for number in range(20)]
    orders = [records, records[::-1]] * 4
    answers = at_once([partial(accept, db, *order) for order in orders])
    assert count(db, Audit) == len(records)
    flat = [one for answer in answers for one in answer]
    assert sum(one.status == "accepted" for one in flat) == len(records)
    assert {one.status for one in flat} == {"accepted", "duplicate"}
    assert len({(one.idempotency_key, one.audit_id) for one in flat}) == len(records)


def test_a_bundle_that_comes_meanwhile_leaves_no_audit_behind(db: Database) -> None:
    """Intake and registration at once: in the end every audit can be claimed."""

    def flag(number: int) -> int:
        accept(db, record(number))
        return 0

    at_once([partial(register, db), *(partial(flag, number) for number in range(6))])
    assert sum(AuditQueue(db).pending_counts().values()) == 6


@pytest.mark.parametrize("size", [1, 1200])
def test_large_calls_do_not_meet_the_variable_limit(db: Database, bundle_id: int, size: int) -> None:
    """More rows than one statement's variables allow, new and again."""
    records = [record(number) for number in range(size)]
    assert {one.status for one in accept(db, *records)} == {"accepted"}
    assert {one.status for one in accept(db, *records)} == {"duplicate"}


def test_evidence_comes_back_as_it_was_given(db: Database, bundle_id: int) -> None:
    """Control, bidi, zero-width and astral characters, labels, spans and times survive the way through SQL."""
    nasty = "a\x01\x1b[31m\u202eevil\u2066\u200b\ufeff\r\n\t\U0001f9e8\u0301 'quote\" \\ %s :x {}"
    given = record(
        prompt=None,
        messages=[{"role": "system", "content": nasty}, {"role": "user", "content": "hi"}],
        completion=nasty,
        token_ids=[0, 5, 70000],
        labels={"ключ": nasty},
        spans=[{"start": 0, "end": 3}],
        preferred=nasty,
        occurred_at="2026-01-31T12:00:00.123456+05:30",
    )
    accept(db, given)
    (one,) = claim(db, bundle_id).audits
    assert one.record == given


def test_database_defaults_are_the_databases_clock(db: Database, bundle_id: int) -> None:
    """`intake` writes no time of its own machine."""
    (result,) = intake.accept(db, [record()], producer="local", channel="stream")
    assert result.audit_id is not None
    assert audit_row(db, result.audit_id).created_at.tzinfo is not None
