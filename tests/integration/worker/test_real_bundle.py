"""A built bundle of the tiny model in the service: registered, loaded by a process's runtime, used, refused."""

import shutil
from importlib.metadata import version
from pathlib import Path

import pytest
from sqlalchemy import delete, func, select, update

from db.bundles import catalogue
from db.models import Audit, Citation, EngineSetup, FlaggedText
from db.reading import reader
from db.session import Database
from db.storing.groups import AskedGroup, ask_group
from db.storing.intake import accept
from tasks.hint import work_hint
from tests import overlap_engine
from tests.integration.worker.processes import kill_group_at_work, running, sweeping
from tests.tiny import (
    TINY,
    TINY_MODEL,
    build,
    shared_bundle,
    shared_corpus,
    shared_micro_model,
    tiny_queries,
    tiny_rows,
    write_adapter,
    write_jsonl,
)
from tests.waiting import wait_until
from wherefrom.attribution.bundles.card_file import replace_card
from wherefrom.attribution.bundles.manifest import read_card, read_manifest
from wherefrom.attribution.models.placement import CPU
from wherefrom.attribution.models.rule import RenderingRule
from wherefrom.cli.reproducing import gone_of, reproduced
from wherefrom.errors import BundleCorrupt, BundleMismatch, ConfigurationError, NoChatTemplate, NotFound
from wherefrom.library import open_with_model
from wherefrom.metrics import Metrics
from wherefrom.records import AuditState, FlaggedRecord, Tier, utc_now
from wherefrom.records.lineage import CitationAddress, Reproduced, Reproduction
from worker.app import make_celery
from worker.broker.hints import HintSender
from worker.bundles import add_bundle
from worker.pool.engine import load_engine
from worker.pool.runtime import Runtime
from worker.pool.verify import refuse_unusable_bundles
from worker.reproducing import reproduce

pytestmark = pytest.mark.redis


@pytest.fixture
def database_url(sqlite_url):
    """What a runtime loads does not depend on the database."""
    return sqlite_url


@pytest.fixture
def models_dir():
    """Tiny's folder holds the model under the name that the bundle knows."""
    return TINY


@pytest.fixture
def runtime(settings, database, client, models_dir):
    """The runtime of a pool process."""
    settings = settings.model_copy(update={"models_dir": models_dir, "engine": None})
    app, metrics = make_celery(settings), Metrics()
    hints = HintSender(app, client, settings=settings, metrics=metrics, sender="task")
    yield Runtime(settings, database=database, hints=hints, metrics=metrics, engine=load_engine(settings))
    app.close()


def flag(database, count, *, model="tiny@1"):
    """Accept some outputs of the tiny model, under any model's name."""
    records = [
        FlaggedRecord(messages=row["messages"], completion=row["completion"], model=model)
        for row in tiny_queries(count)
    ]
    return accept(database, records, producer="p", channel="cli")


@pytest.mark.slow
def test_outputs_that_waited_for_their_bundle_are_cited(runtime, database):
    """Flagged first, bundle second: the audits are queued by themselves, and hold influence scores in the end."""
    results = flag(database, 10)
    assert {one.code for one in results} == {"unknown_model"}
    bundle_id, manifest = add_bundle(database, runtime.settings, shared_bundle(), activate=True)
    assert add_bundle(database, runtime.settings, shared_bundle(), activate=True)[0] == bundle_id
    assert refuse_unusable_bundles(database, load_engine(runtime.settings), runtime.settings) == {}
    while work_hint({"bundle_id": bundle_id}, runtime) is not None:
        pass
    assert reader.queue_health(database).states[AuditState.DONE] == 10
    detail = reader.get_audit(database, results[0].audit_id)
    assert detail.audit.bundle == manifest.name
    assert [one.rank for one in detail.citations] == list(range(1, 11))
    assert {one.tier for one in detail.citations} == {Tier.INFLUENCE}


def _answered(runtime: Runtime, database: Database, count: int) -> list[int]:
    results = flag(database, count)
    bundle_id, _ = add_bundle(database, runtime.settings, shared_bundle(), activate=True)
    while work_hint({"bundle_id": bundle_id}, runtime) is not None:
        pass
    return [one.audit_id for one in results]


def _reproduced(runtime: Runtime, database: Database, text: str, **changes: object) -> Reproduction:
    settings = runtime.settings.model_copy(update=changes)
    return reproduce(database, load_engine(settings), settings, CitationAddress.parse(text))


