"""The web application over a database that holds the story."""

from collections.abc import Callable, Iterator

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from db import migrate
from db.session import Database
from tests.integration.web import story
from web.app import create_app
from web.health import SilentProbe
from wherefrom.metrics import Metrics
from wherefrom.settings import Settings

BASE_URL = "http://127.0.0.1:8077"


@pytest.fixture
def empty_database(database_url: str) -> Iterator[Database]:
    """A migrated database without data, on both engines."""
    migrate.upgrade(database_url)
    database = Database(database_url)
    yield database
    database.dispose()


@pytest.fixture
def told(empty_database: Database, database_url: str) -> story.Story:
    """The story, stored."""
    return story.tell(empty_database, url=database_url, num_outputs=12, num_examples=60)


@pytest.fixture
def make_app(empty_database: Database, database_url: str) -> Callable[..., FastAPI]:
    """Makes an application with settings of its own."""

    def make(notify: Callable[..., None] | None = None, **settings: object) -> FastAPI:
        made = Settings.model_validate({"database_url": database_url, **settings})
        extra = {"notify": notify} if notify else {}
        return create_app(made, empty_database, metrics=Metrics(), queue=SilentProbe(), **extra)

    return make


@pytest.fixture
def client(make_app: Callable[..., FastAPI]) -> TestClient:
    """A client of an application on loopback."""
    return TestClient(make_app(), base_url=BASE_URL)
