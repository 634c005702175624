"""The schema's way from one release to the next, run from code: there is no alembic.ini.

A change of the schema is one transaction on both engines: the views let go of the tables, the revisions run, the views are made
again (`db.sql_views.views`). A release that changes a view therefore brings a revision, even an empty one.

Releases overlap while a service is upgraded, so a database may be newer than the code that reads it. Each upgrade notes in
`schema_release` the oldest release that still works with the schema; an older release finds its own revision there or does not.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, delete, insert, inspect, select, text

from db.models import SchemaRelease
from db.session import database_errors, make_engine, mask_url, parse_url
from db.sql_views.views import VIEWS, drop_views, free_tables, restore_views
from wherefrom.errors import SchemaTooNew

MIGRATIONS = Path(__file__).parent / "migrations"

#: Head of the oldest release that works with this release's schema. Expanding keeps it; the release whose revision takes
#: something away that an older release reads or writes (contracts) raises it.
COMPATIBLE_FROM = "0004"

#: How long a PostgreSQL migration waits for a lock that somebody holds, seconds; better to fail than to stop the service.
LOCK_TIMEOUT_S = 15

#: Number of PostgreSQL's advisory lock that lets one migration run at a time.
_MIGRATION_LOCK = 0x6D696772


class Standing(StrEnum):
    """How a database's schema stands to this release."""

    #: It is the schema of this release.
    CURRENT = "current"
    #: It is older, or there is none yet: `migrate` brings it up to date.
    BEHIND = "behind"
    #: It is newer, and declared to work with this release.
    AHEAD = "ahead"
    #: It is newer, and nobody declared that this release works with it.
    TOO_NEW = "too_new"


@dataclass(frozen=True)
class Schema:
    """The schema of a database beside that of this release."""

    #: Revision of the database; None without tables.
    current: str | None
    #: Revision that this release brings.
    head: str
    standing: Standing

    @property
    def is_usable(self) -> bool:
        """Whether this release works with it."""
        return self.standing in {Standing.CURRENT, Standing.AHEAD}

    @property
    def text(self) -> str:
        """What it is and what to do, in one line."""
        if self.standing is Standing.CURRENT:
            return f"the schema is {self.current}"
        if self.standing is Standing.BEHIND:
            return f"the database is at revision {self.current or 'none'}, this release needs {self.head}: run `python -m worker migrate`"
        newer = f"the schema is {self.current}, made by a newer release (this release has {self.head})"
        if self.standing is Standing.AHEAD:
            return f"{newer}; it is declared compatible, so this release works with it"
        return f"{newer}; it is not declared compatible with this release: run the newer release"


def upgrade(url: str) -> Schema:
    """Bring the schema to this release; does nothing where it is newer and compatible. Safe to call from several processes at once.

    Returns:
        The schema as it is now.

    Raises:
        SchemaTooNew: a newer release made the schema, and this one is not declared to work with it; nothing was changed.
        DatabaseUnavailable: the database is away, or somebody holds a table for too long; nothing was changed.
        ConfigurationError: the URL cannot be used.
    """
    found = schema_of(url)
    if found.standing is Standing.TOO_NEW:
        raise SchemaTooNew(found.text)
    if found.standing is Standing.BEHIND or (found.standing is Standing.CURRENT and not _has_views(url)):
        _change(url, lambda config: command.upgrade(config, "head"))
        return schema_of(url)
    return found


def downgrade(url: str, revision: str) -> None:
    """Take the schema back to an older revision, or to ``base`` (no tables, no data).

    The views stay; what an older schema does not hold is NULL in them.

    Raises:
        DatabaseUnavailable: as for `upgrade`.
    """
    _change(url, lambda config: command.downgrade(config, revision))


def schema_of(url: str) -> Schema:
    """The schema of a database beside that of this release.

    Raises:
        DatabaseUnavailable: the database is away.
    """
    with _connected(url, writes=False) as connection:
        current, head = _revision(connection), _head()
        return Schema(current, head, _standing(connection, current, head))


def _standing(connection: Connection, current: str | None, head: str) -> Standing:
    if current == head:
        return Standing.CURRENT
    known = _known_revisions()
    if current is None or current in known:
        return Standing.BEHIND
    return Standing.AHEAD if _declared(connection, current) in known else Standing.TOO_NEW


def _declared(connection: Connection, current: str) -> str | None:
    """Head of the oldest release that the newest upgrade declared to work with the schema; None where it declared none."""
    if not inspect(connection).has_table(SchemaRelease.__tablename__):
        return None
    declared = select(SchemaRelease.compatible_from).where(SchemaRelease.revision == current)
    return connection.execute(declared).scalar_one_or_none()


def _change(url: str, run: Callable[[Config], None]) -> None:
    with _connected(url, writes=True) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT_S}s'"))
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _MIGRATION_LOCK})
        free_tables(connection)
        run(_config(connection))
        revision = _revision(connection)
        if revision is None:
            drop_views(connection)
            return
        restore_views(connection)
        if inspect(connection).has_table(SchemaRelease.__tablename__):
            _declare(connection, revision)


def _declare(connection: Connection, revision: str) -> None:
    connection.execute(delete(SchemaRelease))
    row = {"id": 1, "revision": revision, "compatible_from": COMPATIBLE_FROM}
    connection.execute(insert(SchemaRelease), row)


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


def _known_revisions() -> set[str]:
    """All revisions that this release has."""
    return {one.revision for one in ScriptDirectory.from_config(_config()).walk_revisions()}


def _revision(connection: Connection) -> str | None:
    """The revision that the database is at, known to this release or not."""
    return MigrationContext.configure(connection).get_current_revision()


def _has_views(url: str) -> bool:
    with _connected(url, writes=False) as connection:
        return set(VIEWS) <= set(inspect(connection).get_view_names())
