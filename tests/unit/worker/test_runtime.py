"""Engines of one process: loaded once, few at a time, a refusal remembered for a while."""

from typing import Any

import pytest

from tests.overlap_engine import OverlapEngine
from wherefrom.errors import BundleCorrupt, OutOfMemory
from wherefrom.metrics import Metrics
from wherefrom.settings import Settings
from worker.pool.owners import owner_name
from worker.pool.refusals import REFUSED_S
from worker.pool.runtime import LOADED_BUNDLES, Runtime
from worker.vitals.liveness import loading_file, refusal_file


class NoDatabase:
    """Stands for the database where only its end matters."""

    disposed = False

    def dispose(self):
        """Note it."""
        self.disposed = True


@pytest.fixture
def made():
    """What was loaded, in order; an exception in `errors` is raised instead."""
    return []


@pytest.fixture
def explained():
    """What pending audits were told, by bundle."""
    return []


@pytest.fixture
def runtime(made, explained, monkeypatch, tmp_path):
    """A runtime whose engines are their bundle's ids."""
    monkeypatch.setattr(
        "db.queues.waiting.explain_waiting",
        lambda _db, bundle_id, **why: explained.append((bundle_id, why["code"])),
    )
    monkeypatch.setattr("db.bundles.catalogue.bundle_by_id", lambda _db, bundle_id: Bundle(bundle_id))

    class Loading(OverlapEngine):
        """Opens nothing, and tells what it was asked for."""

        def open_attributor(self, bundle):
            made.append(bundle.id)
            if bundle.id == 13:
                raise BundleCorrupt("13")
            if bundle.id == 98 or (bundle.id == 99 and held):
                raise OutOfMemory(f"{bundle.id} does not fit")
            return bundle.id

    database: Any = NoDatabase()
    hints: Any = None
    settings = Settings(state_dir=tmp_path)
    made_here = Runtime(settings, database=database, hints=hints, metrics=Metrics(), engine=Loading(settings))
    held = made_here._loaded
    return made_here


class Bundle:
    """A bundle by its id."""

    def __init__(self, bundle_id):
        self.id = bundle_id
        self.name = f"b{bundle_id}"


def test_an_engine_is_loaded_once_and_makes_room_when_unused(runtime, made):
    """The least recently used one goes first."""
    assert LOADED_BUNDLES == 2
    for bundle_id in (1, 2, 1, 3, 1, 2):
        assert runtime.attributor(bundle_id) == bundle_id
    assert made == [1, 2, 3, 2]


def test_a_bundle_that_does_not_fit_beside_others_gets_their_room(runtime, made):
    """Else a GPU that holds the old bundle would never take the new one; where it is alone, the error stands."""
    with pytest.raises(OutOfMemory):
        runtime.attributor(98)
    assert made == [98], "nothing could make room"
    made.clear()
    runtime.attributor(1)
    assert runtime.attributor(99) == 99
    assert made == [1, 99, 99]
    assert not runtime.has_loaded(1)


def test_a_refused_bundle_is_not_loaded_with_every_hint(runtime, made, explained):
    """After a while it is looked at again: it may have been mended. Its audits are told each time it was looked at."""
    now = [0.0]
    runtime.clock = lambda: now[0]
    assert not runtime.has_refused(13)
    for _ in range(3):
        with pytest.raises(BundleCorrupt):
            runtime.attributor(13)
        assert runtime.has_refused(13)
    now[0] = REFUSED_S + 1
    assert not runtime.has_refused(13)
    with pytest.raises(BundleCorrupt):
        runtime.attributor(13)
    assert made == [13, 13]
    assert explained == [(13, "bundle_corrupt")] * 2


def test_loading_is_told_to_the_watchdog(runtime, monkeypatch):
    """A sign while the model is being loaded, gone when it is loaded or refused."""
    liveness, seen = loading_file(runtime.settings, 1), []

    def make(bundle):
        seen.append(liveness.is_fresh(60))
        return bundle.id

    monkeypatch.setattr(runtime._engine, "open_attributor", make)
    runtime.attributor(1)
    assert seen == [True]
    assert not liveness.is_fresh(60)


def test_a_refusal_is_told_to_the_watchdog(runtime, monkeypatch):
    """A fresh sign per refused bundle; it is gone when the bundle was mended."""
    with pytest.raises(BundleCorrupt):
        runtime.attributor(13)
    liveness = refusal_file(runtime.settings, 13)
    assert liveness.is_fresh(60)
    assert liveness.details()["code"] == "bundle_corrupt"
    assert not refusal_file(runtime.settings, 1).is_fresh(60)
    monkeypatch.setattr(runtime._engine, "open_attributor", lambda bundle: bundle.id)
    runtime.clock = lambda: float("inf")
    assert runtime.attributor(13) == 13
    assert not liveness.is_fresh(60)


def test_owners_are_never_alike():
    """Two runtimes of one process, or a process id that comes back, have different names."""
    assert owner_name() != owner_name()


def test_one_bad_bundle_does_not_keep_the_others_from_being_loaded(runtime, made, monkeypatch):
    """Loading ahead goes on behind a bundle that is refused."""
    monkeypatch.setattr("db.bundles.catalogue.active_bundles", lambda _db: [Bundle(13), Bundle(2)])
    runtime.preload()
    assert made == [13, 2]
    assert runtime.attributor(2) == 2
    assert made == [13, 2]
