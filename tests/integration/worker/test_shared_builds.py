"""Builds over many machines: the same bundle as on one, whatever dies, changes or is away on the way."""

import errno
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import SecretStr
from sqlalchemy import select

from db import signs
from db.bundles import shared_builds
from db.models import BuildPart
from db.session import Database
from tasks.build_part import work_build_hint
from tests.services.object_storage import ObjectStorage
from tests.tiny import quiet, shared_corpus, shared_micro_model, write_adapter, write_micro_model
from wherefrom.attribution.bundles import parts, shards
from wherefrom.attribution.bundles.build import build_bundle
from wherefrom.attribution.bundles.corpus_pass import ReadsCorpus, read_here
from wherefrom.attribution.bundles.manifest import CARD, MANIFEST, read_card, read_manifest
from wherefrom.attribution.bundles.options import BuildOptions
from wherefrom.attribution.bundles.shared_files import SharedFile
from wherefrom.attribution.bundles.stored import stored_bundles
from wherefrom.attribution.interface import Engine
from wherefrom.attribution.models.files import ModelFolders
from wherefrom.attribution.models.signals import all_finite
from wherefrom.errors import (
    BuildPartsDead,
    ConfigurationError,
    NotFound,
    OutOfMemory,
    QueueUnavailable,
    StorageUnavailable,
)
from wherefrom.metrics import Metrics
from wherefrom.settings import Settings
from wherefrom.storage import open_store
from wherefrom.storage.folder import FolderStore
from worker.commands import build_app
from worker.commands.build import cancel, list_builds
from worker.commands.build_app import make_build_app
from worker.pool.builder_runtime import BuilderRuntime
from worker.pool.engine import BundleEngine
from worker.shared_pass import HintsAtParts, SharedPass

ROWS = 20
#: Of the corpus, at eight rows a shard.
SHARDS = 3


class NoHints:
    """Sends nothing; what a runtime passes on to."""

    def pass_on(self, bundle_id: int) -> None:
        """Nothing."""


@dataclass
class WorkerAtOnce:
    """Hints that are worked off where they are sent, by one worker."""

    runtime: BuilderRuntime
    #: What became of each claim.
    worked: list[Any] = field(default_factory=list)
    #: Called before each hint is worked off, with how many were.
    before: Callable[[int], None] = lambda _: None

    def send_for_work(self, pending: Mapping[int, int]) -> int:
        """Work off one part of each build."""
        for build_id in pending:
            self.before(len(self.worked))
            self.worked.append(work_build_hint({"build_id": build_id}, self.runtime))
        return len(pending)


@dataclass
class Farm:
    """A database, a shared folder, and a corpus to be built."""

    settings: Settings
    database: Database
    folder: Path
    notes: list[str] = field(default_factory=list)

    @property
    def shared(self) -> Path:
        """The shared folder."""
        return self.folder / "shared"

    def worker(self, engine: Engine | None = None, **more: Any) -> WorkerAtOnce:
        """A worker with the engine that is given, or wherefrom's own."""
        runtime = BuilderRuntime(
            self.settings,
            database=self.database,
            hints=NoHints(),  # type: ignore[arg-type]  # all that is asked of it here
            metrics=Metrics(),
            engine=engine or BundleEngine(self.settings),
        )
        return WorkerAtOnce(runtime, **more)

    def reading(self, hints: HintsAtParts, place: str | None = None, part_shards: int = 1) -> SharedPass:
        """A pass over this farm."""
        return SharedPass(
            self.database,
            place or str(self.shared),
            hints,
            settings=self.settings,
            part_shards=part_shards,
            poll_s=0,
        )

    def build(self, read_by: ReadsCorpus, *, adapter: Path | None = None, **options: Any) -> dict[str, Any]:
        """Build the bundle; its content."""
        build(self.folder / "bundle", read_by=read_by, adapter=adapter, notes=self.notes, **options)
        return content_of(self.folder / "bundle")

    def attempts(self) -> list[int]:
        """Attempts of the parts, in order."""
        with self.database.reading() as session:
            return list(session.scalars(select(BuildPart.attempt).order_by(BuildPart.number)))


