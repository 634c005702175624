"""Judges what a database says: does it speak of one record, of a limit that trying again cannot move, or of itself?

An allow-list. Only SQLSTATE class 22 (data) and 23 (integrity), and their counterparts in SQLite, speak of the rows of the
statement. Class 54 (a limit of the database) will be the same tomorrow. Everything else, known or not, is the database's own
state: a standby, a missing privilege, a missing table, a lock. Then nobody is to blame and everybody waits.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Text, UniqueConstraint
from sqlalchemy.exc import DatabaseError, DataError, DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from db.models import Base
from wherefrom.errors import (
    DatabaseReadOnly,
    DatabaseUnavailable,
    UnstorableRecord,
    ValueTooLong,
    WherefromError,
)
from wherefrom.logs import get_logger

log = get_logger(__name__)

#: SQLSTATE classes that speak of the statement's own rows.
_RECORD_CLASSES = frozenset({"22", "23"})
#: SQLSTATE class of limits: an index row, a JSON string, a statement that is too long.
_LIMIT_CLASS = "54"
_READ_ONLY = "25006"

#: What to do, by SQLSTATE, where the driver's own words do not say it.
_ADVICE = {
    "42P01": "the tables are missing; run `python -m worker migrate`",
    "42703": "the schema is older than this release; run `python -m worker migrate`",
    "42501": "{said}; GRANT the database user SELECT, INSERT, UPDATE and DELETE on all tables, and USAGE on all sequences",
    _READ_ONLY: "it is read-only (a standby, or set to read-only); point WHEREFROM_DATABASE_URL at the primary",
}

#: PostgreSQL names the index in its message where it does not name it in a field of its own.
_INDEX_IN_TEXT = re.compile(r'index "(?P<name>\w+)"')
_TABLE_IN_STATEMENT = re.compile(r"(?:INSERT INTO|UPDATE) (?P<table>\w+)")


def speaks_of_record(error: SQLAlchemyError) -> bool:
    """Whether the database refused the statement for the values in it (SQLSTATE class 22 or 23)."""
    if not isinstance(error, DBAPIError):
        return False
    state = sqlstate(error)
    if state is None:  # SQLite, and values that psycopg refuses before it sends them
        return isinstance(error, DataError | IntegrityError)
    return state[:2] in _RECORD_CLASSES


def judged(error: SQLAlchemyError, url_masked: str) -> WherefromError | None:
    """What the error means in our words; None where it speaks of the record and is for the caller to judge."""
    if isinstance(error, PoolTimeout):
        return DatabaseUnavailable(f"database {url_masked}: all connections of the pool are in use")
    if not isinstance(error, DBAPIError):
        log.error("database_error_unknown", error=type(error).__name__, exc_info=error)
        return DatabaseUnavailable(
            f"database {url_masked}: {type(error).__name__}; the log has the traceback"
        )
    if speaks_of_record(error):
        return None
    if (sqlstate(error) or "")[:2] == _LIMIT_CLASS:
        return ValueTooLong(_limit_words(error))
    kind = DatabaseReadOnly if _is_read_only(error) else DatabaseUnavailable
    return kind(f"database {url_masked}: {_reason(error)}")


def unstorable(error: Exception) -> UnstorableRecord:
    """The refusal of a record in our words: which rule, never which value.

    Args:
        error: Of the database (one that `speaks_of_record`), or of the driver before it sent anything.
    """
    original: Any = error.orig if isinstance(error, DBAPIError) else error
    rule = _diagnosis(original, "constraint_name") or _diagnosis(original, "column_name")
    where = f" ({rule})" if rule else ""
    return UnstorableRecord(
        f"the database refuses a value{where}: {type(original).__name__}; change the value before you send it again"
    )


@contextmanager
def refusals_as_errors() -> Iterator[None]:
    """Raise `UnstorableRecord` where the database, or the driver before it, refuses a value."""
    try:
        yield
    except (SQLAlchemyError, UnicodeError, OverflowError) as error:
        raise unstorable(error) from error


def sqlstate(error: DBAPIError) -> str | None:
    """PostgreSQL's five-character code; None for SQLite and for errors that the server never saw."""
    code: str | None = getattr(error.orig, "sqlstate", None)
    return code


def _is_read_only(error: DBAPIError) -> bool:
    name: str = getattr(error.orig, "sqlite_errorname", "")
    in_recovery = "during recovery" in str(error.orig)
    return sqlstate(error) == _READ_ONLY or in_recovery or name.startswith("SQLITE_READONLY")


def _limit_words(error: DBAPIError) -> str:
    """Which field is too long, as far as the database says which of its limits was met."""
    index = _diagnosis(error.orig, "constraint_name")
    if index is None and (found := _INDEX_IN_TEXT.search(str(error.orig))):
        index = found["name"]
    said = _one_line(error)
    columns = _indexed_texts(index, _TABLE_IN_STATEMENT.search(error.statement or ""))
    if not columns:
        return f"a value is too long for the database: {said}"
    return f"{' or '.join(f'`{column}`' for column in columns)} is too long for the database's index: {said}"


def _indexed_texts(index: str | None, written: re.Match[str] | None) -> list[str]:
    """Text columns of the index; where it is not known, of all indexes of the table that the statement writes."""
    found: set[str] = set()
    for table in Base.metadata.tables.values():
        if index is None and (written is None or written["table"] != table.name):
            continue
        unique = [one for one in table.constraints if isinstance(one, UniqueConstraint)]
        held = [(one.name, one.columns) for one in table.indexes] + [
            (one.name, one.columns) for one in unique
        ]
        for name, columns in held:
            if index in {None, name}:
                found |= {
                    f"{table.name}.{column.name}" for column in columns if isinstance(column.type, Text)
                }
    return sorted(found)


def _diagnosis(original: Any, field: str) -> str | None:
    found: str | None = getattr(getattr(original, "diag", None), field, None)
    return found


def _reason(error: DBAPIError) -> str:
    """What the driver said and what to do, on one line; its text names hosts and tables, never values or passwords."""
    said = _one_line(error)
    if "no such table" in said:
        return _ADVICE["42P01"]
    if "no such column" in said or "has no column" in said:
        return _ADVICE["42703"]
    if _is_read_only(error):
        return _ADVICE[_READ_ONLY]
    if type(error) is DatabaseError:  # SQLite says so of a file that is none of its own
        return f"{said}; the file is damaged or is not a database"
    return _ADVICE.get(sqlstate(error) or "", "{said}").format(said=said)


def _one_line(error: DBAPIError) -> str:
    return " ".join(str(error.orig).split()) or type(error.orig).__name__