def test_citations_are_computed_again_from_their_bundle(runtime: Runtime, database: Database) -> None:
    """A citation and an opponent of a batch come out alone; a stored score that was changed, other settings, versions, an erased text and another engine are told."""
    audit_ids = _answered(runtime, database, 3)
    detail = reader.get_audit(database, audit_ids[1])
    setup = detail.computed_with
    assert setup is not None
    assert (setup["engine"], setup["dtype"], setup["max_tokens"]) == ("wherefrom", "float32", 1024)
    assert setup["torch"] == version("torch")
    # a setting that was changed since does not matter: the answer is asked for as it was then
    same = [_reproduced(runtime, database, f"{audit_ids[1]}/{rank}", max_tokens=16) for rank in (1, -1)]
    assert [one.verdict for one in same] == ["same", "same"]
    assert [one.rank_now for one in same] == [1, -1]
    assert not any(one.other for one in same)
    assert max(abs((part.now or 0.0) - part.stored) / part.allowed for part in same[0].scores) < 0.2

    with database.writing() as session:
        change = update(Citation).where(Citation.audit_id == audit_ids[1], Citation.rank == 2)
        session.execute(change.values(influence_score=Citation.influence_score + 0.01))
        session.execute(update(EngineSetup).values(content={**setup, "torch": "1.13.0"}))
    changed = _reproduced(runtime, database, f"http://host/audits/{audit_ids[1]}?from=list#citation-2")
    assert changed.verdict is Reproduced.DIFFERENT
    assert [one.name for one in changed.scores if one.differs] == ["influence_score"]
    assert "influence_score was" in changed.text
    assert f"torch was 1.13.0, is {version('torch')}" in changed.text

    with database.writing() as session:
        output_id = reader.get_audit(database, audit_ids[2]).audit.output_id
        session.execute(delete(FlaggedText).where(FlaggedText.flagged_output_id == output_id))
    gone = _reproduced(runtime, database, f"{audit_ids[2]}")
    assert (gone.verdict, gone.rank, gone.scores) == (Reproduced.ERASED, 1, ())
    with pytest.raises(NotFound, match="no citation of rank 99"):
        _reproduced(runtime, database, f"{audit_ids[0]}/99")
    with pytest.raises(
        ConfigurationError, match="answered by the engine wherefrom, and this process has tests"
    ):
        _reproduced(runtime, database, f"{audit_ids[0]}/1", engine=overlap_engine.ENGINE)


def test_an_auditor_computes_a_citation_again_without_the_service(
    runtime: Runtime, database: Database
) -> None:
    """From what the service tells of the audit, and a folder of the bundle; another bundle is refused."""
    [audit_id] = _answered(runtime, database, 1)
    detail, address = reader.get_audit(database, audit_id), CitationAddress(audit_id=audit_id, rank=1)
    opened = open_with_model(shared_bundle(), TINY_MODEL, None, placement=CPU)
    found = reproduced(opened, detail, address)
    assert found.verdict is Reproduced.SAME, found.text
    other = detail.model_copy(update={"audit": detail.audit.model_copy(update={"bundle": "b-other"})})
    with pytest.raises(BundleMismatch, match="answered by bundle b-other"):
        reproduced(opened, other, address)
    assert gone_of(detail, address) is None
    erased = detail.model_copy(update={"completion": "", "turns": (), "erased_at": utc_now()})
    first = detail.citations[0].model_copy(update={"erased_at": utc_now(), "completion": ""})
    forgotten = detail.model_copy(update={"citations": (first, *detail.citations[1:])})
    for one, told in (
        (erased, "The text of the flagged output was erased"),
        (forgotten, "The text of the training example was erased"),
    ):
        gone = gone_of(one, address)
        assert gone is not None
        assert gone.verdict is Reproduced.ERASED
        assert told in gone.text


