"""Puts the rows of `benchmarks/desk_data.py` into an empty database, as fast as each engine takes them.

On PostgreSQL all rows go in by COPY, in one transaction that made the tables empty: nothing is written twice, and no vacuum has to visit them. SQLite gets plain
INSERTs without a journal, by its driver. Indexes, those of words too, are made when all rows are in. A fill that was cut off begins anew.
"""

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.schema import CreateIndex, DropIndex

from benchmarks.desk_data import TableRows, base_rows
from benchmarks.program import report
from db import migrate
from db.models import Base
from db.session import make_engine, parse_url
from wherefrom.errors import ConfigurationError

#: Disk that one audit takes with everything, bytes; measured, rounded up.
BYTES_PER_AUDIT = 10_000
_TABLES = (
    "flagged_output", "flagged_text", "output_words", "training_example", "example_words", "audit", "citation",
    "trail_event", "review_item", "review",
)  # fmt: skip
#: Memory for pages and for sorting, MiB.
_MEMORY_MIB = 512
#: Words of a text index that SQLite holds before it writes them, bytes: while it is filled, and otherwise.
_WORDS_AT_ONCE, _WORDS_USUALLY = 1 << 26, 1 << 20


def fill(
    url: str, *, audits: int, where: Path, all_open: bool = False, further: Iterable[TableRows] = ()
) -> None:
    """Make the schema and fill it; with `all_open` every audit waits, and nothing is cited or judged yet.

    Args:
        url: An empty database.
        audits: How many audits.
        where: A folder on the disk that must have room.
        all_open: Every audit waits.
        further: Tables with rows that go in behind these.

    Raises:
        ConfigurationError: the disk has no room for so much, or the database holds audits.
    """
    free, needed = shutil.disk_usage(where).free, 2 * audits * BYTES_PER_AUDIT
    if free < needed:
        raise ConfigurationError(f"{audits} audits need {needed >> 30} GiB on {where}; {free >> 30} are free")
    migrate.upgrade(url)
    engine = make_engine(parse_url(url), foreign_keys=False)
    try:
        with engine.connect() as connection:
            if connection.execute(text("SELECT count(*) FROM audit")).scalar_one():
                raise ConfigurationError("the database holds audits; give an empty one")
            connection.rollback()
            rows = chain(base_rows(audits, all_open=all_open), further)
            put = _into_sqlite if connection.dialect.name == "sqlite" else _into_postgresql
            put(connection, rows)
    finally:
        engine.dispose()


def _into_postgresql(connection: Connection, rows: Iterable[TableRows]) -> None:
    """All in one transaction: PostgreSQL may then write rows as if they had always been there."""
    for setting in (
        "session_replication_role = replica",
        "statement_timeout = 0",
        "synchronous_commit = off",
    ):
        connection.execute(text(f"SET {setting}"))
    connection.execute(text(f"SET maintenance_work_mem = '{_MEMORY_MIB}MB'"))
    connection.commit()
    with _without_indexes(connection):
        found = connection.execute(_TERMS).all()
        for name, _ in found:
            connection.execute(text(f"DROP INDEX {name}"))
        connection.execute(text(f"TRUNCATE {', '.join(_TABLES)} CASCADE"))
        for table, some in rows:
            _copy(connection, table, some)
        report(["rows are in"])
        for _, definition in found:
            connection.execute(text(definition))
    _set_sequences(connection)
    connection.execute(text("SET session_replication_role = origin"))
    connection.commit()
    connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("VACUUM ANALYZE"))


#: The text indexes, which no model names.
_TERMS = text(
    "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' AND indexdef LIKE '%USING gin%'"
)


def _copy(connection: Connection, name: str, rows: Sequence[dict[str, Any]]) -> None:
    columns = list(rows[0])
    as_json = {one for one in columns if isinstance(rows[0][one], dict | list)}
    how = " (FREEZE)" if name in _TABLES else ""
    driver: Any = connection.connection.driver_connection
    with (
        driver.cursor() as cursor,
        cursor.copy(f"COPY {name} ({', '.join(columns)}) FROM STDIN{how}") as copy,
    ):
        for row in rows:
            copy.write_row([json.dumps(row[one]) if one in as_json else row[one] for one in columns])


def _set_sequences(connection: Connection) -> None:
    for name in _TABLES:
        if "id" not in Base.metadata.tables[name].c:
            continue
        if found := connection.execute(text(f"SELECT pg_get_serial_sequence('{name}', 'id')")).scalar():
            connection.execute(text(f"SELECT setval('{found}', (SELECT COALESCE(max(id), 1) FROM {name}))"))  # noqa: S608 - names of our own


def _into_sqlite(connection: Connection, rows: Iterable[TableRows]) -> None:
    driver: Any = connection.connection.driver_connection
    for pragma in (
        "journal_mode = OFF", "synchronous = OFF", "secure_delete = OFF", f"cache_size = -{_MEMORY_MIB << 10}"
    ):  # fmt: skip
        driver.execute(f"PRAGMA {pragma}")
    with _without_indexes(connection), _words_last(connection):
        for table, some in rows:
            connection.commit()
            _insert(connection, driver, table, some)
        report(["rows are in"])
    connection.commit()
    driver.execute("PRAGMA journal_mode = WAL")


def _insert(
    connection: Connection, driver: sqlite3.Connection, name: str, rows: Sequence[dict[str, Any]]
) -> None:
    """By the driver, with the values as SQLAlchemy would write them: it would ask anew what each value is."""
    columns = list(rows[0])
    makers = [(one, _maker(connection, name, one)) for one in columns]
    values = [[make(row[one]) if make else row[one] for one, make in makers] for row in rows]
    places = ", ".join("?" * len(columns))
    driver.execute("BEGIN")
    driver.executemany(f"INSERT INTO {name} ({', '.join(columns)}) VALUES ({places})", values)  # noqa: S608 - names of our own
    driver.execute("COMMIT")


def _maker(connection: Connection, table: str, column: str) -> Callable[[Any], Any] | None:
    """What makes the stored form of a column's values; None where they are stored as they are."""
    kind = Base.metadata.tables[table].c[column].type
    return kind.dialect_impl(connection.dialect).bind_processor(connection.dialect)


@contextmanager
def _words_last(connection: Connection) -> Iterator[None]:
    """SQLite's text indexes are made of all words at once, at the end."""
    triggers = connection.execute(
        text(
            "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name IN ('output_words', 'example_words')"
        )
    ).all()
    for name, _ in triggers:
        connection.execute(text(f"DROP TRIGGER {name}"))
    yield
    for table in ("output_words_fts", "example_words_fts"):
        set_size = f"INSERT INTO {table}({table}, rank) VALUES ('hashsize', ?)"  # noqa: S608 - names of our own
        connection.exec_driver_sql(set_size, (_WORDS_AT_ONCE,))
        connection.exec_driver_sql(f"INSERT INTO {table}({table}) VALUES ('rebuild')")  # noqa: S608 - as above
        connection.exec_driver_sql(set_size, (_WORDS_USUALLY,))
    for _, statement in triggers:
        connection.exec_driver_sql(statement)
    connection.commit()


@contextmanager
def _without_indexes(connection: Connection) -> Iterator[None]:
    """Drop the indexes of the tables that are filled, and make them again behind the block."""
    indexes = [index for name in _TABLES for index in Base.metadata.tables[name].indexes]
    for index in indexes:
        connection.execute(DropIndex(index))
    yield
    for index in indexes:
        connection.execute(CreateIndex(index))
