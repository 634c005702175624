"""Connections and transactions: one `Database` per process, with one way to read and one way to write.

Knows the two engines apart (SQLite in WAL mode, PostgreSQL over psycopg); what is read and written is the business of
the other files. What the database says is judged in `db.faults`; its errors become ours here.
"""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from sqlalchemy import URL, Connection, Engine, ExceptionContext, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.orm import Session

from db.faults import judged
from db.sight import limit_statements
from wherefrom.errors import ConfigurationError, DatabaseReadOnly
from wherefrom.logs import get_logger
from wherefrom.masking import MASK, is_secret_name, mask, readable_url
from wherefrom.private import private_file, private_folder
from wherefrom.settings import Settings

#: How long a SQLite connection waits for another writer, seconds.
BUSY_TIMEOUT_S = 10.0
#: How long a transaction that must not wait waits for a lock of PostgreSQL, milliseconds.
HASTY_LOCK_MS = 50
#: How long the first packet of a PostgreSQL server is waited for, seconds.
CONNECT_TIMEOUT_S = 10

#: Longest statement, longest wait for a lock, and longest pause inside a transaction on PostgreSQL, seconds. A migration sets its own.
STATEMENT_TIMEOUT_S, LOCK_TIMEOUT_S, IDLE_TIMEOUT_S = 60, 10, 120
#: Connections that one process may hold to PostgreSQL, and how long a thread waits for one, seconds.
POOL_SIZE, POOL_OVERFLOW, POOL_TIMEOUT_S = 8, 24, 5
#: A server that went away without a word is noticed: by TCP keepalives while a connection is idle, by the user timeout while it is not.
_KEEPALIVES = {
    "keepalives": 1,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}

#: `json.dumps` would make one for each of the hundreds of values of a batch.
_ENCODER = json.JSONEncoder(ensure_ascii=False)


def _to_json(value: Any) -> str:
    """The value as JSON; most lists that are stored are empty."""
    return "[]" if value in ([], ()) else _ENCODER.encode(value)


log = get_logger(__name__)


