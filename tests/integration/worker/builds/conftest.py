"""A farm of build workers in this process: a database, a shared folder, and a small corpus in shards of eight rows."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import select

from db.models import BuildPart
from db.session import Database
from tasks.build_part import work_build_hint
from tests.tiny import build, quiet, shared_corpus, shared_micro_model
from wherefrom.attribution.bundles import parts, shards
from wherefrom.attribution.bundles.build import build_bundle
from wherefrom.attribution.bundles.corpus_pass import ReadsCorpus
from wherefrom.attribution.bundles.manifest import CARD, MANIFEST, read_card, read_manifest
from wherefrom.attribution.bundles.options import BuildOptions
from wherefrom.attribution.interface import Engine
from wherefrom.attribution.models.files import ModelFolders
from wherefrom.metrics import Metrics
from wherefrom.settings import Settings
from worker.commands import build_app
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

    def build(self, read_by: ReadsCorpus, *, adapter: Path | None = None) -> dict[str, Any]:
        """Build the bundle; its content."""
        build_bundle(
            folders=ModelFolders(shared_micro_model(), adapter),
            corpus_path=shared_corpus(ROWS),
            out=self.folder / "bundle",
            options=BuildOptions(check_learning=False),
            progress=quiet,
            on_note=self.notes.append,
            read_corpus_by=read_by,
        )
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


@contextmanager
def small_shards() -> Iterator[None]:
    """Eight rows make a shard."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "SHARD_ROWS", 8)
        patch.setattr(parts, "SHARD_ROWS", 8)
        patch.setattr(build_app, "SHARD_ROWS", 8)
        yield


@pytest.fixture(scope="module", autouse=True)
def _small_shards() -> Iterator[None]:
    """In all tests of this folder."""
    with small_shards():
        yield


@pytest.fixture(scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The content of the bundle that one machine builds."""
    folder = tmp_path_factory.mktemp("alone") / "bundle"
    with small_shards():
        build(shared_micro_model(), shared_corpus(ROWS), folder)
    return content_of(folder)


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


def stop(done: int) -> None:
    """What stops the waiting command after the first part."""
    if done:
        raise KeyboardInterrupt


def raising(error: Exception) -> Callable[..., Any]:
    """A function that raises."""

    def call(*_: Any, **__: Any) -> Any:
        raise error

    return call
