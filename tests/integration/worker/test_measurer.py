"""Measuring in the service: hints, claims, failures of every kind, and a real worker that is killed while it measures."""

import pickle
import threading

import pytest
from sqlalchemy import text

from db.bundles import catalogue
from db.measuring import group_measurements, measurements
from db.queues.audit_queue import AuditQueue, Finished
from db.queues.measurement_queue import MeasurementQueue
from db.reading import reader
from db.storing import intake
from tasks.measure import work_measure_hint
from tests.integration.worker.conftest import examples
from tests.integration.worker.processes import run_worker_command
from tests.overlap_engine import OverlapAttributor, OverlapEffectMeter, OverlapEngine
from wherefrom.errors import ConfigurationError, MeasuringUnavailable, OutOfMemory
from wherefrom.records import FlaggedRecord, GroupRequest, MeasurementState, Method, Query, Tier
from wherefrom.retraining.recipe import Recipe, write_recipe
from worker.app import Role, make_celery
from worker.pool.effect_meter import open_meter
from worker.pool.measurer import MeasurerWatchdog
from worker.pool.measurer_runtime import MeasurerRuntime
from worker.vitals.liveness import LOADING_S

pytestmark = pytest.mark.redis

COMPLETION = "refunds take ten days and the battery"


@pytest.fixture
def measuring(settings, tmp_path):
    """Settings with a recipe; the overlap bundle needs no more of it than that it is there."""
    recipe = tmp_path / "recipe.json"
    write_recipe(recipe, Recipe())
    return settings.model_copy(update={"recipe": recipe, "measure_dir": tmp_path / "measured"})


@pytest.fixture
def audit_id(database, bundle_id):
    """An answered audit of the overlap bundle."""
    intake.accept(
        database,
        [FlaggedRecord(prompt="p", completion=COMPLETION, model="tiny@1")],
        producer="p",
        channel="cli",
    )
    taken = AuditQueue(database).claim(bundle_id, limit=1, owner="w", lease_s=60)
    assert taken is not None
    engine = OverlapAttributor("overlap-test", examples())
    query = Query.from_record("q", taken.audits[0].record)
    [answer] = engine.attribute(
        [engine.prepare(query, max_tokens=99, over_long="reject")], top_k=4, opponents=0
    )
    AuditQueue(database).finish([Finished(taken.audits[0], answer, 0.1)])
    return taken.audits[0].audit_id


def ask(database, audit_id, rank=1, method=Method.REFIT):
    """A measurement that somebody asked for."""
    return measurements.request_measurement(
        database, audit_id=audit_id, rank=rank, method=method, requested_by="me"
    )


class BrokenMeter(OverlapEffectMeter):
    """Raises instead of measuring."""

    def __init__(self, error):
        super().__init__(examples())
        self._error = error

    def measure(self, query, example_id, *, method, keep_going):
        """Fail."""
        raise self._error


class WithMeter(OverlapEngine):
    """The engine with a meter of the test's own."""

    def __init__(self, settings, meter):
        super().__init__(settings)
        self._meter = meter

    def open_meter(self, bundle):
        """The test's meter."""
        del bundle
        return self._meter


@pytest.fixture
def make_runtime(measuring, database, parts):
    """Makes the runtime of a measuring process, with a meter of the test's own where one is given."""

    def make(meter=None, settings=measuring):
        engine = OverlapEngine(settings) if meter is None else WithMeter(settings, meter)
        hints = parts.measure_hints(settings=settings)
        return MeasurerRuntime(settings, database=database, hints=hints, metrics=parts.metrics, engine=engine)

    return make


def only(database, audit_id):
    """The audit's one measurement."""
    (one,) = reader.get_audit(database, audit_id).measurements
    return one


