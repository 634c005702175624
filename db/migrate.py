"""The schema's way from one release to the next, run from code: there is no alembic.ini.

A change of the schema is one transaction on both engines: the views go, the revisions run, the views come back. A release that
changes a view therefore brings a revision, even an empty one.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from db.session import database_errors, make_engine, mask_url, parse_url
from db.views import VIEWS, create_views, drop_views

MIGRATIONS = Path(__file__).parent / "migrations"

#: How long a PostgreSQL migration waits for a lock that somebody holds, seconds; better to fail than to stop the service.
LOCK_TIMEOUT_S = 15

#: Number of PostgreSQL's advisory lock that lets one migration run at a time.
_MIGRATION_LOCK = 0x6D696772


def upgrade(url: str) -> None:
    """Bring the schema to this release; does nothing where it is. Safe to call from several processes at once.

    Raises:
        DatabaseUnavailable: the database is away, or somebody holds a table for too long; nothing was changed.
        ConfigurationError: the URL cannot be used.
    """
    current, head = current_and_head(url)
    if current != head or not _has_views(url):
        _change(url, lambda config: command.upgrade(config, "head"))


def downgrade(url: str, revision: str) -> None:
    """Take the schema back to an older revision, or to ``base`` (no tables, no data).

    Raises:
        DatabaseUnavailable: as for `upgrade`.
    """
    _change(url, lambda config: command.downgrade(config, revision))


def current_and_head(url: str) -> tuple[str | None, str]:
    """The revision that the database has (None: no tables yet), and the one that this release needs.

    Raises:
        DatabaseUnavailable: the database is away.
    """
    with _connected(url, writes=False) as connection:
        return _revision(connection), _head()


def _change(url: str, run: Callable[[Config], None]) -> None:
    with _connected(url, writes=True) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT_S}s'"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _MIGRATION_LOCK})
        drop_views(connection)
        run(_config(connection))
        if _revision(connection) == _head():
            create_views(connection)


@contextmanager
def _connected(url: str, *, writes: bool) -> Iterator[Connection]:
    """One transaction on a connection of its own. SQLite rewrites whole tables: foreign keys must not cascade then."""
    parsed = parse_url(url)
    engine = make_engine(parsed, foreign_keys=False, query_only=not writes)
    try:
        with database_errors(mask_url(parsed)), engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _head() -> str:
    head = ScriptDirectory.from_config(_config()).get_current_head()
    if head is None:
        raise RuntimeError(f"no revision in {MIGRATIONS}")
    return head


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _has_views(url: str) -> bool:
    with _connected(url, writes=False) as connection:
        return set(VIEWS) <= set(inspect(connection).get_view_names())
