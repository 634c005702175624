"""A service whose `bundles_dir` is a URL: bundles are uploaded, fetched by workers, erased, backed up and looked after."""

import gc
from pathlib import Path

import pytest
from pydantic import SecretStr

from db.bundles import catalogue
from db.session import Database
from tests.services.object_storage import ObjectStorage
from tests.tiny import shared_micro_bundle, shared_micro_model
from wherefrom.attribution.bundles.cache import BundleCache
from wherefrom.attribution.bundles.card_file import replace_card
from wherefrom.attribution.bundles.examples import iter_examples
from wherefrom.attribution.bundles.manifest import read_card, read_manifest
from wherefrom.attribution.bundles.model_location import note_path
from wherefrom.attribution.bundles.stored import push_bundle
from wherefrom.errors import BundleCorrupt
from wherefrom.settings import Settings
from wherefrom.storage import Store, open_store
from worker.backup import make_backup, restore_backup
from worker.bundle_homes import bundle_cache, drop_erased_copies, hold_bundle, where_bundles_are
from worker.bundles import add_bundle
from worker.checkup.upkeep import look_at_store
from worker.erasure.example_erasing import Request, forget
from worker.pool.engine import BundleEngine
from worker.pool.verify import refuse_unusable_bundles


@pytest.fixture
def settings(migrated_sqlite_url: str, bucket: str, tmp_path: Path) -> Settings:
    """A service over object storage."""
    return _settings(migrated_sqlite_url, bucket, tmp_path / "one")


@pytest.fixture
def elsewhere(migrated_sqlite_url: str, bucket: str, tmp_path: Path) -> Settings:
    """The same service on another machine."""
    return _settings(migrated_sqlite_url, bucket, tmp_path / "two")


def _settings(url: str, bucket: str, folder: Path) -> Settings:
    given = {
        "database_url": SecretStr(url),
        "state_dir": folder / "state",
        "bundles_dir": f"s3://{bucket}/bundles",
        "bundle_cache_dir": folder / "cache",
        "models_dir": shared_micro_model().parent,
    }
    return Settings.model_validate(given)


@pytest.fixture
def store(bucket: str) -> Store:
    """What the service's URL names."""
    return open_store(f"s3://{bucket}/bundles")


def holding(store: Store, mark: bytes, folder: Path) -> list[str]:
    """Names of the files of a store that hold some bytes."""
    found = []
    for name in store.names():
        store.fetch(name, folder / "looked-at")
        if mark in (folder / "looked-at").read_bytes():
            found.append(name)
    return found


def test_a_worker_fetches_what_it_opens_and_keeps_it(
    database: Database, settings: Settings, elsewhere: Settings
) -> None:
    """Adding uploads; a check fetches nothing; opening fetches, and the copy stays as long as the attributor lives."""
    bundle_id, manifest = add_bundle(database, settings, shared_micro_bundle(), activate=True)
    info, engine = catalogue.bundle_by_id(database, bundle_id), BundleEngine(elsewhere)
    assert refuse_unusable_bundles(database, engine, elsewhere) == {}
    engine.check_model(info)
    assert where_bundles_are(elsewhere, [manifest.name, "b-other"]) == {
        manifest.name: "store",
        "b-other": "missing",
    }
    attributor = engine.open_attributor(info)
    assert attributor.bundle_name == manifest.name
    assert where_bundles_are(elsewhere, [manifest.name]) == {manifest.name: "store and here"}
    cache = bundle_cache(elsewhere)
    assert cache is not None
    assert not cache._evict(manifest.name)
    del attributor
    gc.collect()
    assert cache._evict(manifest.name)
    assert [one.verdict for one in look_at_store(elsewhere)] == ["ok"]


