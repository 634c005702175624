"""Read-only SQL views: the public interface for people with a SQL client. docs/sql.md describes every column.

One text serves both engines. Columns may be added; a column that is here keeps its name and meaning. `db.migrate` makes the views
again after every migration, so they are no part of a revision.

A view is replaced, never taken away: GRANTs on it and views of the user's own that read it survive. PostgreSQL replaces a view only by
one with the same columns in the same order and further ones behind them, so the order of a view that is there is kept.
While the tables change, each view stands as an empty one with the same columns that reads none of them.
"""

import re

from sqlalchemy import Connection, inspect, text

from db.sql_views.audit_views import AUDIT_VIEWS
from db.sql_views.desk_views import DESK_VIEWS

VIEWS: dict[str, str] = AUDIT_VIEWS | DESK_VIEWS

#: The newest table that a view reads. Where an older schema lacks it, the view is empty.
_NEEDS = {
    "v_reviews": "review_row",
    "v_review_queues": "review_queue",
    "v_review_items": "review_assignment",
    "v_fix_lists": "fix_list_row",
    "v_fix_rows": "fix_list_row",
    "v_fix_history": "fix_list_row",
    "v_what_if": "what_if_output",
    "v_findings": "finding",
    "v_finding_words": "finding_word",
    "v_finding_outputs": "finding_output",
    "v_comparisons": "compared_output",
}

_TABLE = re.compile(r"(?:FROM|JOIN) (\w+) (\w)\b")
_COLUMN = re.compile(r"^    (\w)\.(\w+)(?: AS (\w+))?(,?)$", re.MULTILINE)

_COLUMNS_OF_VIEW = text(
    """
SELECT a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type
FROM pg_attribute a
JOIN pg_class c ON c.oid = a.attrelid
WHERE c.relname = :view AND c.relkind = 'v' AND a.attnum > 0 AND NOT a.attisdropped AND pg_table_is_visible(c.oid)
ORDER BY a.attnum
"""
)


def free_tables(connection: Connection) -> None:
    """Make the views let go of the tables, so that these can be changed; in the caller's transaction."""
    for view in VIEWS:
        if columns := _columns_of(connection, view):
            empty = ", ".join(f'CAST(NULL AS {kind}) AS "{name}"' for name, kind in columns.items())
            _replace(connection, view, f"SELECT {empty} WHERE 1 = 0")


def restore_views(connection: Connection) -> None:
    """Make all views over the tables as they are; a column that these do not have is NULL."""
    inspector = inspect(connection)
    for view, query in VIEWS.items():
        if view in _NEEDS and not inspector.has_table(_NEEDS[view]):
            continue  # where it was there, `free_tables` left it empty
        possible = _with_nulls(connection, query)
        present = _columns_of(connection, view) if connection.dialect.name == "postgresql" else {}
        _replace(connection, view, _in_order(connection, possible, present) if present else possible)


def drop_views(connection: Connection) -> None:
    """Drop all views."""
    for view in VIEWS:
        connection.execute(text(f"DROP VIEW IF EXISTS {view}"))


def _replace(connection: Connection, view: str, query: str) -> None:
    if connection.dialect.name == "sqlite":  # knows no OR REPLACE, and no GRANTs that a DROP would lose
        connection.execute(text(f"DROP VIEW IF EXISTS {view}"))
        connection.execute(text(f"CREATE VIEW {view} AS {query}"))
    else:
        connection.execute(text(f"CREATE OR REPLACE VIEW {view} AS {query}"))


def _columns_of(connection: Connection, view: str) -> dict[str, str]:
    """Types of a view's columns by name, in their order; empty where there is no such view."""
    if connection.dialect.name == "sqlite":
        listed = connection.execute(text("SELECT name FROM pragma_table_info(:view)"), {"view": view})
        return dict.fromkeys(listed.scalars(), "TEXT")
    return {row.name: row.type for row in connection.execute(_COLUMNS_OF_VIEW, {"view": view})}


def _with_nulls(connection: Connection, query: str) -> str:
    """The query with NULL for each column that its table does not have: the schema may be an older one."""
    tables = {alias: table for table, alias in _TABLE.findall(query)}
    inspector = inspect(connection)
    held = {
        alias: {column["name"] for column in inspector.get_columns(table)} for alias, table in tables.items()
    }

    def column(found: re.Match[str]) -> str:
        alias, name, called, comma = found.groups()
        if name in held.get(alias, {name}):
            return found.group()
        return f"    CAST(NULL AS text) AS {called or name}{comma}"

    return _COLUMN.sub(column, query)


def _in_order(connection: Connection, query: str, present: dict[str, str]) -> str:
    """The query with the columns of the view that is there, in their order and of their types, and its further ones behind them."""
    first = text(f"SELECT * FROM ({query}) q LIMIT 0")  # noqa: S608 - the query is one of this file's own
    given = list(connection.execute(first).keys())
    columns = [
        f'CAST({f"q.{name}" if name in given else "NULL"} AS {kind}) AS "{name}"'
        for name, kind in present.items()
    ]
    columns += [f"q.{name}" for name in given if name not in present]
    return f"SELECT {', '.join(columns)} FROM ({query}) q"  # noqa: S608 - as above
