"""Databases that are filled once per session and engine; a test gets a copy of its own, which takes milliseconds."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from db import migrate
from tests.services.postgres import PostgresServer

Fill = Callable[[str], object]


class Templates:
    """Makes copies of databases, each kind of which is filled on first use, by the function that was given then.

    Args:
        folder: Holds the SQLite templates.
        postgres: Gives the PostgreSQL cluster; asked only when a test wants a copy there.
    """

    def __init__(self, folder: Path, postgres: Callable[[], PostgresServer]) -> None:
        self._folder, self._postgres = folder, postgres
        self._made: set[str] = set()
        self._copies = count(1)

    def copy_sqlite(self, path: Path, kind: str = "migrated", fill: Fill = migrate.upgrade) -> str:
        """The URL of a new SQLite file, a copy of the kind's template."""
        template = self._folder / f"{kind}.db"
        if not template.exists():
            filling = self._folder / f"{kind}.filling"  # what failed half-way is no template
            filling.unlink(missing_ok=True)
            fill(f"sqlite:///{filling}")
            filling.rename(template)
        return f"sqlite:///{shutil.copy(template, path)}"

    def copy_postgres(self, kind: str = "migrated", fill: Fill = migrate.upgrade) -> str:
        """The URL of a new PostgreSQL database, a copy of the kind's template; see `drop_postgres`."""
        server, template = self._postgres(), f"template_{kind}"
        if kind not in self._made:
            server.drop_database(template)
            server.create_database(template)
            fill(server.url(template))
            self._made.add(kind)
        name = f"copy_{next(self._copies)}"
        server.create_database(name, template=template)
        return server.url(name)

    @contextmanager
    def copied(
        self, engine: str, path: Path, kind: str = "migrated", fill: Fill = migrate.upgrade
    ) -> Iterator[str]:
        """The URL of a copy on `sqlite`, in the file of this path, or on `postgres`, for as long as the block runs."""
        if engine == "sqlite":
            yield self.copy_sqlite(path, kind, fill)
            return
        url = self.copy_postgres(kind, fill)
        try:
            yield url
        finally:
            self.drop_postgres(url)

    def drop_postgres(self, url: str) -> None:
        """Drop a copy."""
        self._postgres().drop_database(url.rsplit("/", 1)[1])
