"""The web application over a database that holds the story, or over a migrated, empty one.

Each kind of database is made once per session and engine; a test gets a copy of its own, which takes milliseconds.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from fastapi import FastAPI
from playwright.sync_api import Browser, Page
from starlette.testclient import TestClient

from db.session import Database
from scripts.chromium import ABSENT, browsing, find_chromium
from scripts.web_thread import serving
from tests.absence import absent
from tests.integration.web import story
from tests.services.templates import Templates
from web.app import create_app
from web.wellness.health import SilentProbe
from wherefrom.metrics import Metrics
from wherefrom.settings import Settings

#: Signs the sessions of the tests, so that no file is made.
SECRET = "not-a-secret-of-any-service-0123456789"
BASE_URL = "http://127.0.0.1:8077"

_stories: list[story.Story] = []


def _fill(url: str) -> None:
    """Fill a new database with the story."""
    filled = Database(url)
    _stories.append(story.fill_with_story(filled, url=url, num_outputs=12, num_examples=60))
    filled.dispose()


@pytest.fixture
def _story_sqlite_url(templates: Templates, tmp_path: Path) -> str:
    return templates.copy_sqlite(tmp_path / "web.db", "story", _fill)


@pytest.fixture
def _story_postgres_url(templates: Templates) -> Iterator[str]:
    url = templates.copy_postgres("story", _fill)
    yield url
    templates.drop_postgres(url)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest) -> str:
    """A copy of a template: the story where the test asks for `stored_story`, else an empty database."""
    kind = "_story" if "stored_story" in request.fixturenames else "migrated"
    url: str = request.getfixturevalue(f"{kind}_{request.param}_url")
    return url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """The test's database."""
    opened = Database(database_url)
    yield opened
    opened.dispose()


@pytest.fixture
def stored_story(database: Database) -> story.Story:
    """The story that the test's database holds; it is the same on both engines."""
    return _stories[0]


@pytest.fixture
def make_app(database: Database, database_url: str, tmp_path: Path) -> Callable[..., FastAPI]:
    """Makes an application with settings of its own."""

    def make(notify: Callable[..., None] | None = None, **settings: object) -> FastAPI:
        given = {"database_url": database_url, "session_secret": SECRET, "state_dir": tmp_path / "state"}
        made = Settings.model_validate(given | settings)
        extra = {"notify": notify} if notify else {}
        return create_app(made, database, metrics=Metrics(), queue=SilentProbe(), **extra)

    return make


@pytest.fixture
def client(make_app: Callable[..., FastAPI]) -> TestClient:
    """A client of an application on loopback."""
    return TestClient(make_app(), base_url=BASE_URL)


@pytest.fixture
def sqlite_story(_story_sqlite_url: str, tmp_path: Path) -> Iterator[tuple[Settings, Database]]:
    """The story in SQLite only, for tests that are not about SQL."""
    opened = Database(_story_sqlite_url)
    given = {
        "database_url": _story_sqlite_url,
        "session_secret": SECRET,
        "state_dir": tmp_path / "state",
    }
    yield Settings.model_validate(given), opened
    opened.dispose()


@pytest.fixture
def quick_story(sqlite_story: tuple[Settings, Database]) -> story.Story:
    """The story that `sqlite_story` holds."""
    return _stories[0]


@pytest.fixture
def quick_client(sqlite_story: tuple[Settings, Database]) -> TestClient:
    """A client over the story in SQLite, for tests of what happens before the database is asked."""
    return TestClient(_app_over(*sqlite_story), base_url=BASE_URL)


def _app_over(settings: Settings, database: Database) -> FastAPI:
    return create_app(settings, database, metrics=Metrics(), queue=SilentProbe())


@pytest.fixture
def server(sqlite_story: tuple[Settings, Database]) -> Iterator[str]:
    """The service over the story."""
    with serving(_app_over(*sqlite_story)) as url:
        yield url


@dataclass(frozen=True)
class Desk:
    """One service over the story for a whole module, where effects can be asked for."""

    url: str
    database: Database
    story: story.Story


@pytest.fixture(scope="module")
def desk(templates: Templates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """The service that the tests of a module share."""
    folder = tmp_path_factory.mktemp("desk")
    url = templates.copy_sqlite(folder / "web.db", "story", _fill)
    database = Database(url)
    settings = Settings.model_validate(
        {
            "database_url": url,
            "session_secret": SECRET,
            "recipe": "recipe.json",
            "state_dir": folder / "state",
        }
    )
    with serving(_app_over(settings, database)) as address:
        yield Desk(address, database, _stories[0])
    database.dispose()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's Chromium; absent locally = skip, absent in CI = fail."""
    if find_chromium() is None:
        absent(ABSENT)
    with browsing() as launched:
        yield launched


@pytest.fixture
def complaints() -> list[str]:
    """What the browser's console and its content policy complained about."""
    return []


def note_complaints(page: Page, complaints: list[str]) -> None:
    """Note what the console says of a page that is an error or a warning, and what its scripts raise."""
    page.on(
        "console",
        lambda message: complaints.append(message.text) if message.type in {"error", "warning"} else None,
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))


@pytest.fixture
def page(browser: Browser, complaints: list[str]) -> Iterator[Page]:
    """A page whose complaints are collected."""
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    opened = context.new_page()
    note_complaints(opened, complaints)
    opened.add_init_script(
        "document.addEventListener('securitypolicyviolation', e => console.error('CSP', e.violatedDirective, e.blockedURI))"
    )
    yield opened
    context.close()