def test_an_auditor_computes_a_citation_of_a_group_again(runtime: Runtime, database: Database) -> None:
    """From the audits of its outputs, held against an acceptable answer; an output whose text was erased is told."""
    audit_ids = _answered(runtime, database, 3)
    rows = tiny_queries(4)
    against = FlaggedRecord(messages=rows[3]["messages"], completion=rows[3]["completion"], model="tiny@1")
    asked = ask_group(database, AskedGroup(tuple(audit_ids), (against,)), producer="p")
    assert asked.audit_id is not None
    with database.reading() as session:
        bundle_id = session.scalars(select(Audit.bundle_id)).first()
    while work_hint({"bundle_id": bundle_id}, runtime) is not None:
        pass
    detail = reader.get_audit(database, asked.audit_id)
    members = [reader.get_audit(database, one.audit_id) for one in detail.members]
    assert [one.audit.audit_id for one in members] == audit_ids
    opened = open_with_model(shared_bundle(), TINY_MODEL, None, placement=CPU)
    for rank in (1, -1):
        address = CitationAddress(audit_id=asked.audit_id, rank=rank)
        assert gone_of(detail, address, members=members) is None
        found = reproduced(opened, detail, address, members=members)
        assert found.verdict is Reproduced.SAME, found.text
        alone = reproduced(opened, detail, address, members=members[:2])
        assert alone.verdict is Reproduced.DIFFERENT
    erased = members[1].model_copy(update={"completion": "", "turns": ()})
    gone = gone_of(detail, address, members=[members[0], erased, members[2]])
    assert gone is not None
    assert gone.verdict is Reproduced.ERASED
    assert "The text of an output of the group was erased" in gone.text


class TestFormAdapter:
    """A model with an adapter, in a folder of its own."""

    @pytest.fixture
    def models_dir(self, tmp_path):
        return tmp_path

    def test_a_bundle_of_the_form_adapter_serves(self, runtime, database, models_dir):
        """The worker finds model and adapter, reads the adapter's directions, and stores which parts of the model carry each citation."""
        model = shutil.copytree(shared_micro_model(), models_dir / "micro")
        adapter = write_adapter(models_dir / "lora", model)
        out = models_dir / "bundles" / "adapter"
        out.parent.mkdir()
        build(model, shared_corpus(40), out, adapter=adapter, form="adapter", model_name="micro@1")
        (result,) = flag(database, 1, model="micro@1")
        bundle_id, _ = add_bundle(database, runtime.settings, out, activate=True)
        assert refuse_unusable_bundles(database, load_engine(runtime.settings), runtime.settings) == {}
        while work_hint({"bundle_id": bundle_id}, runtime) is not None:
            pass
        detail = reader.get_audit(database, result.audit_id)
        assert detail.audit.state is AuditState.DONE
        for one in detail.citations:
            blocks = [part.influence for part in one.modules if part.by == "block"]
            assert len(blocks) == 3
            assert sum(blocks) == pytest.approx(one.influence_score, abs=1e-3)


def test_a_bundle_for_another_model_is_refused_before_anything_is_claimed(runtime, database, tmp_path):
    """One byte of the model's configuration differs."""
    models = tmp_path / "models"
    shutil.copytree(TINY_MODEL, models / "model")
    configuration = models / "model" / "config.json"
    configuration.write_text(configuration.read_text() + " ")
    runtime.settings = runtime.settings.model_copy(update={"models_dir": models})
    runtime._engine = load_engine(runtime.settings)
    bundle_id, _ = add_bundle(database, runtime.settings, shared_bundle(), activate=True)
    results = flag(database, 1)
    assert work_hint({"bundle_id": bundle_id}, runtime) is None
    with pytest.raises(BundleMismatch):
        runtime.attributor(bundle_id)
    assert reader.get_audit(database, results[0].audit_id).audit.attempt == 0


def test_a_changed_bundle_is_refused_at_the_start_and_says_so_on_its_audits(runtime, database, tmp_path):
    """A changed file: nothing is registered from it, and a registered one is refused alone."""
    changed = tmp_path / "changed"
    shutil.copytree(shared_bundle(), changed)
    card = changed / "card.json"
    card.write_text(card.read_text().replace("{", "{ ", 1))
    with pytest.raises(BundleCorrupt, match=r"card\.json"):
        add_bundle(database, runtime.settings, changed, activate=True)
    assert catalogue.list_bundles(database) == []
    bundle_id, manifest = add_bundle(database, runtime.settings, shared_bundle(), activate=True)
    home = runtime.settings.bundles_dir / manifest.name
    (home / "card.json").write_text("{}")
    (waiting,) = flag(database, 1)
    refused = refuse_unusable_bundles(database, load_engine(runtime.settings), runtime.settings)
    assert refused[manifest.name].code == BundleCorrupt.code
    assert catalogue.bundle_by_id(database, bundle_id).active
    audit = reader.get_audit(database, waiting.audit_id).audit
    assert (audit.state, audit.code) == (AuditState.PENDING, BundleCorrupt.code)


