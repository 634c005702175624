"""Connections and transactions: one `Database` per process, with one door for reading and one for writing.

Knows the two engines apart (SQLite in WAL mode, PostgreSQL over psycopg); what is read and written is the business of
the other files. Every way in which a database can be away becomes `DatabaseUnavailable` here.
"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, ExceptionContext, create_engine, event, make_url, text
from sqlalchemy.exc import (
    ArgumentError,
    DatabaseError,
    DBAPIError,
    InterfaceError,
    OperationalError,
    ProgrammingError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from wherefrom.errors import ConfigurationError, DatabaseUnavailable
from wherefrom.settings import Settings

#: How long a SQLite connection waits for another writer, seconds.
BUSY_TIMEOUT_S = 10.0
#: How long the first packet of a PostgreSQL server is waited for, seconds.
CONNECT_TIMEOUT_S = 10
#: PostgreSQL's code for a table that is not there.
_UNDEFINED_TABLE = "42P01"

_to_json = partial(json.dumps, ensure_ascii=False)


class Database:
    """One database of wherefrom, with its pools of connections. Connects when it is first used."""

    def __init__(self, url: str) -> None:
        """Prepare the pools; a SQLite file's folder is made.

        Raises:
            ConfigurationError: the URL cannot be read, or names an engine other than SQLite (in a file) or PostgreSQL.
        """
        self._url = parse_url(url)
        self.url_masked = mask_url(self._url)
        self.dialect = self._url.get_backend_name()
        self._writer = make_engine(self._url)
        self._reader = _reading_engine(self._url, self._writer)

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """One transaction that may write; committed at the end of the block, rolled back when the block raises.

        On SQLite it takes the write lock with its first statement (BEGIN IMMEDIATE), so what it reads stays true until it commits.

        Raises:
            DatabaseUnavailable: the database is away, or it refused the transaction (deadlock, lock not given in time).
        """
        with (
            away_as_unavailable(self.url_masked),
            Session(self._writer, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """One read-only transaction; all its statements see the same state of the database.

        Raises:
            DatabaseUnavailable: the database is away.
        """
        with away_as_unavailable(self.url_masked), Session(self._reader) as session:
            yield session

    def ping(self) -> None:
        """Ask the database for an answer.

        Raises:
            DatabaseUnavailable: none came.
        """
        with self.reading() as session:
            session.execute(text("SELECT 1"))

    def dispose(self) -> None:
        """Close the connections of the pools; the next use opens new ones."""
        self._writer.dispose()
        self._reader.dispose()


@contextmanager
def away_as_unavailable(url_masked: str) -> Iterator[None]:
    """Raise `DatabaseUnavailable` where SQLAlchemy says that the database is away; other errors pass as they are."""
    try:
        yield
    except PoolTimeout as error:
        raise DatabaseUnavailable(f"database {url_masked}: all connections of the pool are in use") from error
    except DBAPIError as error:
        if not _says_away(error):
            raise
        raise DatabaseUnavailable(f"database {url_masked}: {_reason(error)}") from error


def open_database(settings: Settings) -> Database:
    """The database of the settings; connects when first used."""
    return Database(settings.database_url.get_secret_value())


def parse_url(url: str) -> URL:
    """Read a database URL; plain ``postgresql://`` gets the driver that wherefrom is tested with.

    Raises:
        ConfigurationError: see `Database`.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ConfigurationError(
            "the database URL cannot be read; write sqlite:///PATH or postgresql+psycopg://..."
        ) from error
    if parsed.drivername in ("postgres", "postgresql"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername not in ("sqlite", "sqlite+pysqlite", "postgresql+psycopg"):
        raise ConfigurationError(
            f"database engine {parsed.drivername!r} is not supported; use sqlite or postgresql+psycopg"
        )
    if parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise ConfigurationError(
            "SQLite in memory cannot be shared between processes; give a path: sqlite:///PATH"
        )
    return parsed


def mask_url(url: URL) -> str:
    """The URL as text without its password, wherever in it the password stands."""
    if "password" in url.query:
        url = url.update_query_dict({"password": "hidden"})
    return url.render_as_string(hide_password=True)


def make_engine(url: URL, *, foreign_keys: bool = True, query_only: bool = False) -> Engine:
    """An engine with the settings that wherefrom relies on. Parameters of statements never stand in its errors.

    Args:
        url: As given by `parse_url`.
        foreign_keys: Off only while a SQLite schema is migrated.
        query_only: SQLite connections that refuse to write.

    Raises:
        ConfigurationError: the folder of a SQLite file cannot be made.
    """
    if url.get_backend_name() == "postgresql":
        return _postgresql_engine(url)
    return _sqlite_engine(url, foreign_keys=foreign_keys, query_only=query_only)


def _postgresql_engine(url: URL) -> Engine:
    engine = create_engine(
        url,
        pool_pre_ping=True,
        hide_parameters=True,
        json_serializer=_to_json,
        connect_args={"connect_timeout": CONNECT_TIMEOUT_S, "application_name": "wherefrom"},
    )

    @event.listens_for(engine, "handle_error")
    def _hide_row(context: ExceptionContext) -> None:
        """PostgreSQL quotes the whole row that breaks a constraint in the DETAIL of its error; it may hold an output's text."""
        import psycopg  # noqa: PLC0415 - a tenth of a second in each process that serves SQLite

        original = context.original_exception
        if isinstance(original, psycopg.Error) and original.diag.message_detail is not None:
            primary = original.diag.message_primary or type(original).__name__
            original.args = (primary,)
            if context.sqlalchemy_exception is not None:
                context.sqlalchemy_exception.args = (primary,)

    return engine


def _sqlite_engine(url: URL, *, foreign_keys: bool, query_only: bool) -> Engine:
    _make_folder(Path(url.database or ""))
    engine = create_engine(
        url,
        hide_parameters=True,
        json_serializer=_to_json,
        # The driver opens no transactions of its own; `_begin` below does.
        connect_args={"timeout": BUSY_TIMEOUT_S, "isolation_level": None},
    )

    @event.listens_for(engine, "connect")
    def _prepare(connection: sqlite3.Connection, record: object) -> None:  # noqa: ARG001 - the event's signature
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA foreign_keys = {'ON' if foreign_keys else 'OFF'}")
        connection.execute(f"PRAGMA query_only = {'ON' if query_only else 'OFF'}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN" if query_only else "BEGIN IMMEDIATE")

    return engine


def _reading_engine(url: URL, writer: Engine) -> Engine:
    """SQLite: a pool of its own that refuses writes. PostgreSQL: the same pool, read-only snapshots."""
    if url.get_backend_name() == "sqlite":
        return make_engine(url, query_only=True)
    return writer.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)


def _make_folder(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"the folder of the database file {path} cannot be made: {error.strerror}"
        ) from error


def _says_away(error: DBAPIError) -> bool:
    """Whether the database is away or unusable, rather than the statement wrong."""
    damaged_file = type(error) is DatabaseError
    return (
        isinstance(error, OperationalError | InterfaceError)
        or error.connection_invalidated
        or damaged_file
        or _lacks_tables(error)
    )


def _lacks_tables(error: DBAPIError) -> bool:
    sqlstate: Any = getattr(error.orig, "sqlstate", None)
    undefined = isinstance(error, ProgrammingError) and sqlstate == _UNDEFINED_TABLE
    return undefined or "no such table" in str(error.orig)


def _reason(error: DBAPIError) -> str:
    """What the driver said, on one line; its text names hosts and tables, never values or passwords."""
    if _lacks_tables(error):
        return "the tables are missing; run `python -m worker migrate`"
    return " ".join(str(error.orig).split()) or type(error.orig).__name__
