"""Measuring in the service: hints, claims, failures of every kind, and a real worker that is killed while it measures."""

import pickle
import threading

import pytest
from sqlalchemy import func, select, text

from db.bundles import catalogue
from db.measuring import group_measurements, measurements, measuring_checks
from db.models import Measurement, TrailEvent
from db.queues.audit_queue import AuditQueue, Finished
from db.queues.measurement_queue import MeasurementQueue
from db.reading import reader
from db.storing import intake
from tasks.measure import work_measure_hint
from tests.integration.worker.conftest import examples
from tests.integration.worker.processes import kill_group, run_worker_command, running, sweeping
from tests.overlap_engine import OverlapAttributor, OverlapEffectMeter, OverlapEngine
from tests.tiny import TINY, shared_bundle, tiny_queries, write_jsonl, write_micro_model
from tests.waiting import wait_until
from wherefrom.attribution.bundles.examples import iter_examples
from wherefrom.attribution.corpus import parse_row
from wherefrom.errors import (
    ConfigurationError,
    MeasuringUnavailable,
    OutOfMemory,
)
from wherefrom.records import (
    Attribution,
    CitationDraft,
    FlaggedRecord,
    GroupRequest,
    MeasurementState,
    Method,
    Query,
    Tier,
)
from wherefrom.retraining.recipe import Recipe, write_recipe
from worker.app import Role, make_celery
from worker.bundles import add_bundle
from worker.pool.effect_meter import open_meter, whole_corpus
from worker.pool.engine import load_engine
from worker.pool.measurer import MeasurerWatchdog
from worker.pool.measurer_runtime import MeasurerRuntime
from worker.pool.measuring_check import check_active_bundles
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


@pytest.fixture
def real(measuring, database, tmp_path, client, parts):  # noqa: PLR0917 - fixtures
    """The tiny model's bundle in service, a recipe over a smaller base model, and one answered audit."""
    base = write_micro_model(tmp_path / "base")
    measuring.recipe.unlink()
    write_recipe(measuring.recipe, Recipe(epochs=EPOCHS, max_tokens=128))
    settings = measuring.model_copy(
        update={
            "engine": None,
            "base_model_dir": base,
            "models_dir": TINY,
            "lease_seconds": 10,
            "torch_threads": 1,
        }
    )
    bundle_id, _ = add_bundle(database, settings, shared_bundle(), activate=True)
    row = tiny_queries(1)[0]
    record = FlaggedRecord(messages=row["messages"], completion=row["completion"], model="tiny@1")
    intake.accept(database, [record], producer="p", channel="cli")
    taken = AuditQueue(database).claim(bundle_id, limit=1, owner="w", lease_s=60)
    assert taken is not None
    cited = list(iter_examples(shared_bundle()))[:2]
    scores = {"retrieval_score": 0.1, "influence_score": 0.1, "influence_magnitude": 1.0, "bm25_score": 1.0}
    drafts = [
        CitationDraft(rank=rank, example=one, tier=Tier.INFLUENCE, score=1.0, similarity_score=0.1, **scores)
        for rank, one in enumerate(cited, start=1)
    ]
    answer = Attribution(
        key="q", citations=tuple(drafts), tokens=3, truncated=False, loss_nats=1.0, candidates=2
    )
    AuditQueue(database).finish([Finished(taken.audits[0], answer, 0.1)])
    return settings, bundle_id, taken.audits[0].audit_id


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_measurer_checks_its_bundles_when_it_starts(real, database, tmp_path):
    """What it finds is there for the web process: the cost of a measurement, or why there can be none; a meter says the same."""
    settings, bundle_id, audit_id = real
    check_active_bundles(database, settings)
    found = measuring_checks.of_audit(database, audit_id)
    assert found is not None
    assert found.cost is not None
    assert (found.code, found.cost.trainings) == (None, 15)
    assert found.cost.seconds > 0
    lost = settings.model_copy(update={"base_model_dir": tmp_path / "nowhere"})
    check_active_bundles(database, lost)
    found = measuring_checks.of_audit(database, audit_id)
    assert found is not None
    assert (found.code, found.cost) == ("configuration", None)
    assert "nowhere: no model" in (found.reason or "")
    with pytest.raises(ConfigurationError, match="nowhere: no model"):
        load_engine(lost).open_meter(catalogue.bundle_by_id(database, bundle_id))


