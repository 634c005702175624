"""The life of a group's measurement on both engines: asked for once, claimed after those of citations, fenced, stored and shown."""

import pytest
from sqlalchemy import delete, select

from db.measuring import group_measurements, measurements, measuring_checks
from db.models import FlaggedText, TrailEvent
from db.queues.group_queue import KEPT_IDS
from db.queues.measurement_queue import MeasurementQueue
from db.queues.queue import Failure
from db.reading import reader
from db.session import Database
from tests.integration.db.builders import answered, at_once, record, recorded_statements
from wherefrom.errors import InvalidRequest, NotFound
from wherefrom.records import (
    ClaimedGroup,
    ControlEffect,
    ExpectedCost,
    GroupMeasurementRecord,
    GroupRequest,
    MeasuredEffect,
    MeasurementRecord,
    MeasurementState,
    MeasuringCheck,
    Method,
)

LIST = GroupRequest(example_ids=("ex-00003", "ex-00001"))
SOURCE = GroupRequest(source="forum")
EFFECT = MeasuredEffect(
    effect_nats=0.5,
    low_nats=0.4,
    high_nats=0.6,
    z=5.0,
    seeds=3,
    controls=(ControlEffect(example_ids=("ex-00005", "ex-00006"), effect_nats=0.01),),
    controls_mean_nats=0.02,
    group=("ex-00001", "ex-00003"),
    weak=False,
    cost_seconds=12.5,
)


@pytest.fixture
def audit_id(db: Database, bundle_id: int) -> int:
    """An answered audit."""
    (number,) = answered(db, bundle_id, record(1))
    return number


def ask(db: Database, audit_id: int, request: GroupRequest = LIST) -> GroupMeasurementRecord:
    """A measurement that somebody asked for."""
    return group_measurements.request_group(db, audit_id=audit_id, request=request, requested_by="auditor")


def take(db: Database, bundle_id: int) -> ClaimedGroup:
    """A claim that must find something."""
    taken = MeasurementQueue(db).groups.claim(bundle_id, owner="m1", lease_s=60, max_attempts=5)
    assert taken is not None
    return taken


def test_from_question_to_effect(db: Database, bundle_id: int, audit_id: int) -> None:
    """Asked for by ids, claimed with the output, stored, and read with the audit, which costs as many statements as before."""
    asked = ask(db, audit_id)
    assert (asked.state, asked.requested_by) == (MeasurementState.PENDING, "auditor")
    assert asked.request.example_ids == ("ex-00001", "ex-00003")
    assert MeasurementQueue(db).pending_counts() == {bundle_id: 1}
    assert MeasurementQueue(db).claim(bundle_id, owner="m", lease_s=60) is None
    claimed = take(db, bundle_id)
    assert (claimed.audit_id, claimed.request.source) == (audit_id, None)
    assert claimed.record is not None
    assert MeasurementQueue(db).groups.finish(claimed, EFFECT)
    assert not MeasurementQueue(db).groups.finish(claimed, EFFECT), "fenced"
    measurements.request_measurement(db, audit_id=audit_id, rank=1, method=Method.REFIT, requested_by="a")
    with recorded_statements() as statements:
        detail = reader.get_audit(db, audit_id)
    assert len(statements) == 3, statements
    (stored,), (single,) = detail.group_measurements, detail.measurements
    assert (stored.effect_nats, stored.z, stored.group_size, stored.group) == (0.5, 5.0, 2, EFFECT.group)
    assert (stored.controls, stored.controls_mean_nats) == (EFFECT.controls, 0.02)
    assert stored == group_measurements.get_group_measurement(db, stored.measurement_id)
    assert (single.rank, single.state) == (1, MeasurementState.PENDING)
    counts = measurements.measurement_counts(db)
    assert (counts[MeasurementState.DONE], counts[MeasurementState.PENDING]) == (1, 1)
    with db.reading() as session:
        wanted = select(TrailEvent.kind).where(TrailEvent.subject.like("group_measurement:%"))
        assert session.scalars(wanted.order_by(TrailEvent.id)).all() == [
            "measurement.requested",
            "measurement.finished",
        ]


def test_the_same_question_is_one_measurement(db: Database, audit_id: int) -> None:
    """Whatever the order of the ids, and from however many at once; another list or a source is another one."""
    turned = GroupRequest(example_ids=("ex-00001", "ex-00003", "ex-00001"))
    numbers = {
        *at_once([lambda: ask(db, audit_id).measurement_id] * 4),
        ask(db, audit_id, turned).measurement_id,
    }
    assert len(numbers) == 1
    assert ask(db, audit_id, SOURCE).measurement_id not in numbers
    assert ask(db, audit_id, SOURCE).request == SOURCE


def test_asking_again_says_why_it_failed(db: Database, bundle_id: int, audit_id: int) -> None:
    """Of groups and of citations: the new question is pending with all attempts, and the old reason stands beside it until it is done."""
    ask(db, audit_id)
    claimed = take(db, bundle_id)
    failure = Failure("configuration", "no layers", retry_in_s=None)
    MeasurementQueue(db).groups.fail(claimed.lease, failure, max_attempts=5)
    assert reader.get_audit(db, audit_id).group_measurements[0].code == "configuration"
    again = ask(db, audit_id)
    assert (again.state, again.code, again.last_code) == (MeasurementState.PENDING, None, "configuration")
    assert again.last_reason == "no layers"

    def single() -> MeasurementRecord:
        return measurements.request_measurement(
            db, audit_id=audit_id, rank=1, method=Method.REFIT, requested_by="a"
        )

    single()
    taken = MeasurementQueue(db).claim(bundle_id, owner="m", lease_s=60)
    assert taken is not None
    MeasurementQueue(db).fail(taken.lease, failure, max_attempts=5)
    assert single().last_reason == "no layers"


def test_a_large_group_is_stored_by_its_size_and_its_first_ids(
    db: Database, bundle_id: int, audit_id: int
) -> None:
    """Thousands of ids would make every page of the audit heavy."""
    ask(db, audit_id, SOURCE)
    many = tuple(f"ex-{number}" for number in range(KEPT_IDS + 50))
    effect = EFFECT.model_copy(
        update={"group": many, "controls": (ControlEffect(example_ids=many, effect_nats=0.1),)}
    )
    MeasurementQueue(db).groups.finish(take(db, bundle_id), effect)
    (stored,) = reader.get_audit(db, audit_id).group_measurements
    assert (stored.group_size, stored.group) == (KEPT_IDS + 50, many[:KEPT_IDS])
    assert stored.controls[0].example_ids == many[:KEPT_IDS]


def test_what_cannot_be_measured_is_refused(db: Database, audit_id: int) -> None:
    """No such audit; an erased output; ids that no database can hold are stored readably."""
    with pytest.raises(NotFound):
        ask(db, 999)
    assert ask(db, audit_id, GroupRequest(source="a\x00b")).request.source == "a\ufffdb"
    with db.writing() as session:
        session.execute(delete(FlaggedText))
    with pytest.raises(InvalidRequest, match="erased"):
        ask(db, audit_id)


def test_the_check_of_a_measurer_is_read_by_audit(db: Database, bundle_id: int, audit_id: int) -> None:
    """The last one counts."""
    assert measuring_checks.of_audit(db, audit_id) is None
    cost = ExpectedCost(trainings=15, seconds=90.5, memory_bytes=2**33, tokens=1000, timed=False)
    for check in (MeasuringCheck(code="configuration", reason="rank 8"), MeasuringCheck(cost=cost)):
        measuring_checks.save(db, bundle_id, check)
        assert measuring_checks.of_audit(db, audit_id) == check
