"""Builds over many machines: the same bundle as on one, whatever dies, changes or is away on the way."""

import errno
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from db import signs
from db.bundles import shared_builds
from tests.integration.worker.builds.conftest import (
    ROWS,
    SHARDS,
    Farm,
    WorkerAtOnce,
    content_of,
    raising,
    stop,
)
from tests.services.object_storage import ObjectStorage
from tests.tiny import build, shared_corpus, shared_micro_model, write_adapter, write_micro_model
from wherefrom.attribution.bundles import shards
from wherefrom.attribution.bundles.manifest import MANIFEST, ComputeEntry, read_manifest
from wherefrom.attribution.bundles.shared_files import SharedFile
from wherefrom.attribution.models.signals import all_finite
from wherefrom.errors import (
    BuildPartsDead,
    OutOfMemory,
    QueueUnavailable,
    StorageUnavailable,
)
from wherefrom.storage import open_store
from wherefrom.storage.folder import FolderStore
from worker.pool.engine import BundleEngine


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter of the micro model."""
    return write_adapter(tmp_path_factory.mktemp("lora") / "lora", shared_micro_model())


@pytest.mark.parametrize("part_shards", [1, 2])
def test_the_same_bundle_as_on_one_machine(farm: Farm, alone: dict[str, Any], part_shards: int) -> None:
    """Every file is the same byte for byte, and nothing of the build is left in the shared folder or the database."""
    worker = farm.worker()
    shared = farm.reading(worker, part_shards=part_shards)
    assert farm.build(shared) == alone
    assert len(worker.worked) == -(-SHARDS // part_shards)
    shared.finish()
    assert not farm.shared.exists()
    assert shared_builds.list_builds(farm.database) == []


def test_the_same_bundle_of_an_adapter(farm: Farm, adapter: Path, tmp_path: Path) -> None:
    """With gradients at the final weights, which are in the shards too."""
    build(shared_micro_model(), shared_corpus(ROWS), tmp_path / "alone", adapter=adapter)
    built = farm.build(farm.reading(farm.worker(), part_shards=2), adapter=adapter)
    assert built == content_of(tmp_path / "alone")
    assert built[f"{MANIFEST} parameters"]["weight_final"] is not None


def test_large_moments_are_summed_up_by_part(
    farm: Farm, alone: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One set of them for each part: the sums differ in their last digits at most, so the bundle has the same files and nearly the same numbers."""
    monkeypatch.setattr(shards, "_LARGE_MOMENTS", 0)
    seen: list[Any] = []

    def look(done: int) -> None:
        seen.extend(load_moments(one) for one in farm.shared.glob("*/moments/*.npz") if done)

    built = farm.build(farm.reading(farm.worker(before=look), part_shards=2))
    assert {len(counts) for counts in seen} == {1}
    assert built.keys() == alone.keys()
    assert built["features/offsets.npy"] == alone["features/offsets.npy"]


def load_moments(file: Path) -> Any:
    """Positions of each set of second moments in a file."""
    with np.load(file, allow_pickle=False) as stored:
        return stored["count"]


def test_a_stopped_build_goes_on(farm: Farm, alone: dict[str, Any]) -> None:
    """The waiting command is stopped after the first part: run again, it plans nothing anew, and only the other parts are read."""
    first, second = farm.worker(before=stop), farm.worker()
    with pytest.raises(KeyboardInterrupt):
        farm.build(farm.reading(first))
    assert farm.build(farm.reading(second)) == alone
    assert (len(first.worked), len(second.worked)) == (1, SHARDS - 1)


