"""The life of a measurement on both engines: asked for once, claimed once, fenced, and stored with its citation."""

import threading
from collections.abc import Sequence
from functools import partial

import pytest
from sqlalchemy import delete, func, select, text, update
from sqlalchemy.orm import Session

from db.audit_trail.trail import Event, record_events
from db.clock import db_after
from db.measuring import measurements
from db.models import Citation, FlaggedText, Measurement, TrailEvent
from db.queues import waiting
from db.queues.measurement_queue import MeasurementQueue
from db.queues.queue import Failure
from db.reading import reader
from db.session import Database
from tests.integration.db.builders import answered, at_once, audit_row, record
from wherefrom.errors import ATTEMPTS_EXHAUSTED, LEASE_EXPIRED, InvalidRequest, NotFound
from wherefrom.records import (
    AuditState,
    ClaimedMeasurement,
    ControlEffect,
    MeasuredEffect,
    MeasurementRecord,
    MeasurementState,
    Method,
    Tier,
)

EFFECT = MeasuredEffect(
    effect_nats=0.5,
    low_nats=0.4,
    high_nats=0.6,
    z=5.0,
    seeds=3,
    controls=(ControlEffect(example_ids=("ex-00003",), effect_nats=0.01),),
    group=("ex-00000", "ex-00004"),
    weak=False,
    cost_seconds=12.5,
)
WEAK = EFFECT.model_copy(
    update={"weak": True, "effect_nats": 0.1, "low_nats": None, "high_nats": None, "z": None}
)


@pytest.fixture
def audit_id(db: Database, bundle_id: int) -> int:
    """An answered audit with four citations and an opponent."""
    (number,) = answered(db, bundle_id, record(1, severity="high"))
    return number


def ask(db: Database, audit_id: int, rank: int = 1, method: Method = Method.REFIT) -> MeasurementRecord:
    """A measurement that somebody asked for."""
    return measurements.request_measurement(
        db, audit_id=audit_id, rank=rank, method=method, requested_by="auditor"
    )


def take(db: Database, bundle_id: int, owner: str = "m1", max_attempts: int = 5) -> ClaimedMeasurement:
    """A claim that must find something."""
    taken = MeasurementQueue(db).claim(bundle_id, owner=owner, lease_s=60, max_attempts=max_attempts)
    assert taken is not None
    return taken


def expire(db: Database) -> None:
    """As if the owner had been silent for longer than its lease."""
    with db.writing() as session:
        session.execute(
            update(Measurement).where(Measurement.lease_until.is_not(None)).values(lease_until=db_after(-1))
        )


def test_from_question_to_effect(db: Database, bundle_id: int, audit_id: int) -> None:
    """Asked for, claimed with all that the meter needs, stored, and shown with the citation as tier `measured`."""
    asked = ask(db, audit_id)
    assert (asked.state, asked.weak, asked.requested_by) == (MeasurementState.PENDING, False, "auditor")
    assert MeasurementQueue(db).pending_counts() == {bundle_id: 1}
    claimed = take(db, bundle_id)
    assert (claimed.audit_id, claimed.rank, claimed.example_id) == (audit_id, 1, "ex-00000")
    assert (claimed.bundle_name, claimed.method, claimed.attempt) == ("bundle-a", Method.REFIT, 1)
    assert claimed.record is not None
    assert (claimed.record.completion, claimed.record.severity) == ("Answer 1.", "high")
    assert MeasurementQueue(db).pending_counts() == {}
    assert MeasurementQueue(db).finish(claimed, EFFECT)
    detail = reader.get_audit(db, audit_id)
    first, second = detail.citations[:2]
    assert (first.tier, first.measured_effect_nats) == (Tier.MEASURED, 0.5)
    assert (first.measured_low_nats, first.measured_high_nats) == (0.4, 0.6)
    assert (second.tier, second.measured_effect_nats) == (Tier.INFLUENCE, None)
    (stored,) = detail.measurements
    assert stored.state is MeasurementState.DONE
    assert stored.model_dump(include=set(MeasuredEffect.model_fields)) == EFFECT.model_dump()
    assert measurements.get_measurement(db, stored.measurement_id) == stored
    with db.reading() as session:
        kinds = session.scalars(select(TrailEvent.kind).where(TrailEvent.subject.like("measurement:%")))
        assert kinds.all() == ["measurement.requested", "measurement.finished"]