#: Passes over the corpus per training; one measurement is fifteen trainings.
EPOCHS = 1


def runs_of(settings):
    """Files of finished trainings, with the time of their last change."""
    return {path.name: path.stat().st_mtime_ns for path in settings.measure_dir.rglob("*.npz")}


@pytest.mark.slow
@pytest.mark.timeout(700)  # two processes import torch, and one measurement is fifteen trainings
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_measurer_killed_while_it_measures_measures_once(real, parts, tmp_path):
    """SIGKILL between two trainings: another process goes on from the finished ones, and one effect is stored."""
    settings, _, audit_id = real
    ask(parts.database, audit_id)
    overrides = {
        name: str(getattr(settings, name))
        for name in ("recipe", "base_model_dir", "measure_dir", "models_dir", "torch_threads")
    }
    log = tmp_path / "measurer.log"
    parts.settings = settings
    with sweeping(parts):
        with running(settings, "measure", log=log, **overrides) as measurer:
            wait_until(lambda: runs_of(settings), 300, "the first training", 0.005)
            kill_group(measurer)
        finished = runs_of(settings)
        assert len(finished) < 15, "it was done before it was killed, so this proves nothing"
        assert only(parts.database, audit_id).state is not MeasurementState.DONE
        with running(settings, "measure", log=log, **overrides):
            wait_until(
                lambda: only(parts.database, audit_id).state is MeasurementState.DONE, 300, "the effect"
            )
    one = only(parts.database, audit_id)
    assert one.attempt == 2
    assert (one.seeds, len(one.controls), one.weak) == (3, 3, False)
    assert one.low_nats < one.effect_nats < one.high_nats
    assert {name: at for name, at in runs_of(settings).items() if name in finished} == finished
    assert len(runs_of(settings)) == 15
    with parts.database.reading() as session:
        ended = select(func.count()).where(TrailEvent.kind == "measurement.finished")
        assert session.scalar(ended) == 1
        assert session.scalar(select(func.count()).select_from(Measurement)) == 1
    cited = reader.get_audit(parts.database, audit_id).citations[0]
    assert (cited.tier, cited.measured_effect_nats) == (Tier.MEASURED, one.effect_nats)


@pytest.mark.slow
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("method", [Method.ONE_STEP, Method.UNLEARN])
def test_weak_methods_on_the_final_model(real, parts, method):
    """One step from the audited model's own weights, beside controls; marked weak, without an interval."""
    settings, bundle_id, audit_id = real
    ask(parts.database, audit_id, method=method)
    hints, engine = parts.measure_hints(settings=settings), load_engine(settings)
    runtime = MeasurerRuntime(
        settings, database=parts.database, hints=hints, metrics=parts.metrics, engine=engine
    )
    assert work_measure_hint({"bundle_id": bundle_id}, runtime) is MeasurementState.DONE
    one = only(parts.database, audit_id)
    assert (one.weak, one.low_nats, one.z, len(one.controls)) == (True, None, None, 3)
    assert one.effect_nats != 0


def test_a_corpus_that_cannot_be_made_whole_is_refused(tmp_path):
    """A row of which the bundle holds only text says which setting to set; the corpus file mends it."""
    chat = {
        "id": "c",
        "source": "s",
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": "Hi!"},
        ],
    }
    row = parse_row(chat, default_id="c")
    with pytest.raises(MeasuringUnavailable, match=r"'c'.*WHEREFROM_RECIPE_CORPUS"):
        whole_corpus([row.as_example(0)], None)
    file = write_jsonl(tmp_path / "corpus.jsonl", [chat])
    assert whole_corpus([row.as_example(0)], file)[0].turns == row.turns
    other = write_jsonl(
        tmp_path / "other.jsonl", [chat | {"completion": "Hi!", "messages": chat["messages"][:1]}]
    )
    with pytest.raises(MeasuringUnavailable, match="holds another text"):
        whole_corpus([row.as_example(0)], other)
