"""Audits that end without an answer: rejected, failed, tried again, asked anew by the operator."""

import pytest
from sqlalchemy import select

from db.models import Audit
from db.queues import waiting
from db.queues.audit_queue import AuditQueue, Finished
from db.queues.queue import Failure
from db.session import Database
from tests.integration.db.builders import (
    OWNER,
    accept,
    answered,
    audit_row,
    claim,
    claim_one,
    five_citations,
    make_due,
    record,
)
from tests.integration.db.test_finish import _citations_per_audit, _finish
from wherefrom.errors import ConfigurationError
from wherefrom.records import AuditState


def test_reject_closes_with_code_and_reason(db: Database, bundle_id: int) -> None:
    """Permanent errors end the audit; NUL in a reason does not."""
    accept(db, record())
    claimed = claim_one(db, bundle_id)
    theirs = claimed.lease.model_copy(update={"owner": "other"})
    assert not AuditQueue(db).fail(theirs, Failure("output_too_long", "no", refused=True), max_attempts=5)
    assert AuditQueue(db).fail(
        claimed.lease, Failure("output_too_long", "5000 tokens\x00", refused=True), max_attempts=5
    )
    row = audit_row(db, claimed.audit_id)
    assert (row.state, row.code, row.reason) == (AuditState.REJECTED, "output_too_long", "5000 tokens\ufffd")


def test_fail_waits_for_its_retry_time(db: Database, bundle_id: int) -> None:
    """A transient failure: pending, but not claimable before its time."""
    accept(db, record())
    claimed = claim_one(db, bundle_id)
    state = AuditQueue(db).fail(
        claimed.lease, Failure("out_of_memory", "full", retry_in_s=60), max_attempts=3
    )
    assert state is AuditState.PENDING
    row = audit_row(db, claimed.audit_id)
    assert (row.code, row.reason, row.attempt) == ("out_of_memory", "full", 1)
    assert AuditQueue(db).claim(bundle_id, limit=1, owner=OWNER, lease_s=60) is None
    make_due(db)
    assert claim_one(db, bundle_id).attempt == 2
    assert (
        AuditQueue(db).fail(claimed.lease, Failure("out_of_memory", "full", retry_in_s=60), max_attempts=3)
        is None
    )


def test_a_retry_at_once_is_claimable_at_once(db: Database, bundle_id: int) -> None:
    """`retry_in_s` of 0 means now."""
    accept(db, record())
    AuditQueue(db).fail(claim_one(db, bundle_id).lease, Failure("x", "y", retry_in_s=0), max_attempts=3)
    assert claim_one(db, bundle_id).attempt == 2


def test_fail_is_dead_when_attempts_are_spent(db: Database, bundle_id: int) -> None:
    """The last attempt: dead, the last failure in the reason."""
    accept(db, record())
    AuditQueue(db).fail(
        claim_one(db, bundle_id).lease, Failure("out_of_memory", "full", retry_in_s=0), max_attempts=2
    )
    last = claim_one(db, bundle_id)
    state = AuditQueue(db).fail(last.lease, Failure("disk_full", "no room", retry_in_s=0), max_attempts=2)
    assert state is AuditState.DEAD
    row = audit_row(db, last.audit_id)
    assert row.code == "attempts_exhausted"
    assert row.reason == "2 attempts failed, the last with disk_full: no room"


def test_fail_without_retry_is_dead_at_once(db: Database, bundle_id: int) -> None:
    """A bug: dead with its own code at the first attempt."""
    accept(db, record())
    claimed = claim_one(db, bundle_id)
    state = AuditQueue(db).fail(
        claimed.lease, Failure("internal_error", "KeyError", retry_in_s=None), max_attempts=5
    )
    assert state is AuditState.DEAD
    assert audit_row(db, claimed.audit_id).code == "internal_error"


def test_requeue_gives_fresh_attempts_and_keeps_the_fence(db: Database, bundle_id: int) -> None:
    """Dead audits are pending again; the attempt goes on growing, so a zombie stays fenced."""
    accept(db, record(1), record(2))
    zombie, other = claim(db, bundle_id).audits
    for one in (zombie, other):
        AuditQueue(db).fail(one.lease, Failure("x", "y", retry_in_s=0), max_attempts=1)
    assert waiting.requeue(db, audit_ids=[zombie.audit_id, 4711]) == 1
    assert waiting.requeue(db, state=AuditState.DEAD) == 1
    again = claim_one(db, bundle_id)
    assert (again.audit_id, again.attempt) == (zombie.audit_id, 2)
    assert not _finish(db, zombie)
    assert (
        AuditQueue(db).fail(again.lease, Failure("x", "y", retry_in_s=0), max_attempts=2)
        is AuditState.PENDING
    )


def test_requeue_drops_the_earlier_answer(db: Database, bundle_id: int) -> None:
    """An abstained audit with citations can be answered again; a done one stays as it is."""
    accept(db, record(1))
    claimed = claim_one(db, bundle_id)
    half = Finished(claimed, five_citations(), 0.1, AuditState.ABSTAINED, "no_evidence", "weak")
    AuditQueue(db).finish([half])
    (done,) = answered(db, bundle_id, record(2))
    assert waiting.requeue(db, audit_ids=[claimed.audit_id, done]) == 1
    assert _citations_per_audit(db) == [5]
    assert _finish(db, claim_one(db, bundle_id))
    assert _citations_per_audit(db) == [5, 5]


def test_requeue_leaves_alone_what_waits_for_a_bundle(db: Database) -> None:
    """Without a bundle there is nothing to be pending for."""
    accept(db, record())
    assert waiting.requeue(db, state=AuditState.REJECTED) == 0


@pytest.mark.parametrize(
    "arguments", [{}, {"audit_ids": [1], "state": AuditState.DEAD}, {"state": AuditState.DONE}]
)
def test_requeue_refuses_what_it_cannot_do(db: Database, arguments: dict[str, object]) -> None:
    """Ids or a state, and a state that can be requeued."""
    with pytest.raises(ConfigurationError):
        waiting.requeue(db, **arguments)  # type: ignore[arg-type]  # one mapping for several types of argument


def test_audits_count_their_own_attempts(db: Database, bundle_id: int) -> None:
    """Failing one audit does not touch the others."""
    accept(db, record(1), record(2))
    first, second = claim(db, bundle_id).audits
    AuditQueue(db).fail(first.lease, Failure("x", "y", retry_in_s=60), max_attempts=5)
    assert _finish(db, second)
    with db.reading() as session:
        assert session.scalars(select(Audit.state).order_by(Audit.id)).all() == [
            AuditState.PENDING,
            AuditState.DONE,
        ]
