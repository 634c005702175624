"""The real web application over SQLite, served by uvicorn on a free port, filled with the story of the pages."""

import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvicorn
from structlog.testing import capture_logs

from db.session import Database
from tests.integration.web.story import Story, fill_with_story
from tests.services.templates import Templates
from tests.waiting import wait_until
from web.app import create_app
from wherefrom.metrics import Metrics
from wherefrom.settings import Settings


@dataclass(frozen=True)
class Served:
    """A running service and the database behind it."""

    url: str
    database: Database
    story: Story


_stories: list[Story] = []


def _fill(url: str) -> None:
    """Tell the story in a new database."""
    filled = Database(url)
    _stories.append(fill_with_story(filled, url=url))
    filled.dispose()


@pytest.fixture
def served(templates: Templates, tmp_path: Path) -> Iterator[Served]:
    """A running service with the story in its database, and pages of at most seven."""
    url = templates.copy_sqlite(tmp_path / "wherefrom.db", "long_story", _fill)
    database = Database(url)
    settings = Settings(database_url=url, max_page_size=7, recipe="recipe.json", state_dir=tmp_path / "state")
    listener = socket.create_server(("127.0.0.1", 0))
    app = create_app(settings, database, metrics=Metrics())
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    wait_until(lambda: server.started)
    with capture_logs():  # the service's lines do not belong to what the command prints
        yield Served(f"http://127.0.0.1:{listener.getsockname()[1]}", database, _stories[0])
        server.should_exit = True
        thread.join(10)
    listener.close()
    database.dispose()