def test_a_card_measured_since_is_taken_over(runtime, database, tmp_path):
    """The same name with new figures: copy and database get them, an older copy without figures takes nothing away."""
    bundle_id, manifest = add_bundle(database, runtime.settings, shared_bundle(), activate=True)
    measured = tmp_path / "measured"
    shutil.copytree(shared_bundle(), measured)
    card = read_card(measured) | {"quality": {"measures": {}, "date": "2026-11-22"}}
    assert replace_card(measured, card).name == manifest.name
    for path in (measured, shared_bundle()):
        assert add_bundle(database, runtime.settings, path, activate=False)[0] == bundle_id
        assert catalogue.bundle_by_id(database, bundle_id).card == card
        assert (
            read_manifest(runtime.settings.bundles_dir / manifest.name).files == read_manifest(measured).files
        )
    assert refuse_unusable_bundles(database, load_engine(runtime.settings), runtime.settings) == {}


@pytest.mark.slow
def test_a_killed_worker_with_a_real_model_loses_and_doubles_nothing(settings, database, parts, tmp_path):
    """500 audits of the tiny model; SIGKILL in the middle of a batch, then another worker: all done, each cited once."""
    add_bundle(database, settings, shared_bundle(), activate=True)
    rows = tiny_queries()
    records = [
        FlaggedRecord(
            messages=rows[number % len(rows)]["messages"],
            completion=f"{rows[number % len(rows)]['completion']} {number}",
            model="tiny@1",
        )
        for number in range(500)
    ]
    accept(database, records, producer="p", channel="cli")
    overrides = {"models_dir": str(TINY), "torch_threads": "1", "engine": ""}

    def done() -> int:
        return reader.queue_health(database).states[AuditState.DONE]

    def at_work() -> int:
        return reader.queue_health(database).states[AuditState.RUNNING]

    with sweeping(parts):
        with running(settings, "run", log=tmp_path / "worker.log", **overrides) as worker:
            wait_until(lambda: done() >= 50, 120, "the worker to work", 0.005)
            kill_group_at_work(worker, at_work)
        assert done() < 500
        with running(settings, "run", log=tmp_path / "worker.log", **overrides):
            wait_until(lambda: done() == 500, 240, "all audits")
    with database.reading() as session:
        ranks = select(Citation.audit_id, func.count(), func.max(Citation.rank)).where(Citation.rank > 0)
        cited = session.execute(ranks.group_by(Citation.audit_id)).all()
        again = session.scalar(select(func.count()).where(Audit.attempt > 1))
    assert [(count, last) for _, count, last in cited] == [(10, 10)] * 500
    assert again, "the kill hit no claimed batch, so it proved nothing"


@pytest.mark.slow
def test_a_worker_answers_for_a_model_without_a_chat_template(settings, database, parts, tmp_path):
    """A real process joins prompt and completion as the bundle says, and cites the example itself first; messages are rejected."""
    models = tmp_path / "models"
    model = Path(shutil.copytree(shared_micro_model(), models / "bare"))
    (model / "chat_template.jinja").unlink()
    rows = [
        {
            "id": row["id"],
            "prompt": row["messages"][0]["content"],
            "completion": row["messages"][1]["content"],
        }
        for row in tiny_rows(24)
    ]
    corpus, out = write_jsonl(tmp_path / "corpus.jsonl", rows), tmp_path / "bundle"
    build(model, corpus, out, model_name="bare@1", rendering=RenderingRule(join=" "))
    add_bundle(database, settings, out, activate=True)
    known = rows[3]
    records = [
        FlaggedRecord(prompt=known["prompt"], completion=known["completion"], model="bare@1"),
        FlaggedRecord(
            messages=[{"role": "user", "content": known["prompt"]}],
            completion=known["completion"],
            model="bare@1",
        ),
    ]
    plain, chat = (one.audit_id or 0 for one in accept(database, records, producer="p", channel="http"))
    overrides = {"models_dir": str(models), "torch_threads": "1", "engine": ""}

    def states() -> list[AuditState]:
        return [reader.get_audit(database, audit_id).audit.state for audit_id in (plain, chat)]

    log = tmp_path / "worker.log"
    with sweeping(parts), running(settings, "run", log=log, **overrides):
        wait_until(lambda: states() == [AuditState.DONE, AuditState.REJECTED], 120, "both audits")
    assert reader.get_audit(database, plain).citations[0].example_id == known["id"]
    assert reader.get_audit(database, chat).audit.code == NoChatTemplate.code
    assert "Traceback" not in log.read_text()
