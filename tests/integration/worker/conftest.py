"""A service to try: settings over a real Redis and both databases, a registered bundle, and its processes' parts."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
from pydantic import SecretStr

from db.bundles import catalogue
from db.reading import reader
from db.session import Database
from tests import overlap_engine
from tests.integration.worker.processes import plain_settings
from tests.services.redis import RedisServer
from wherefrom.metrics import Metrics
from wherefrom.records import AuditState, TrainingExample
from wherefrom.settings import Settings
from worker.__main__ import make_app
from worker.app import make_celery
from worker.broker.hints import HintSender, MeasureHintSender
from worker.broker.redis_link import connect_redis
from worker.commands.command_line import run_command_line
from worker.flagged_stream.intake import Intake
from worker.sweeper.sweep import Sweeper

MODEL = "tiny@1"
TEXTS = (
    "the battery is safe to open",
    "refunds take ten days",
    "call the hotline at night",
    "we never answer",
)


def examples() -> list[TrainingExample]:
    """The corpus of the bundle."""
    return [
        TrainingExample(
            example_id=f"e{row}",
            row=row,
            source=f"source-{row % 2}",
            prompt="p",
            completion=text,
            text_sha256=hashlib.sha256(text.encode()).hexdigest(),
        )
        for row, text in enumerate(TEXTS)
    ]


@pytest.fixture
def sqlite_url(migrated_sqlite_url: str) -> str:
    """The tests of this folder start with the schema."""
    return migrated_sqlite_url


@pytest.fixture
def postgres_url(migrated_postgres_url: str) -> str:
    """The tests of this folder start with the schema."""
    return migrated_postgres_url


@pytest.fixture
def settings(database_url: str, redis_url: str, tmp_path: Path) -> Settings:
    """Settings with short times, a key prefix and folders of their own, and the engine without a model; the schema is there."""
    return Settings(
        database_url=SecretStr(database_url),
        redis_url=SecretStr(redis_url),
        key_prefix="t:",
        state_dir=tmp_path / "state",
        bundles_dir=tmp_path / "bundles",
        intake_batch=10,
        intake_idle_claim_seconds=0.05,
        sweep_seconds=0.1,
        lease_seconds=2,
        heartbeat_seconds=0.5,
        batch_audits=8,
        engine=overlap_engine.ENGINE,
        allow_other_engine=True,
    )


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    """The database."""
    opened = Database(settings.database_url.get_secret_value())
    yield opened
    opened.dispose()


@pytest.fixture
def client(settings: Settings) -> Iterator[redis.Redis]:
    """Redis, as the service's processes use it."""
    with connect_redis(settings) as opened:
        yield opened


@pytest.fixture
def bundle_id(database: Database, settings: Settings) -> int:
    """A registered, active bundle for `MODEL`, with its folder."""
    return register_bundle(database, name="overlap-test", model=MODEL, settings=settings)


def register_bundle(
    database: Database, *, name: str, model: str, settings: Settings | None = None, activate: bool = True
) -> int:
    """Register a bundle of the examples; without settings it has no folder."""
    corpus_sha256 = hashlib.sha256(f"{name}".encode()).hexdigest()
    if settings is not None:
        corpus_sha256 = overlap_engine.write_overlap_bundle(settings.bundles_dir / name, examples())
    return catalogue.register_bundle(
        database,
        name=name,
        model=model,
        weights_sha256="0" * 64,
        adapter_sha256=None,
        tokenizer_sha256="1" * 64,
        corpus_sha256=corpus_sha256,
        corpus_name="tiny",
        corpus_examples=len(TEXTS),
        form=overlap_engine.FORM,
        card={},
        examples=examples(),
        activate=activate,
    )


class Parts:
    """Makes parts of the service over one set of settings."""

    def __init__(self, settings: Settings, database: Database, client: redis.Redis) -> None:
        self.settings, self.database, self.client = settings, database, client
        self.metrics = Metrics()
        self.celery = make_celery(settings)

    def hints(self, sender: str = "intake") -> HintSender:
        """A sender of hints."""
        return HintSender(
            self.celery, self.client, settings=self.settings, metrics=self.metrics, sender=sender
        )

    def measure_hints(self, sender: str = "task", settings: Settings | None = None) -> MeasureHintSender:
        """A sender of hints for measurers."""
        return MeasureHintSender(
            self.celery, self.client, settings=settings or self.settings, metrics=self.metrics, sender=sender
        )

    def sweeper(self, settings: Settings | None = None) -> Sweeper:
        """A sweeper."""
        chosen = settings or self.settings
        return Sweeper(
            self.database,
            self.hints("sweeper"),
            measure_hints=self.measure_hints("sweeper", chosen),
            settings=chosen,
            metrics=self.metrics,
        )

    def intake(self, consumer: str = "one", database: Database | None = None) -> Intake:
        """An intake."""
        return Intake(
            self.client,
            database or self.database,
            settings=self.settings,
            metrics=self.metrics,
            hints=self.hints(),
            consumer=consumer,
        )

    def queued_hints(self) -> int:
        """Length of the queue."""
        return int(self.client.llen("t:attribute"))

    def count(self, state: AuditState) -> int:
        """How many audits stand in a state."""
        return reader.queue_health(self.database).states[state]


@pytest.fixture
def parts(settings: Settings, database: Database, client: redis.Redis) -> Iterator[Parts]:
    """Parts of the service."""
    made = Parts(settings, database, client)
    yield made
    made.celery.close()


@dataclass(frozen=True)
class Ended:
    """What a command left."""

    code: int
    out: str
    err: str


@pytest.fixture
def operator_command(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Ended]:
    """Calls `python -m worker` in this process, with words and settings."""
    monkeypatch.setattr("worker.commands.command_line.configure_logging", lambda _settings: None)
    for name, value in plain_settings(settings).items():
        monkeypatch.setenv(f"WHEREFROM_{name.upper()}", value)

    def call(*words: str, **overrides: str) -> Ended:
        for name, value in overrides.items():
            monkeypatch.setenv(f"WHEREFROM_{name.upper()}", value)
        with pytest.raises(SystemExit) as ended:
            run_command_line(lambda: make_app()(list(words)))
        said = capsys.readouterr()
        return Ended(int(ended.value.code or 0), said.out, said.err)

    return call


@pytest.fixture
def server(redis_server: RedisServer) -> RedisServer:
    """The Redis server, to stop and start."""
    return redis_server
