"""Which bundle audits go to: activation, retirement, and asking again under another bundle."""

import pytest
from sqlalchemy import select

from db.bundles import catalogue, routing
from db.bundles.routing import AskedAgain, Moved
from db.models import Audit, FlaggedText
from db.queues.audit_queue import AuditQueue, Finished
from db.session import Database
from db.storing.examples import CHUNK
from tests.integration.db.builders import (
    MODEL,
    accept,
    answered,
    at_once,
    audit_row,
    claim,
    claim_one,
    expire_leases,
    five_citations,
    record,
    recorded_statements,
    register,
    sha256,
)
from wherefrom.errors import BundleMismatch, UnknownBundle
from wherefrom.records import AuditState

OTHER = "another-model"


@pytest.fixture
def second(db: Database, bundle_id: int) -> int:
    """A second bundle of the same model, not active."""
    return register(db, "bundle-b", form="activation", activate=False)


def _bundles_of(db: Database, output_id: int) -> list[int | None]:
    with db.reading() as session:
        mine = select(Audit.bundle_id).where(Audit.flagged_output_id == output_id).order_by(Audit.id)
        return list(session.scalars(mine))


def test_pending_audits_follow_the_active_bundle(db: Database, bundle_id: int, second: int) -> None:
    """Pending ones move with fresh attempts; done and running ones stay, and what is running may finish."""
    (done,) = answered(db, bundle_id, record(1))
    accept(db, record(2), record(3))
    held = claim_one(db, bundle_id)
    assert routing.activate(db, second) == Moved(queued=1)
    assert audit_row(db, done).bundle_id == bundle_id
    assert audit_row(db, held.audit_id).bundle_id == bundle_id
    assert AuditQueue(db).finish([Finished(held, five_citations(), 0.1)]) == {held.audit_id}
    assert AuditQueue(db).pending_counts() == {second: 1}
    moved = claim_one(db, second)
    assert moved.record.idempotency_key == "key-3"


def test_many_pending_audits_move_in_bounded_transactions(db: Database, bundle_id: int, second: int) -> None:
    """More than one chunk, each in a transaction of its own, and none is left behind."""
    for start in range(0, CHUNK + 40, 60):
        accept(db, *(record(number) for number in range(start, start + 60)))
    pending = AuditQueue(db).pending_counts()[bundle_id]
    assert pending > CHUNK
    with recorded_statements() as statements:
        assert routing.activate(db, second) == Moved(queued=pending)
    assert sum(one.startswith("UPDATE audit") for one in statements) == 2
    assert AuditQueue(db).pending_counts() == {second: pending}


def test_a_retired_bundle_leaves_its_pending_audits_rejected_until_another_is_active(
    db: Database, bundle_id: int, second: int
) -> None:
    """They say why, new ones too, and all are queued by the next activation."""
    (old,) = accept(db, record(1))
    assert routing.retire(db, bundle_id) == Moved(without_bundle=1)
    assert old.audit_id is not None
    row = audit_row(db, old.audit_id)
    assert (row.state, row.code, row.bundle_id) == (AuditState.REJECTED, "unknown_model", None)
    assert row.reason is not None
    assert "retired" in row.reason
    (new,) = accept(db, record(2))
    assert new.code == "unknown_model"
    assert routing.retire(db, bundle_id) == Moved()
    assert routing.activate(db, second) == Moved(queued=2)
    assert {one.record.idempotency_key for one in claim(db, second).audits} == {"key-1", "key-2"}


def test_an_audit_that_comes_back_from_a_retired_bundle_moves(
    db: Database, bundle_id: int, second: int
) -> None:
    """Its worker died after the switch: the sweeper takes the lease back, and the audit goes on under the active bundle."""
    accept(db, record(1))
    held = claim_one(db, bundle_id)
    routing.activate(db, second)
    expire_leases(db)
    AuditQueue(db).release_expired(max_attempts=5)
    assert routing.move_waiting(db) == Moved(queued=1)
    assert audit_row(db, held.audit_id).bundle_id == second


