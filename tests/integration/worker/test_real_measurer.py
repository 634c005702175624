"""The measurer with a real model: it checks its bundles, survives SIGKILL, and measures by the weak methods."""

import pytest
from sqlalchemy import func, select

from db.bundles import catalogue
from db.measuring import measuring_checks
from db.models import Measurement, TrailEvent
from db.queues.audit_queue import AuditQueue, Finished
from db.reading import reader
from db.storing import intake
from tasks.measure import work_measure_hint
from tests.integration.worker.processes import kill_group, running, sweeping
from tests.integration.worker.test_measurer import ask, measuring, only
from tests.tiny import TINY, shared_bundle, tiny_queries, write_jsonl, write_micro_model
from tests.waiting import wait_until
from wherefrom.attribution.bundles.examples import iter_examples
from wherefrom.attribution.corpus import parse_row
from wherefrom.errors import ConfigurationError, MeasuringUnavailable
from wherefrom.records import Attribution, CitationDraft, FlaggedRecord, MeasurementState, Method, Tier
from wherefrom.retraining.recipe import Recipe, write_recipe
from worker.bundles import add_bundle
from worker.pool.effect_meter import whole_corpus
from worker.pool.engine import load_engine
from worker.pool.measurer_runtime import MeasurerRuntime
from worker.pool.measuring_check import check_active_bundles

__all__ = ["measuring"]

pytestmark = pytest.mark.redis

#: Passes over the corpus per training; one measurement is fifteen trainings.
EPOCHS = 1


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
