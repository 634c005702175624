"""Databases that refuse: a standby, a missing privilege, and rows that break the statement that stores them."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import event, text

from db.session import Database, parse_url

#: Stands for any error of SQLite that is not about the row.
SQLITE_OVERFLOW = "SELECT abs(-9223372036854775807 - 1)"
#: Stands for any refusal of SQLite that is about the row.
SQLITE_ABORT = "SELECT RAISE(ABORT, 'not this row')"


def on_postgres(database: Database) -> bool:
    """Whether this is PostgreSQL."""
    return database.dialect == "postgresql"


def run(database: Database, *statements: str) -> None:
    """Change the database in one transaction, as an operator's hand would."""
    with database.writing() as session:
        for statement in statements:
            session.execute(text(statement))


@contextmanager
def read_only(database: Database, url: str) -> Iterator[None]:
    """The database takes no writes inside the block, on new and on open connections."""
    name = parse_url(url).database
    if on_postgres(database):
        run(database, f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    else:
        event.listen(database._writer, "connect", _query_only)
    database.dispose()
    try:
        yield
    finally:
        if on_postgres(database):
            run(
                database,
                "SET TRANSACTION READ WRITE",
                f'ALTER DATABASE "{name}" SET default_transaction_read_only = off',
            )
        else:
            event.remove(database._writer, "connect", _query_only)
        database.dispose()


def _query_only(connection, record) -> None:
    connection.execute("PRAGMA query_only = ON")


def refuse_rows(database: Database, *, like: str, sqlstate: str, table: str = "flagged_output") -> None:
    """Every row whose key is like `like` breaks its INSERT with this SQLSTATE; on SQLite with an error of the same kind."""
    if on_postgres(database):
        run(
            database,
            f"CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            f"RAISE EXCEPTION 'not this row' USING ERRCODE = '{sqlstate}'; END $$",
            f"CREATE TRIGGER refuse BEFORE INSERT ON {table} FOR EACH ROW "
            f"WHEN (NEW.idempotency_key LIKE '{like}') EXECUTE FUNCTION refuse()",
        )
        return
    action = SQLITE_ABORT if sqlstate[:2] in {"22", "23"} else SQLITE_OVERFLOW
    run(
        database,
        f"CREATE TRIGGER refuse BEFORE INSERT ON {table} WHEN NEW.idempotency_key LIKE '{like}' BEGIN {action}; END",
    )


def allow_rows(database: Database, table: str = "flagged_output") -> None:
    """Take `refuse_rows` back."""
    run(database, f"DROP TRIGGER refuse ON {table}" if on_postgres(database) else "DROP TRIGGER refuse")