def test_an_activation_that_was_cut_off_is_finished_later(db: Database, bundle_id: int, second: int) -> None:
    """The switch is one transaction, the moves are others; whoever calls next makes up for them."""
    accept(db, record(1), record(2, model=OTHER))
    with db.writing() as session:
        routing.switch_to(session, second)
    other = register(
        db,
        "bundle-c",
        model=OTHER,
        weights_sha256=sha256("other"),
        corpus_sha256=sha256("c2"),
        activate=False,
    )
    with db.writing() as session:
        routing.switch_to(session, other)
    assert routing.move_waiting(db) == Moved(queued=1)
    assert routing.queue_unrouted(db) == Moved(queued=1)
    assert AuditQueue(db).pending_counts() == {second: 1, other: 1}


def test_answered_audits_are_asked_again_beside_the_old_answer(
    db: Database, bundle_id: int, second: int
) -> None:
    """Both audits of the output stay, each with its bundle, and no activation moves the new one away."""
    (done,) = answered(db, bundle_id, record(1))
    output_id = audit_row(db, done).flagged_output_id
    assert routing.ask_again(db, second, audit_ids=[done]) == AskedAgain(asked=1)
    assert routing.ask_again(db, second, audit_ids=[done]) == AskedAgain(present=1)
    assert routing.move_waiting(db) == Moved()
    assert _bundles_of(db, output_id) == [bundle_id, second]
    again = claim_one(db, second)
    assert AuditQueue(db).finish([Finished(again, five_citations(), 0.1)]) == {again.audit_id}
    assert audit_row(db, done).state is AuditState.DONE


def test_a_whole_state_is_asked_again(db: Database, bundle_id: int, second: int) -> None:
    """All done audits of the bundle's model, and nothing of another model."""
    other = register(db, "bundle-c", model=OTHER, weights_sha256=sha256("other"), corpus_sha256=sha256("c2"))
    answered(db, bundle_id, record(1), record(2))
    answered(db, other, record(3, model=OTHER))
    assert routing.ask_again(db, second, state=AuditState.DONE) == AskedAgain(asked=2)
    assert AuditQueue(db).pending_counts() == {second: 2}


def test_what_cannot_be_asked_again_is_counted(db: Database, bundle_id: int, second: int) -> None:
    """Another model's output, an erased one, one without a bundle, and an id that does not exist."""
    (done, erased) = answered(db, bundle_id, record(1), record(2))
    (unrouted,) = accept(db, record(3, model=OTHER))
    with db.writing() as session:
        text = session.get_one(FlaggedText, audit_row(db, erased).flagged_output_id)
        session.delete(text)
    ids = [done, erased, unrouted.audit_id or 0, 4711]
    assert routing.ask_again(db, second, audit_ids=ids) == AskedAgain(asked=1, left_out=3)
    with pytest.raises(BundleMismatch, match=MODEL):
        routing.ask_again(db, second, audit_ids=[4711])


def test_unknown_bundles_are_named(db: Database) -> None:
    """Whatever is asked of them."""
    for ask in (routing.activate, routing.retire):
        with pytest.raises(UnknownBundle, match="4711"):
            ask(db, 4711)
    with pytest.raises(UnknownBundle, match="4711"):
        routing.ask_again(db, 4711, state=AuditState.DONE)
    with pytest.raises(UnknownBundle, match="worker bundles"):
        catalogue.find_bundle(db, "nobody")


def test_bundles_are_found_by_name_and_by_id(db: Database, bundle_id: int) -> None:
    """A name wins over an id."""
    assert catalogue.find_bundle(db, "bundle-a").id == bundle_id
    assert catalogue.find_bundle(db, str(bundle_id)).id == bundle_id
    named = register(db, str(bundle_id), form="activation", activate=False)
    assert catalogue.find_bundle(db, str(bundle_id)).id == named


def test_intake_beside_switches_loses_no_audit(db: Database, bundle_id: int, second: int) -> None:
    """Records come in while bundles are switched and retired: in the end every audit waits for the active one."""

    def flag(start: int) -> int:
        return sum(len(accept(db, record(number))) for number in range(start, start + 12))

    def switch() -> int:
        for _ in range(4):
            routing.activate(db, second)
            routing.activate(db, bundle_id)
            routing.retire(db, bundle_id)
        routing.activate(db, second)
        return 0

    at_once([lambda: flag(100), lambda: flag(200), switch])
    routing.move_waiting(db)
    assert AuditQueue(db).pending_counts() == {second: 24}