def test_asking_again_changes_nothing(db: Database, bundle_id: int, audit_id: int) -> None:
    """However often and from however many at once: one measurement per citation and method."""
    numbers = at_once([lambda: ask(db, audit_id).measurement_id] * 6)
    assert len(set(numbers)) == 1
    assert ask(db, audit_id, method=Method.ONE_STEP).measurement_id not in numbers
    claimed = take(db, bundle_id)
    assert ask(db, audit_id).state is MeasurementState.RUNNING
    MeasurementQueue(db).finish(claimed, EFFECT)
    assert ask(db, audit_id).state is MeasurementState.DONE
    with db.reading() as session:
        requested = select(func.count()).where(TrailEvent.kind == "measurement.requested")
        assert session.scalar(requested) == 2


def test_a_dead_one_is_queued_again_with_fresh_attempts(db: Database, bundle_id: int, audit_id: int) -> None:
    """After the cause was mended, asking again is the way to try again."""
    ask(db, audit_id)
    claimed = take(db, bundle_id)
    MeasurementQueue(db).fail(
        claimed.lease, Failure("internal_error", "bug", retry_in_s=None), max_attempts=1
    )
    (dead,) = reader.get_audit(db, audit_id).measurements
    assert (dead.state, dead.code, dead.reason) == (MeasurementState.DEAD, "internal_error", "bug")
    again = ask(db, audit_id)
    assert (again.state, again.code, again.attempt) == (MeasurementState.PENDING, None, 1)
    assert take(db, bundle_id, max_attempts=1).attempt == 2


def test_what_cannot_be_measured_is_refused(db: Database, audit_id: int) -> None:
    """No such citation; an erased output."""
    for wrong, rank in ((999, 1), (audit_id, 9)):
        with pytest.raises(NotFound):
            ask(db, wrong, rank=rank)
    with db.writing() as session:
        session.execute(delete(FlaggedText))
    with pytest.raises(InvalidRequest, match="erased"):
        ask(db, audit_id)


def test_a_text_erased_after_the_question_is_told(db: Database, bundle_id: int, audit_id: int) -> None:
    """The claim has no record then; the worker makes it dead."""
    ask(db, audit_id)
    with db.writing() as session:
        session.execute(delete(FlaggedText))
    assert take(db, bundle_id).record is None


def test_two_workers_never_hold_the_same(db: Database, bundle_id: int, audit_id: int) -> None:
    """Eight claim at once, four are there: each goes to one of them."""
    for rank in (1, 2, 3, 4):
        ask(db, audit_id, rank)
    claim = partial(MeasurementQueue(db).claim, bundle_id, lease_s=60, max_attempts=5)
    taken = at_once([partial(claim, owner=f"w{number}") for number in range(8)])
    numbers = [one.measurement_id for one in taken if one is not None]
    assert sorted(numbers) == sorted(set(numbers))
    assert len(numbers) == 4


def test_a_late_worker_is_fenced(db: Database, bundle_id: int, audit_id: int) -> None:
    """Its effect, its failure and its heartbeat change nothing; the citation holds the other's effect."""
    ask(db, audit_id)
    late = take(db, bundle_id, "late")
    assert MeasurementQueue(db).extend([late.lease], lease_s=60)
    expire(db)
    current = take(db, bundle_id, "current")
    assert not MeasurementQueue(db).extend([late.lease], lease_s=60)
    assert not MeasurementQueue(db).finish(late, EFFECT.model_copy(update={"effect_nats": 9.0}))
    lost = MeasurementQueue(db).fail(late.lease, Failure("x", "x", retry_in_s=1), max_attempts=5)
    assert lost is None
    assert MeasurementQueue(db).finish(current, EFFECT)
    assert not MeasurementQueue(db).finish(current, EFFECT)
    assert reader.get_audit(db, audit_id).citations[0].measured_effect_nats == 0.5


