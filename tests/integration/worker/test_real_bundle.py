"""A built bundle of the tiny model in the service: registered, loaded by a process's runtime, used, refused."""

import shutil

import pytest

from db import catalogue, reader
from db.intake import accept
from tasks.hint import work_hint
from tests.tiny import TINY, TINY_MODEL, shared_bundle, tiny_queries
from wherefrom.errors import BundleCorrupt, BundleMismatch
from wherefrom.metrics import Metrics
from wherefrom.records import AuditState, FlaggedRecord, Tier
from worker.app import make_celery
from worker.bundles import add_bundle
from worker.hints import HintSender
from worker.runtime import Runtime
from worker.verify import verify_active_bundles

pytestmark = pytest.mark.redis


@pytest.fixture
def database_url(sqlite_url):
    """What a runtime loads does not depend on the database."""
    return sqlite_url


@pytest.fixture
def runtime(settings, database, client):
    """The runtime of a pool process; tiny's folder holds the model under the name that the bundle knows."""
    settings = settings.model_copy(update={"models_dir": TINY})
    app, metrics = make_celery(settings), Metrics()
    hints = HintSender(app, client, settings=settings, metrics=metrics, sender="task")
    yield Runtime(settings, database=database, hints=hints, metrics=metrics)
    app.close()


def flag(database, count):
    """Accept some outputs of the tiny model."""
    records = [
        FlaggedRecord(messages=row["messages"], completion=row["completion"], model="tiny@1")
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
    assert verify_active_bundles(database, runtime.settings) == 1
    while work_hint({"bundle_id": bundle_id}, runtime) is not None:
        pass
    assert reader.queue_health(database).states[AuditState.DONE] == 10
    detail = reader.get_audit(database, results[0].audit_id)
    assert detail.audit.bundle == manifest.name
    assert [one.rank for one in detail.citations] == list(range(1, 11))
    assert {one.tier for one in detail.citations} == {Tier.INFLUENCE}


def test_a_bundle_for_another_model_is_refused_before_anything_is_claimed(runtime, database, tmp_path):
    """One byte of the model's configuration differs."""
    models = tmp_path / "models"
    shutil.copytree(TINY_MODEL, models / "model")
    configuration = models / "model" / "config.json"
    configuration.write_text(configuration.read_text() + " ")
    runtime.settings = runtime.settings.model_copy(update={"models_dir": models})
    bundle_id, _ = add_bundle(database, runtime.settings, shared_bundle(), activate=True)
    results = flag(database, 1)
    assert work_hint({"bundle_id": bundle_id}, runtime) is None
    with pytest.raises(BundleMismatch):
        runtime.attributor(bundle_id)
    assert reader.get_audit(database, results[0].audit_id).audit.attempt == 0


def test_a_changed_or_a_foreign_bundle_is_refused_at_the_start(runtime, database, tmp_path):
    """A changed file, and a folder that is not what was registered."""
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
    with pytest.raises(BundleCorrupt):
        verify_active_bundles(database, runtime.settings)
    assert catalogue.bundle_by_id(database, bundle_id).active
