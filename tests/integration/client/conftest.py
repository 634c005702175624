"""The real web application over SQLite, served on a free port, filled with the story of the pages."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from db.session import Database
from scripts.web_thread import serving
from tests.integration.web.story import Story, fill_with_story
from tests.services.templates import Templates
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
    app = create_app(settings, database, metrics=Metrics())
    # the service's lines do not belong to what the command prints
    with capture_logs(), serving(app) as url:
        yield Served(url, database, _stories[0])
    database.dispose()