@pytest.fixture
def farm(migrated_sqlite_url: str, tmp_path: Path) -> Iterator[Farm]:
    """An empty one."""
    settings = Settings(
        database_url=SecretStr(migrated_sqlite_url),
        state_dir=tmp_path / "state",
        torch_threads=1,
        backoff_base_seconds=0.001,
        backoff_cap_seconds=0.001,
    )
    database = Database(migrated_sqlite_url)
    yield Farm(settings, database, tmp_path)
    database.dispose()


@pytest.fixture(scope="module", autouse=True)
def _small_shards() -> Iterator[None]:
    """Eight rows make a shard."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "SHARD_ROWS", 8)
        patch.setattr(parts, "SHARD_ROWS", 8)
        patch.setattr(build_app, "SHARD_ROWS", 8)
        yield


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter of the micro model."""
    return write_adapter(tmp_path_factory.mktemp("lora") / "lora", shared_micro_model())


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The content of the bundle that one machine builds."""
    folder = tmp_path_factory.mktemp("alone") / "bundle"
    build(folder)
    return content_of(folder)


def build(
    out: Path,
    *,
    adapter: Path | None = None,
    read_by: ReadsCorpus = read_here,
    notes: list[str] | None = None,
    **options: Any,
) -> None:
    """A bundle of the micro model."""
    build_bundle(
        folders=ModelFolders(shared_micro_model(), adapter),
        corpus_path=shared_corpus(ROWS),
        out=out,
        options=BuildOptions(check_learning=False, **options),
        progress=quiet,
        on_note=([] if notes is None else notes).append,
        read_corpus_by=read_by,
    )


def content_of(bundle: Path) -> dict[str, Any]:
    """All files of a bundle byte for byte; of card and manifest all but times and what hashes them."""
    found: dict[str, Any] = {
        str(file.relative_to(bundle)): file.read_bytes()
        for file in bundle.rglob("*")
        if file.is_file() and file.name not in {CARD, MANIFEST}
    }
    manifest = read_manifest(bundle).model_dump(
        mode="json", exclude={"name": True, "created_at": True, "seal": True, "files": {CARD}}
    )
    card = read_card(bundle)
    card["cost"].pop("seconds")
    return (
        found | {f"{MANIFEST} {name}": value for name, value in manifest.items()} | {CARD: json.dumps(card)}
    )


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
    build(tmp_path / "alone", adapter=adapter)
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

    def stop(done: int) -> None:
        if done:
            raise KeyboardInterrupt

    first, second = farm.worker(before=stop), farm.worker()
    with pytest.raises(KeyboardInterrupt):
        farm.build(farm.reading(first))
    assert farm.build(farm.reading(second)) == alone
    assert (len(first.worked), len(second.worked)) == (1, SHARDS - 1)


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


@pytest.fixture
def told(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> Farm:
    """The farm, as the commands find it in their environment."""
    monkeypatch.setenv("WHEREFROM_DATABASE_URL", farm.settings.database_url.get_secret_value())
    monkeypatch.setenv("WHEREFROM_STATE_DIR", str(farm.folder / "state"))
    monkeypatch.setattr(build_app, "BuildHintSender", lambda *_, **__: farm.worker())
    return farm


def test_the_command_takes_urls(told: Farm, alone: dict[str, Any], bucket: str) -> None:
    """Corpus, bundle and parts at URLs: the bundle is in its store under its name, and nothing else is left there or on this machine."""
    data = open_store(f"s3://{bucket}/data")
    data.put(shared_corpus(ROWS), shared_corpus(ROWS).name)
    asked = [str(shared_micro_model()), "--corpus", f"s3://{bucket}/data/{shared_corpus(ROWS).name}"]
    asked += ["--out", f"s3://{bucket}/bundles", "--no-learning-check", "--part-rows", "128", "--json"]
    make_build_app()(args=asked, standalone_mode=False)
    bundles = open_store(f"s3://{bucket}/bundles")
    [name] = stored_bundles(bundles)
    for one in bundles.names(f"{name}/"):
        bundles.fetch(one, told.folder / one)
    assert content_of(told.folder / name) == alone
    assert open_store(f"s3://{bucket}/bundles.parts").names() == []
    assert not list((told.folder / "state").rglob("bundle"))
    assert shared_builds.list_builds(told.database) == []


def test_what_cannot_be_tidied_up_is_told(
    told: Farm, alone: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bundle is written and the shared folder goes away: the command succeeds, says what is left, and the build can be cancelled later."""
    out = told.folder / "bundle"
    asked = [str(shared_micro_model()), "--corpus", str(shared_corpus(ROWS)), "--out", str(out)]
    with monkeypatch.context() as patch:
        patch.setattr(FolderStore, "delete", raising(StorageUnavailable("the shared folder is away")))
        make_build_app()(args=[*asked, "--no-learning-check", "--part-rows", "128"], standalone_mode=False)
    assert content_of(out) == alone
    said = capsys.readouterr().err
    assert "the bundle is written" in said
    assert "storage_unavailable" in said
    [(build, _)] = shared_builds.list_builds(told.database)
    cancel(build.build_id, as_json=True)
    assert not Path(build.store).exists()


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


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--part-rows", "12"], "multiple of 8"),
        (["--corpus", "s3://user:password@bucket/x"], "must not hold credentials"),
        (["--shared", "ftp://host/x"], "ftp://"),
    ],
)
def test_the_command_refuses_what_cannot_be(told: Farm, wrong: list[str], said: str) -> None:
    """Before a model is loaded, and without what may be a secret."""
    needed = ["model", "--corpus", "c.jsonl", "--out", str(told.folder / "out"), "--json"]
    with pytest.raises(ConfigurationError, match=said) as refused:
        make_build_app()(args=[*needed, *wrong], standalone_mode=False)
    assert "password" not in str(refused.value)