def test_transient_failures_wait_and_end(db: Database, bundle_id: int, audit_id: int) -> None:
    """Pending with a time to wait; dead when the attempts are spent."""
    ask(db, audit_id)
    failure = Failure("out_of_memory", "no room", retry_in_s=60)
    fail = partial(MeasurementQueue(db).fail, failure=failure, max_attempts=2)
    assert fail(take(db, bundle_id).lease) is MeasurementState.PENDING
    assert MeasurementQueue(db).pending_counts() == {}, "it is not due yet"
    with db.writing() as session:
        session.execute(update(Measurement).values(next_attempt_at=db_after(-1)))
    assert fail(take(db, bundle_id).lease) is MeasurementState.DEAD
    (dead,) = reader.get_audit(db, audit_id).measurements
    assert (dead.code, "out_of_memory: no room" in (dead.reason or "")) == (ATTEMPTS_EXHAUSTED, True)


def test_the_sweeper_takes_expired_leases_back(db: Database, bundle_id: int, audit_id: int) -> None:
    """To the queue, and dead when it happens too often; a living lease is left alone."""
    ask(db, audit_id)
    take(db, bundle_id)
    assert MeasurementQueue(db).release_expired(max_attempts=2) == 0
    for expected in (MeasurementState.PENDING, MeasurementState.DEAD):
        expire(db)
        assert MeasurementQueue(db).release_expired(max_attempts=2) == 1
        (one,) = reader.get_audit(db, audit_id).measurements
        assert one.state is expected
        if expected is MeasurementState.PENDING:
            take(db, bundle_id, max_attempts=2)
    assert one.code == LEASE_EXPIRED
    assert measurements.measurement_counts(db)[MeasurementState.DEAD] == 1


@pytest.mark.parametrize("weak_first", [True, False])
def test_a_weak_method_never_hides_a_retraining(
    db: Database, bundle_id: int, audit_id: int, weak_first: bool
) -> None:
    """Whichever ends first, the citation shows what the retraining found; alone, a weak one is shown."""
    methods = [Method.UNLEARN, Method.REFIT] if weak_first else [Method.REFIT, Method.UNLEARN]
    for method in methods:
        ask(db, audit_id, method=method)
        effect = EFFECT if method is Method.REFIT else WEAK
        assert MeasurementQueue(db).finish(take(db, bundle_id), effect)
        if method is Method.UNLEARN and weak_first:
            assert reader.get_audit(db, audit_id).citations[0].measured_effect_nats == 0.1
    assert reader.get_audit(db, audit_id).citations[0].measured_effect_nats == 0.5


@pytest.mark.parametrize("weak_last", [True, False])
def test_two_methods_that_end_together(  # noqa: PLR0917 - fixtures
    db: Database, bundle_id: int, audit_id: int, weak_last: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second finishes while the first has not committed: the citation shows what the retraining found."""
    methods = [Method.REFIT, Method.UNLEARN] if weak_last else [Method.UNLEARN, Method.REFIT]
    taken = []
    for method in methods:
        ask(db, audit_id, method=method)
        taken.append(take(db, bundle_id))

    def finish(one: ClaimedMeasurement) -> bool:
        return MeasurementQueue(db).finish(one, EFFECT if one.method is Method.REFIT else WEAK)

    at_commit, second_ended = threading.Event(), threading.Event()

    def linger(session: Session, events: Sequence[Event]) -> None:
        """The first one waits after its last statement; with the mend the second cannot end meanwhile."""
        record_events(session, events)
        if not at_commit.is_set():
            at_commit.set()
            second_ended.wait(0.5)

    def follow() -> bool:
        assert at_commit.wait(30)
        stored = finish(taken[1])
        second_ended.set()
        return stored

    monkeypatch.setattr("db.queues.measurement_queue.record_events", linger)
    assert at_once([lambda: finish(taken[0]), follow]) == [True, True]
    shown = reader.get_audit(db, audit_id).citations[0]
    assert (shown.measured_effect_nats, shown.measured_low_nats) == (0.5, 0.4)


def test_an_abstained_audit_with_measurements_can_be_requeued(
    db: Database, bundle_id: int, audit_id: int
) -> None:
    """Its citations go and their measurements with them; a worker that still measures is fenced."""
    ask(db, audit_id)
    claimed = take(db, bundle_id)
    with db.writing() as session:
        session.execute(text("UPDATE audit SET state = 'abstained'"))
    assert waiting.requeue(db, state=AuditState.ABSTAINED) == 1
    assert audit_row(db, audit_id).state is AuditState.PENDING
    assert not MeasurementQueue(db).finish(claimed, EFFECT)
    with db.reading() as session:
        assert session.scalar(select(func.count()).select_from(Citation)) == 0
