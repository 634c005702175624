"""Statements that the two engines spell differently, or that need care under concurrency."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, TypeAlias, TypeVar, cast

from sqlalchemy import (
    CTE,
    BigInteger,
    Boolean,
    ColumnElement,
    Insert,
    Integer,
    LargeBinary,
    Select,
    Table,
    UpdateBase,
    any_,
    bindparam,
    column,
    func,
    insert,
    literal,
    select,
)
from sqlalchemy import cast as cast_to
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import InstrumentedAttribute, Session
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from db.models import Base

T = TypeVar("T")
#: A SELECT of any columns.
AnySelect: TypeAlias = "Select[*tuple[Any, ...]]"


def insert_new(
    session: Session, model: type[Base], unique: tuple[InstrumentedAttribute[Any], ...] = ()
) -> postgresql.Insert | sqlite.Insert:
    """An INSERT that skips rows whose `unique` columns are taken (without them: any unique columns of the table), also by a transaction that commits meanwhile.

    Execute it with rows **sorted by the unique columns**: two transactions that insert the same rows in different orders
    deadlock on PostgreSQL. A row that was skipped can be read by the next statement.
    """
    keys = [column.key for column in unique]
    return insert_or_else(session, model).on_conflict_do_nothing(index_elements=keys or None)


def insert_or_else(session: Session, model: type[Base]) -> postgresql.Insert | sqlite.Insert:
    """An INSERT of the engine's own kind, which can be told what to do with a row that is there."""
    on_sqlite = session.get_bind().dialect.name == "sqlite"
    return sqlite.insert(model) if on_sqlite else postgresql.insert(model)


def carry_out(session: Session, statement: UpdateBase) -> None:
    """Execute an UPDATE or DELETE past the ORM, which would look for its rows among those that it has read."""
    session.execute(statement.execution_options(synchronize_session=False))


def insert_rows(model: type[Base]) -> Insert:
    """A plain INSERT for many rows at once; goes around the ORM, which would look at every value of every row."""
    return insert(cast("Table", model.__table__))


def insert_many(session: Session, model: type[Base], rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows with one statement; all of them have the same columns, in the same order.

    PostgreSQL gets them as one JSON document: a statement for each row would cost it and us several times as much. SQLite takes values
    one row after the other within one call.
    """
    if not rows:
        return
    if session.get_bind().dialect.name == "sqlite":
        session.execute(insert_rows(model), rows)
    else:
        session.execute(_insert_document(model, tuple(rows[0])), {"rows": rows})


@cache
def _insert_document(model: type[Base], names: tuple[str, ...]) -> Insert:
    table = cast("Table", model.__table__)
    columns = [column(name, table.c[name].type) for name in names]
    given = func.jsonb_to_recordset(bindparam("rows", type_=postgresql.JSONB)).table_valued(
        *columns, name="given"
    )
    return insert(table).from_select(names, select(*given.render_derived(with_types=True).c))


def materialized(query: AnySelect, name: str) -> CTE[Any]:
    """The query as a WITH part that runs exactly once: PostgreSQL may otherwise run it again and lock more rows than its LIMIT."""
    return query.cte(name).prefix_with("MATERIALIZED", dialect="postgresql")


def unindexed(column: InstrumentedAttribute[T]) -> ColumnElement[T]:
    """A column that no index has, on either engine: for conditions and orders that must not be what rows are found by.

    SQLite prefers any index that a condition fits, and would read all rows that match, where the few that are named by their ids suffice.
    """
    return func.coalesce(column, column)


class walked(FunctionElement[Any]):  # noqa: N801 - it is used like a SQL function
    """A column that SQLite compares or sorts by without its index; PostgreSQL knows how many rows each way reads (`unindexed` is for both)."""

    inherit_cache = True

    def __init__(self, column: InstrumentedAttribute[Any]) -> None:
        super().__init__(column)
        self.type = column.type


@compiles(walked, "sqlite")
def _walked_sqlite(element: walked, compiler: SQLCompiler, **kwargs: Any) -> str:
    return f"+{compiler.process(element.clauses, **kwargs)}"


@compiles(walked, "postgresql")
def _walked_postgresql(element: walked, compiler: SQLCompiler, **kwargs: Any) -> str:
    return compiler.process(element.clauses, **kwargs)


class one_of(FunctionElement[bool]):  # noqa: N801 - it is used like a SQL function
    """Whether a column is one of many numbers. PostgreSQL gets them as one array: `in_` would write and read each as a parameter of its own."""

    inherit_cache = True
    type = Boolean()

    def __init__(self, column: InstrumentedAttribute[int], numbers: Sequence[int]) -> None:
        array = bindparam(None, list(numbers), type_=postgresql.ARRAY(BigInteger), unique=True)
        super().__init__(column.in_(numbers), column == any_(array))

    def self_group(self, against: object = None) -> "one_of":  # noqa: ARG002 - SQLAlchemy calls it so
        """Itself: SQLAlchemy would compare it with 1 for SQLite, which then uses no index."""
        return self


def is_marked(column: InstrumentedAttribute[int], marks: bytes) -> ColumnElement[bool]:
    """Whether the byte at the place of a number is 1; for so many numbers that no statement could name them, and each row is compared by itself."""
    mark = func.substr(bindparam(None, marks, LargeBinary, unique=True), cast_to(column + 1, Integer), 1)
    return mark == literal(b"\x01", LargeBinary)


@compiles(one_of, "sqlite")
def _one_of_sqlite(element: one_of, compiler: SQLCompiler, **kwargs: Any) -> str:
    return compiler.process(element.clauses.clauses[0], **kwargs)


@compiles(one_of, "postgresql")
def _one_of_postgresql(element: one_of, compiler: SQLCompiler, **kwargs: Any) -> str:
    return compiler.process(element.clauses.clauses[1], **kwargs)