def test_a_hint_measures_one_and_passes_the_hint_on(make_runtime, database, audit_id, bundle_id, client):  # noqa: PLR0917 - fixtures
    """Two were asked for: the first hint measures the older one and leaves a hint for the other."""
    ask(database, audit_id, 1)
    ask(database, audit_id, 2)
    runtime = make_runtime()
    assert work_measure_hint({"bundle_id": bundle_id}, runtime) is MeasurementState.DONE
    detail = reader.get_audit(database, audit_id)
    assert [one.tier for one in detail.citations[:2]] == [Tier.MEASURED, Tier.RETRIEVED]
    done, waiting = detail.measurements
    assert (done.state, done.seeds, len(done.controls)) == (MeasurementState.DONE, 3, 3)
    assert done.effect_nats == pytest.approx(4 / 7), "four of its seven words stand in no other example"
    assert waiting.state is MeasurementState.PENDING
    assert client.llen("t:measure") == 1
    assert client.llen("t:attribute") == 0
    assert work_measure_hint({"bundle_id": bundle_id}, runtime) is MeasurementState.DONE
    assert work_measure_hint({"bundle_id": bundle_id}, runtime) is None


@pytest.mark.parametrize(
    "message", [{}, {"bundle_id": "x"}, {"bundle_id": 0}, {"bundle_id": 1, "code": "rm"}]
)
def test_rubbish_is_dropped(make_runtime, message):
    """A forged hint measures nothing."""
    assert work_measure_hint(message, make_runtime()) is None


@pytest.mark.parametrize(
    ("error", "state", "code"),
    [
        (ConfigurationError("the recipe does not suit the model"), "dead", "configuration"),
        (OutOfMemory("no room"), "pending", "out_of_memory"),
        (MemoryError(), "pending", "out_of_memory"),
        (ZeroDivisionError("secret output"), "dead", "internal_error"),
    ],
)
def test_what_becomes_of_a_failure(make_runtime, database, audit_id, bundle_id, error, state, code):  # noqa: PLR0917 - fixtures
    """Permanent errors and bugs end it with their code, transient ones wait; a bug's text is not stored."""
    ask(database, audit_id)
    ended = work_measure_hint({"bundle_id": bundle_id}, make_runtime(BrokenMeter(error)))
    assert ended is not None
    assert ended.value == state
    one = only(database, audit_id)
    assert (one.state.value, one.code) == (state, code)
    assert "secret" not in (one.reason or "")


def test_a_measurement_lost_to_another_worker_stops_between_two_runs(  # noqa: PLR0917 - fixtures
    make_runtime, database, audit_id, bundle_id, measuring
):
    """The heartbeat sees that the lease is another's; the rest of the runs is not done, and nothing is stored."""
    ask(database, audit_id)
    runs, pause = [], threading.Event()

    class Slow(OverlapEffectMeter):
        """Another worker takes over after the first run."""

        def measure(self, query, example_id, *, method, keep_going):
            runs.append("first")
            with database.writing() as session:
                session.execute(text("UPDATE measurement SET attempt = attempt + 1, lease_owner = 'other'"))

            for _ in range(1000):  # the heartbeat tells after some milliseconds
                keep_going()
                pause.wait(0.01)
            runs.append("second")

    quick = measuring.model_copy(update={"heartbeat_seconds": 0.01})
    assert work_measure_hint({"bundle_id": bundle_id}, make_runtime(Slow(examples()), quick)) is None
    assert runs == ["first"]
    assert only(database, audit_id).state is MeasurementState.RUNNING


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_without_a_recipe_the_worker_says_what_to_set(settings, database, bundle_id):
    """`python -m worker measure` ends with code 2; so does a meter that somebody tries to open."""
    ended = run_worker_command(settings, "measure")
    assert ended.returncode == 2
    assert "measuring_unavailable" in ended.stderr
    assert "WHEREFROM_RECIPE" in ended.stderr
    with pytest.raises(MeasuringUnavailable, match="WHEREFROM_BASE_MODEL_DIR"):
        open_meter(catalogue.bundle_by_id(database, bundle_id), settings)


class SingleMeter:
    """An engine's meter that knows no groups."""

    def measure(self, query, example_id, *, method, keep_going):
        """Nothing of this is asked here."""
        raise AssertionError


def group(database, audit_id):
    """The audit's one measurement of a group."""
    (one,) = reader.get_audit(database, audit_id).group_measurements
    return one