def test_builds_are_listed_and_cancelled(told: Farm, capsys: pytest.CaptureFixture[str]) -> None:
    """Where each stands; a cancelled one is gone with its files."""

    def stop(done: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        told.build(told.reading(told.worker(before=stop)))
    capsys.readouterr()  # the log of the worker
    list_builds(as_json=True)
    [listed] = json.loads(capsys.readouterr().out)
    assert (listed["parts"], listed["waiting"], listed["done"]) == (SHARDS, SHARDS - 1, 1)
    cancel(listed["id"], as_json=True)
    assert json.loads(capsys.readouterr().out) == {"id": listed["id"], "deleted_files": SHARDS + 2}
    assert not told.shared.exists()
    with pytest.raises(NotFound):
        cancel(listed["id"])


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


def test_another_model_takes_no_part(farm: Farm, alone: dict[str, Any]) -> None:
    """A worker whose folder of that name holds another model tells it once and costs no part an attempt; the one with the right model does the work."""
    models = farm.folder / "models"
    write_micro_model(models / shared_micro_model().name, seed=7)
    wrong = farm.worker(BundleEngine(farm.settings.model_copy(update={"models_dir": models})))
    right = farm.worker()

    class InTurn:
        def send_for_work(self, pending: Mapping[int, int]) -> int:
            return (wrong if len(wrong.worked) < 2 else right).send_for_work(pending)

    assert farm.build(farm.reading(InTurn())) == alone
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
    monkeypatch.setattr("worker.pool.builder_runtime.REFUSED_S", again_s)

    class Small(BundleEngine):
        loaded = 0

        def open_part_reader(self, plan: Mapping[str, Any]) -> Any:
            self.loaded += 1
            raise OutOfMemory("the model of the build did not fit")

    engine, right = Small(farm.settings), farm.worker()
    small = farm.worker(engine)

    class InTurn:
        def send_for_work(self, pending: Mapping[int, int]) -> int:
            return (small if len(small.worked) < 3 else right).send_for_work(pending)

    farm.build(farm.reading(InTurn()))
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


def raising(error: Exception) -> Callable[..., Any]:
    """A function that raises."""

    def call(*_: Any, **__: Any) -> Any:
        raise error

    return call