def test_the_manifest_names_what_read_the_parts(
    farm: Farm, alone: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CPU reads one part and a GPU the other two, and the waiting command ends in between: what read most rows comes first, and the bundle keeps its name."""
    with pytest.raises(KeyboardInterrupt):
        farm.build(farm.reading(farm.worker(before=stop)))
    there = ComputeEntry(device="cuda", name="A GPU", dtype="float32")
    monkeypatch.setattr("worker.pool.part_reader.compute_entry", lambda _: there)
    farm.build(farm.reading(farm.worker()))
    manifest = read_manifest(farm.folder / "bundle")
    assert manifest.built_on == there
    assert manifest.also_read_on == (ComputeEntry.model_validate(alone[f"{MANIFEST} built_on"]),)
    assert manifest.model_copy(update={"also_read_on": None}).content_name() == manifest.name
    assert f"{MANIFEST} also_read_on" not in alone


def test_a_build_goes_on_behind_its_last_part(
    farm: Farm, alone: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All parts are here and the indexes failed: run again, no part is planned or read, and the build is forgotten in the end."""
    with monkeypatch.context() as patch:
        patch.setattr("wherefrom.attribution.bundles.build.write_indexes", raising(OSError("gone")))
        with pytest.raises(OSError, match="gone"):
            farm.build(farm.reading(farm.worker()))
    assert len(shared_builds.list_builds(farm.database)) == 1
    worker = farm.worker()
    shared = farm.reading(worker)
    assert farm.build(shared) == alone
    shared.finish()
    assert worker.worked == []
    assert shared_builds.list_builds(farm.database) == []


def test_over_object_storage(
    farm: Farm, alone: dict[str, Any], bucket: str, object_storage: ObjectStorage
) -> None:
    """The shared folder is a URL; it is empty again in the end."""
    place = f"s3://{bucket}/builds/one"
    shared = farm.reading(farm.worker(), place, part_shards=2)
    assert farm.build(shared) == alone
    assert len(open_store(place).names()) == 2 + SHARDS + 2
    shared.finish()
    assert open_store(place).names() == []


def test_a_shared_folder_that_cannot_go_stays(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a mount, or lies in another user's folder: its files go, and that it stays is no error."""
    real = Path.rmdir

    def rmdir(folder: Path) -> None:
        if folder == farm.shared:
            raise OSError(errno.EBUSY, "Device or resource busy")
        real(folder)

    monkeypatch.setattr(Path, "rmdir", rmdir)
    shared = farm.reading(farm.worker())
    farm.build(shared)
    shared.finish()
    assert list(farm.shared.iterdir()) == []


@pytest.mark.parametrize("kind", [SharedFile.SHARDS, SharedFile.MOMENTS])
def test_a_changed_file_of_a_part_is_made_again(farm: Farm, alone: dict[str, Any], kind: SharedFile) -> None:
    """It is noticed by its name; its part is read again, and the bundle is right."""
    shared = farm.reading(BehindTheBack(farm.worker(), lambda: damage(farm.shared, kind)))
    assert farm.build(shared) == alone
    assert [note for note in farm.notes if "is read again" in note and "had changed" in note]
    assert max(farm.attempts()) == 2


@dataclass
class BehindTheBack:
    """After the first part something happens to the shared folder."""

    worker: WorkerAtOnce
    happens: Callable[[], None]

    def send_for_work(self, pending: Mapping[int, int]) -> int:
        """Work, then let it happen once."""
        sent = self.worker.send_for_work(pending)
        if len(self.worker.worked) == 1:
            self.happens()
        return sent


def test_changed_rows_are_refused(farm: Farm, alone: dict[str, Any]) -> None:
    """A worker that fetches other rows than were planned reads nothing: the part is dead, the error says what to do, and doing it mends it."""
    worker = farm.worker(before=lambda done: None if done else damage(farm.shared, SharedFile.ROWS))
    with pytest.raises(BuildPartsDead, match=r"1 of 3 parts.*not_stored.*had changed.*run the same command"):
        farm.build(farm.reading(worker))
    assert farm.build(farm.reading(farm.worker())) == alone


@dataclass
class InTurn:
    """One worker is heard so often, then another one."""

    first: WorkerAtOnce
    times: int
    then: WorkerAtOnce

    def send_for_work(self, pending: Mapping[int, int]) -> int:
        """Let the one whose turn it is work."""
        return (self.first if len(self.first.worked) < self.times else self.then).send_for_work(pending)


def test_another_model_takes_no_part(farm: Farm, alone: dict[str, Any]) -> None:
    """A worker whose folder of that name holds another model tells it once and costs no part an attempt; the one with the right model does the work."""
    models = farm.folder / "models"
    write_micro_model(models / shared_micro_model().name, seed=7)
    wrong = farm.worker(BundleEngine(farm.settings.model_copy(update={"models_dir": models})))
    right = farm.worker()
    assert farm.build(farm.reading(InTurn(wrong, 2, right))) == alone
    assert wrong.worked == [None, None]
    told = [note for note in farm.notes if "build_mismatch" in note]
    assert len(told) == 1
    assert "another model weights" in told[0]
    assert farm.attempts() == [1, 1, 1]


@pytest.mark.parametrize(("again_s", "loaded"), [(30.0, 1), (0.0, 3)])
def test_a_model_that_does_not_fit_is_told_once(
    farm: Farm, monkeypatch: pytest.MonkeyPatch, again_s: float, loaded: int
) -> None:
    """No part loses an attempt, hints within the time do not load it again, and however often a worker tries, the command says it once."""
    monkeypatch.setattr("worker.pool.refusals.REFUSED_S", again_s)

    class Small(BundleEngine):
        loaded = 0

        def open_part_reader(self, plan: Mapping[str, Any]) -> Any:
            self.loaded += 1
            raise OutOfMemory("the model of the build did not fit")

    engine, right = Small(farm.settings), farm.worker()
    small = farm.worker(engine)
    farm.build(farm.reading(InTurn(small, 3, right)))
    assert engine.loaded == loaded
    assert len([note for note in farm.notes if "out_of_memory" in note]) == 1
    assert farm.attempts() == [1, 1, 1]


def test_what_is_away_is_waited_for(
    farm: Farm, alone: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shared folder and Redis are away for a moment: both are told once, the part is tried again, and the bundle is right."""
    put, away = FolderStore.put, [True, True]

    def put_later(self: FolderStore, path: Path, name: str) -> None:
        if "shards" in name and away:
            away.pop()
            raise StorageUnavailable("the shared folder is away")
        put(self, path, name)

    monkeypatch.setattr(FolderStore, "put", put_later)
    worker, gone = farm.worker(), [True, True]

    class Away:
        def send_for_work(self, pending: Mapping[int, int]) -> int:
            if gone:
                gone.pop()
                raise QueueUnavailable("Redis is away")
            return worker.send_for_work(pending)

    assert farm.build(farm.reading(Away())) == alone
    assert len([note for note in farm.notes if "queue_unavailable" in note]) == 1
    assert sorted(farm.attempts()) == [1, 1, 3]


@pytest.mark.parametrize(
    ("alive", "said"), [(0, "start `python -m worker build-worker`"), (2, "2 build workers")]
)
def test_who_waits_for_nobody_learns_it(
    farm: Farm, monkeypatch: pytest.MonkeyPatch, alive: int, said: str
) -> None:
    """Parts wait and nobody begins: what to start, or that somebody is loading."""
    monkeypatch.setattr("worker.shared_pass.IDLE_S", 0.0)
    for number in range(alive):
        signs.give_sign(farm.database, signs.Sign(f"w{number}", "build", "here", number))

    class Later:
        asked = 0

        def send_for_work(self, pending: Mapping[int, int]) -> int:
            self.asked += 1
            return 0 if self.asked < 2 else farm_worker.send_for_work(pending)

    farm_worker = farm.worker()
    farm.build(farm.reading(Later()))
    assert any(f"{SHARDS} parts wait and no worker has one: {said}" in note for note in farm.notes)


def test_a_row_without_numbers_is_named(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> None:
    """The place in the whole corpus, and the parts that are done are kept."""
    found = all_finite

    def not_the_second(a: Any, *others: Any) -> bool:
        return bool(found(a, *others)) and not poisoned

    poisoned: list[bool] = []
    monkeypatch.setattr(shards, "all_finite", not_the_second)
    worker = farm.worker(before=lambda done: poisoned.append(True) if done == 1 else poisoned.clear())
    with pytest.raises(
        BuildPartsDead, match=r"part 2 \(rows 9 to 16\) \[unusable_model\].*training example 9 "
    ):
        farm.build(farm.reading(worker))
    poisoned.clear()
    again = farm.worker()
    farm.build(farm.reading(again))
    assert len(again.worked) == 1


def damage(folder: Path, kind: SharedFile) -> None:
    """Change one file."""
    file = min(folder.glob(f"*/{kind}/*.npz"))
    file.write_bytes(file.read_bytes()[:-1] + b"!")