def test_groups_are_worked_off_after_citations(make_runtime, database, audit_id, bundle_id, client):  # noqa: PLR0917 - fixtures
    """One queue to who sends hints: the older citation first, then the group, with a hint in between; each failure has its reason."""
    ids = tuple(one.example_id for one in examples())
    wanted = GroupRequest(example_ids=ids[:2])
    group_measurements.request_group(database, audit_id=audit_id, request=wanted, requested_by="me")
    ask(database, audit_id, 1)
    runtime = make_runtime()
    assert work_measure_hint({"bundle_id": bundle_id}, runtime) is MeasurementState.DONE
    assert only(database, audit_id).state is MeasurementState.DONE
    assert client.llen("t:measure") == 1
    assert work_measure_hint({"bundle_id": bundle_id}, runtime) is MeasurementState.DONE
    found = group(database, audit_id)
    assert (found.state, found.group, found.group_size) == (MeasurementState.DONE, ids[:2], 2)
    assert work_measure_hint({"bundle_id": bundle_id}, runtime) is None


@pytest.mark.parametrize(("meter", "code"), [(None, "not_found"), (SingleMeter(), "measuring_unavailable")])
def test_a_group_that_cannot_be_measured_says_why(make_runtime, database, audit_id, bundle_id, meter, code):  # noqa: PLR0917 - fixtures
    """An unknown source; an engine that measures single citations only."""
    wanted = GroupRequest(source="nowhere")
    group_measurements.request_group(database, audit_id=audit_id, request=wanted, requested_by="me")
    assert work_measure_hint({"bundle_id": bundle_id}, make_runtime(meter)) is MeasurementState.DEAD
    assert group(database, audit_id).code == code


def test_the_sweeper_takes_leases_of_groups_back(parts, measuring, audit_id, bundle_id):
    """As it does with those of citations; and it sends a hint for a group alone."""
    database = parts.database
    wanted = GroupRequest(source="nowhere")
    group_measurements.request_group(database, audit_id=audit_id, request=wanted, requested_by="me")
    MeasurementQueue(database).groups.claim(bundle_id, owner="gone", lease_s=-1, max_attempts=5)
    parts.sweeper(measuring).step()
    assert group(database, audit_id).state is MeasurementState.PENDING
    assert parts.client.llen("t:measure") == 1


def test_the_sweeper_hints_again_and_takes_leases_back(parts, measuring, audit_id, bundle_id):
    """One hint while the queue is empty, however often it looks; a dead worker's measurement is pending again."""
    database = parts.database
    ask(database, audit_id)
    for settings, expected in ((parts.settings, 0), (measuring, 1), (measuring, 1)):
        parts.sweeper(settings).step()
        assert parts.client.llen("t:measure") == expected
    MeasurementQueue(database).claim(bundle_id, owner="gone", lease_s=-1, max_attempts=5)
    parts.sweeper(measuring).step()
    assert only(database, audit_id).state is MeasurementState.PENDING


def test_the_watchdog_sees_a_deaf_measurer(database, audit_id, bundle_id):
    """Something to measure and nobody measures: time runs; a running measurement stops it."""
    now = [0.0]
    watchdog = MeasurerWatchdog(database, limit_s=10, clock=lambda: now[0])
    now[0] = 20
    assert watchdog.look() == 0, "nothing to measure"
    ask(database, audit_id)
    ask(database, audit_id, 2)
    now[0] = 40
    assert watchdog.look() == 20
    MeasurementQueue(database).claim(bundle_id, owner="w", lease_s=60, max_attempts=5)
    assert watchdog.look() == 0


def test_roles_of_the_celery_application(measuring):
    """The measuring worker has a time limit of its own; a pool process learns its role on its way."""
    app = make_celery(measuring, role=Role.MEASURE)
    copy = pickle.loads(pickle.dumps(app))
    assert copy.role is Role.MEASURE
    assert copy.conf.task_time_limit == measuring.measure_time_limit_seconds + LOADING_S
    assert make_celery(measuring).conf.task_time_limit == measuring.batch_time_limit_seconds + LOADING_S
    app.close()
    copy.close()