def test_a_bundle_that_goes_while_it_is_looked_at_is_asked_of_the_store(
    database: Database, settings: Settings, elsewhere: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process makes room between the look and the reading: no bundle is refused for that."""
    bundle_id, _ = add_bundle(database, settings, shared_micro_bundle(), activate=True)
    monkeypatch.setattr(BundleCache, "has", lambda *_: True)
    BundleEngine(elsewhere).check_model(catalogue.bundle_by_id(database, bundle_id))


def test_a_store_that_is_away_refuses_no_bundle(
    database: Database, settings: Settings, elsewhere: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Audits wait; the doctor names the error; a bundle that is there is used all the same."""
    _, manifest = add_bundle(database, settings, shared_micro_bundle(), activate=True)
    hold_bundle(settings, manifest.name).release()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert refuse_unusable_bundles(database, BundleEngine(elsewhere), elsewhere) == {}
    assert [(one.verdict, one.text.partition(":")[0]) for one in look_at_store(elsewhere)] == [
        ("problem", "storage_unavailable")
    ]
    with hold_bundle(settings, manifest.name) as folder:
        assert read_manifest(folder).name == manifest.name
    assert where_bundles_are(settings, [manifest.name]) == {manifest.name: "here, store unknown"}


def test_a_store_that_says_no_refuses_the_bundle(
    database: Database, settings: Settings, elsewhere: Settings, object_storage: ObjectStorage
) -> None:
    """Wrong credentials, and a bucket that is not there: the bundle is refused by its code until that is mended; the doctor names it."""
    _, manifest = add_bundle(database, settings, shared_micro_bundle(), activate=True)
    lost = elsewhere.model_copy(update={"bundles_url": "s3://no-such-bucket/x"})
    object_storage.refuse_strangers(True)
    try:
        for one in (elsewhere, lost):
            refused = refuse_unusable_bundles(database, BundleEngine(one), one)
            assert refused[manifest.name].code == "storage_refused"
            assert [(found.verdict, found.text.partition(":")[0]) for found in look_at_store(one)] == [
                ("problem", "storage_refused")
            ]
    finally:
        object_storage.refuse_strangers(False)
    assert refuse_unusable_bundles(database, BundleEngine(elsewhere), elsewhere) == {}


def test_a_bundle_is_added_by_its_url(
    database: Database, settings: Settings, store: Store, tmp_path: Path
) -> None:
    """To a service with a folder: fetched, registered, and its card taken over when it was measured since."""
    local = settings.model_copy(update={"bundles_url": None, "bundles_dir": tmp_path / "bundles"})
    place = push_bundle(shared_micro_bundle(), store)
    name, url = place.name, place.url
    bundle_id, _ = add_bundle(database, local, url, activate=True)
    assert read_manifest(tmp_path / "bundles" / name).name == name
    copy = hold_bundle(settings, name).path
    card = read_card(copy) | {"quality": {"measures": {}, "date": "2026-11-27"}}
    replace_card(copy, card)
    push_bundle(copy, store)
    assert add_bundle(database, local, url, activate=False)[0] == bundle_id
    assert catalogue.bundle_by_id(database, bundle_id).card == card
    store.delete(f"{name}/whitening.safetensors")
    with pytest.raises(BundleCorrupt, match=r"whitening\.safetensors is missing"):
        add_bundle(
            database, settings.model_copy(update={"bundles_dir": tmp_path / "new"}), url, activate=True
        )


def test_an_erased_example_leaves_store_and_caches(
    database: Database, settings: Settings, elsewhere: Settings, tmp_path: Path
) -> None:
    """The new bundle is in the store; of the old one nothing is, nor on the machine that erased; another machine lets go of it when it is next asked."""
    _, manifest = add_bundle(database, settings, shared_micro_bundle(), activate=True)
    store = open_store(settings.bundles_url or "")
    hold_bundle(elsewhere, manifest.name).release()
    one = next(iter_examples(shared_micro_bundle()))
    mark = one.text_sha256.encode()
    assert holding(store, mark, tmp_path)
    found = forget(database, settings, Request((one.example_id,), "case 9"), by="operator")
    assert found.deleted == (manifest.name,)
    new = found.replaced[manifest.name]
    assert {name.partition("/")[0] for name in store.names()} == {new}
    assert not holding(store, mark, tmp_path)
    assert not [
        file for file in settings.bundles_dir.rglob("*") if file.is_file() and mark in file.read_bytes()
    ]
    with hold_bundle(settings, new) as folder:
        assert one.example_id not in {row.example_id for row in iter_examples(folder)}
    assert drop_erased_copies(database, elsewhere) == [manifest.name]
    assert not [
        file for file in elsewhere.bundles_dir.rglob("*") if file.is_file() and mark in file.read_bytes()
    ]
    assert not note_path(elsewhere.bundles_dir / manifest.name).exists()


def test_a_backup_holds_what_is_in_the_store(
    database: Database, settings: Settings, object_storage: ObjectStorage, tmp_path: Path
) -> None:
    """And brings it back to the store that the settings name then."""
    _, manifest = add_bundle(database, settings, shared_micro_bundle(), activate=True)
    backup = make_backup(settings, tmp_path / "backup")
    assert (backup.bundles, backup.missing) == ((manifest.name,), ())
    object_storage.create_bucket("restored")
    back = settings.model_copy(
        update={
            "database_url": SecretStr(f"sqlite:///{tmp_path / 'back.db'}"),
            "bundles_url": "s3://restored/x",
            "bundles_dir": tmp_path / "back",
        }
    )
    assert restore_backup(back, tmp_path / "backup").bundles == (manifest.name,)
    with hold_bundle(back, manifest.name) as folder:
        assert read_manifest(folder).files == manifest.files
