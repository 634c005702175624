# ruff: noqa: ARG001, ARG002 - SQLAlchemy dictates the signatures of its hooks
"""Time as the database sees it: the column type for aware times, and the database's own clock in SQL.

Leases, retry times and expiry are compared with one clock only, the database's, so that the clocks of the machines
around it may be wrong. On SQLite a time is text in UTC with microseconds (``2025-01-31 08:00:00.123000``), which sorts as time.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Dialect, Float, literal
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import DateTime, TypeDecorator

#: What ended this long before the last look is looked at again: its transaction may have committed after it.
LATE_COMMIT = timedelta(seconds=900)


class UtcTimestamp(TypeDecorator[datetime]):
    """A point in time: aware datetimes go in, aware datetimes in UTC come out, on both engines."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Turn an aware time into what the engine stores.

        Raises:
            ValueError: the time is naive, so nobody can say which instant is meant.
        """
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"naive time {value.isoformat()}; give one with a time zone")
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give what the engine stored as an aware time in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class db_now(FunctionElement[datetime]):  # noqa: N801 - it is used like a SQL function
    """The database's clock at the start of the statement (milliseconds on SQLite, microseconds on PostgreSQL)."""

    type = UtcTimestamp()
    inherit_cache = True


class db_after(FunctionElement[datetime]):  # noqa: N801 - it is used like a SQL function
    """The database's clock plus `seconds` (may be a fraction, may be negative)."""

    type = UtcTimestamp()
    inherit_cache = True

    def __init__(self, seconds: float) -> None:
        super().__init__(literal(seconds, Float()))


@compiles(db_now, "sqlite")
def _now_sqlite(element: db_now, compiler: SQLCompiler, **kwargs: Any) -> str:
    return "(strftime('%Y-%m-%d %H:%M:%f', 'now') || '000')"


@compiles(db_now, "postgresql")
def _now_postgresql(element: db_now, compiler: SQLCompiler, **kwargs: Any) -> str:
    return "statement_timestamp()"


@compiles(db_after, "sqlite")
def _after_sqlite(element: db_after, compiler: SQLCompiler, **kwargs: Any) -> str:
    seconds = compiler.process(element.clauses, **kwargs)
    return f"(strftime('%Y-%m-%d %H:%M:%f', 'now', printf('%+.3f seconds', {seconds})) || '000')"


@compiles(db_after, "postgresql")
def _after_postgresql(element: db_after, compiler: SQLCompiler, **kwargs: Any) -> str:
    seconds = compiler.process(element.clauses, **kwargs)
    return f"(statement_timestamp() + make_interval(secs => {seconds}))"