class Database:
    """One database of wherefrom, with its pools of connections. Connects when it is first used; a `with` block disposes of it at its end."""

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
        on_sqlite = self.dialect == "sqlite"
        self._hasty = make_engine(self._url, busy_timeout_s=0.0) if on_sqlite else self._writer

    @property
    def most_writers(self) -> int | None:
        """Writers at once that one process has use for; None where the database takes many.

        SQLite takes one. The others would sleep before its lock, up to a tenth of a second at a time and in no order.
        """
        return 1 if self.dialect == "sqlite" else None

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """One transaction that may write; committed at the end of the block, rolled back when the block raises.

        On SQLite it takes the write lock with its first statement (BEGIN IMMEDIATE), so what it reads stays true until it commits.

        Raises:
            DatabaseUnavailable: the database is away, or it refuses the transaction for a reason of its own.
            DatabaseReadOnly: it answers and takes no writes; the pool is emptied, so that the next try connects anew.
            ValueTooLong: a value is beyond a limit of the database.
            IntegrityError, DataError: it refuses the values of the statement (`db.faults.speaks_of_record`).
        """
        try:
            with (
                database_errors(self.url_masked),
                Session(self._writer, expire_on_commit=False) as session,
                session.begin(),
            ):
                yield session
        except DatabaseReadOnly:
            self._writer.dispose()  # after a failover the name leads elsewhere, and old connections to the standby
            raise

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """One read-only transaction; all its statements see the same state of the database.

        Raises:
            DatabaseUnavailable: the database is away.
        """
        with database_errors(self.url_masked), Session(self._reader) as session:
            yield session

    @contextmanager
    def writing_at_once(self) -> Iterator[Session]:
        """As `writing`, but it gives up at once where somebody else holds a lock: for what is not worth a wait.

        Raises:
            DatabaseUnavailable, DatabaseReadOnly: as for `writing`, or the lock is taken.
        """
        with database_errors(self.url_masked), Session(self._hasty) as session, session.begin():
            if self.dialect == "postgresql":
                session.execute(text(f"SET LOCAL lock_timeout = {HASTY_LOCK_MS}"))
            yield session

    def clean(self, tables: Sequence[str]) -> bool:
        """Take out of the files what transactions have deleted, as far as the engine does that; outside of any transaction.

        SQLite deletes with zeros, and here its log goes into the file and is cut off. PostgreSQL frees the dead rows of the tables.

        Returns:
            Whether it is done; False where somebody still reads from SQLite's log. Call it again then.

        Raises:
            DatabaseUnavailable, DatabaseReadOnly: nothing was cleaned.
        """
        with database_errors(self.url_masked), self._writer.connect() as opened:
            connection = opened.execution_options(isolation_level="AUTOCOMMIT")
            if self.dialect == "sqlite":
                raw = connection.connection.driver_connection
                busy, _, _ = raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()  # type: ignore[union-attr]  # it is open
                return not busy
            refused: list[str | None] = []
            connection.connection.driver_connection.add_notice_handler(  # type: ignore[union-attr]  # it is open
                lambda notice: refused.append(notice.message_primary)
            )
            try:
                connection.exec_driver_sql("SET statement_timeout = 0")
                for table in tables:
                    connection.exec_driver_sql(f"VACUUM {table}")
            finally:
                opened.invalidate()  # the timeout goes with the connection
        if refused:
            log.warning(
                "vacuum_refused", reason=refused[0], advice="see roles of PostgreSQL in docs/operations.md"
            )
        return True

    def ping(self) -> None:
        """Ask the database for an answer.

        Raises:
            DatabaseUnavailable: none came.
        """
        with self.reading() as session:
            session.execute(text("SELECT 1"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.dispose()

    def dispose(self) -> None:
        """Close the connections of the pools; the next use opens new ones."""
        self._writer.dispose()
        self._reader.dispose()
        self._hasty.dispose()


@contextmanager
def database_errors(url_masked: str) -> Iterator[None]:
    """Raise our errors for SQLAlchemy's; those that speak of the statement's own values pass as they are."""
    try:
        yield
    except SQLAlchemyError as error:
        ours = judged(error, url_masked)
        if ours is None:
            raise
        raise ours from error


def open_database(settings: Settings) -> Database:
    """The database of the settings; connects when first used."""
    return Database(settings.database_url.get_secret_value())


def parse_url(url: str) -> URL:
    """Read a database URL; plain ``postgresql://`` gets the driver that wherefrom is tested with.

    Raises:
        ConfigurationError: see `Database`.
    """
    try:
        parsed = make_url(readable_url(url))
    except ArgumentError as error:
        raise ConfigurationError(
            "the database URL is invalid; write sqlite:///PATH or postgresql+psycopg://..."
        ) from error
    except ValueError as error:  # the port: the text of the error may be a part of a password
        raise ConfigurationError(
            "the port of the database URL is empty or not a number; write postgresql+psycopg://USER:PASSWORD@HOST:PORT/NAME, or remove the colon"
        ) from error
    if parsed.port is not None and not 0 < parsed.port < 65536:
        raise ConfigurationError(f"the port of the database URL is {parsed.port}; ports go from 1 to 65535")
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
    """The URL as text without its secrets, wherever in it they stand."""
    hidden = {name: MASK for name in url.query if is_secret_name(name)}
    return mask(url.update_query_dict(hidden).render_as_string(hide_password=True))


def make_engine(
    url: URL, *, foreign_keys: bool = True, query_only: bool = False, busy_timeout_s: float = BUSY_TIMEOUT_S
) -> Engine:
    """An engine with the settings that wherefrom relies on. Parameters of statements never stand in its errors.

    Args:
        url: As given by `parse_url`.
        foreign_keys: Off only while a SQLite schema is migrated.
        query_only: SQLite connections that refuse to write.
        busy_timeout_s: How long a SQLite connection waits for another writer, seconds.

    Raises:
        ConfigurationError: the folder of a SQLite file cannot be made.
    """
    if url.get_backend_name() == "postgresql":
        engine = _postgresql_engine(url)
    else:
        engine = _sqlite_engine(
            url, foreign_keys=foreign_keys, query_only=query_only, busy_timeout_s=busy_timeout_s
        )
    limit_statements(engine)
    return engine


def _postgresql_engine(url: URL) -> Engine:
    engine = create_engine(
        url,
        pool_pre_ping=True,
        hide_parameters=True,
        json_serializer=_to_json,
        pool_size=POOL_SIZE,
        max_overflow=POOL_OVERFLOW,
        pool_timeout=POOL_TIMEOUT_S,
        # What the URL says wins.
        connect_args={"connect_timeout": CONNECT_TIMEOUT_S, "application_name": "wherefrom"}
        | {name: value for name, value in _KEEPALIVES.items() if name not in url.query},
    )

    @event.listens_for(engine, "connect")
    def _limit(connection: Any, record: object) -> None:  # noqa: ARG001 - the event's signature
        """By SET and not by start-up options, which a pooler between here and the server may refuse."""
        limits = {
            "statement_timeout": STATEMENT_TIMEOUT_S,
            "lock_timeout": LOCK_TIMEOUT_S,
            "idle_in_transaction_session_timeout": IDLE_TIMEOUT_S,
        }
        with connection.cursor() as cursor:
            for name, seconds in limits.items():
                cursor.execute(f"SET {name} = '{seconds}s'")
        connection.commit()

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

    @event.listens_for(engine, "checkin")
    def _as_the_server_says(connection: Any, record: object) -> None:  # noqa: ARG001 - the event's signature
        """After a reader SQLAlchemy leaves READ WRITE behind, which would overrule a database that is set to read-only."""
        if connection is not None:
            connection.read_only = None

    return engine


def _sqlite_engine(url: URL, *, foreign_keys: bool, query_only: bool, busy_timeout_s: float) -> Engine:
    _make_folder(Path(url.database or ""))
    engine = create_engine(
        url,
        hide_parameters=True,
        json_serializer=_to_json,
        # The driver opens no transactions of its own; `_begin` below does.
        connect_args={"timeout": busy_timeout_s, "isolation_level": None},
    )

    @event.listens_for(engine, "do_connect")
    def _make_file(*_: object) -> None:
        """SQLite would make it for everybody; what it puts beside the file gets the file's mode."""
        with suppress(OSError):  # SQLite says it better
            private_file(Path(url.database or ""))

    @event.listens_for(engine, "connect")
    def _prepare(connection: sqlite3.Connection, record: object) -> None:  # noqa: ARG001 - the event's signature
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA secure_delete = ON")  # zeros overwrite what is deleted or replaced
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
        private_folder(path.parent)
    except OSError as error:
        raise ConfigurationError(
            f"the folder of the database file {path} cannot be created: {error.strerror}"
        ) from error
