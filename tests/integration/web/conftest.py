"""The web application over a database that holds the story, or over a migrated, empty one.

Each kind of database is made once per session and engine; a test gets a copy of its own, which takes milliseconds.
"""

import shutil
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from db import migrate
from db.session import Database
from tests.integration.web import story
from tests.services.postgres import PostgresServer
from web.app import create_app
from web.health import SilentProbe
from wherefrom.metrics import Metrics
from wherefrom.settings import Settings

BASE_URL = "http://127.0.0.1:8077"

_copies = count(1)
_stories: dict[str, story.Story] = {}


def _fill(url: str, kind: str) -> None:
    """Migrate a new database and, for the kind `story`, tell it."""
    migrate.upgrade(url)
    if kind == "story":
        filled = Database(url)
        _stories[url] = story.tell(filled, url=url, num_outputs=12, num_examples=60)
        filled.dispose()


@pytest.fixture(scope="session")
def sqlite_templates(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The SQLite file of a kind, made on first use."""
    folder = tmp_path_factory.mktemp("templates")

    def template(kind: str) -> Path:
        path = folder / f"{kind}.db"
        if not path.exists():
            _fill(f"sqlite:///{path}", kind)
        return path

    return template


@pytest.fixture(scope="session")
def postgres_templates(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """The PostgreSQL database of a kind, made on first use."""
    made: set[str] = set()

    def template(kind: str) -> str:
        name = f"web_{kind}"
        if kind not in made:
            server: PostgresServer = request.getfixturevalue("postgres_server")
            server.create_database(name)
            _fill(server.url(name), kind)
            made.add(kind)
        return name

    return template


def _copy(template: Path, folder: Path) -> str:
    """The URL of a copy of a SQLite file that nobody has open."""
    return f"sqlite:///{shutil.copy(template, folder / 'web.db')}"


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A copy of a template: the story where the test asks for `told`, else an empty database."""
    kind = "story" if "told" in request.fixturenames else "empty"
    if request.param == "sqlite":
        yield _copy(request.getfixturevalue("sqlite_templates")(kind), tmp_path)
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    name = f"web_copy_{next(_copies)}"
    server.create_database(name, template=request.getfixturevalue("postgres_templates")(kind))
    yield server.url(name)
    server.drop_database(name)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """The test's database."""
    opened = Database(database_url)
    yield opened
    opened.dispose()


@pytest.fixture
def told(database: Database) -> story.Story:
    """The story that the test's database holds; it is the same on both engines."""
    return next(iter(_stories.values()))


@pytest.fixture
def make_app(database: Database, database_url: str) -> Callable[..., FastAPI]:
    """Makes an application with settings of its own."""

    def make(notify: Callable[..., None] | None = None, **settings: object) -> FastAPI:
        made = Settings.model_validate({"database_url": database_url, **settings})
        extra = {"notify": notify} if notify else {}
        return create_app(made, database, metrics=Metrics(), queue=SilentProbe(), **extra)

    return make


@pytest.fixture
def client(make_app: Callable[..., FastAPI]) -> TestClient:
    """A client of an application on loopback."""
    return TestClient(make_app(), base_url=BASE_URL)


@pytest.fixture
def sqlite_story(
    sqlite_templates: Callable[[str], Path], tmp_path: Path
) -> Iterator[tuple[Settings, Database]]:
    """The story in SQLite only, for tests that are not about SQL."""
    url = _copy(sqlite_templates("story"), tmp_path)
    opened = Database(url)
    yield Settings.model_validate({"database_url": url}), opened
    opened.dispose()


@pytest.fixture
def quick_client(sqlite_story: tuple[Settings, Database]) -> TestClient:
    """A client over the story in SQLite, for tests of what happens before the database is asked."""
    settings, opened = sqlite_story
    return TestClient(create_app(settings, opened, metrics=Metrics(), queue=SilentProbe()), base_url=BASE_URL)
