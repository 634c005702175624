"""Looks for bytes wherever a service keeps something: files of a folder, a SQLite database with what stands beside it, every column of a PostgreSQL database."""

from collections.abc import Iterable
from pathlib import Path

from sqlalchemy import text

from db.session import Database, parse_url


def holding_files(folder: Path, mark: bytes) -> list[str]:
    """Names of the files of a folder, at any depth, that have these bytes."""
    files = (one for one in sorted(folder.rglob("*")) if one.is_file())
    return [str(one.relative_to(folder)) for one in files if mark in one.read_bytes()]


def holding_database(url: str, marks: Iterable[bytes]) -> dict[bytes, list[str]]:
    """Where a database has each of these bytes: names of files (SQLite) or of columns (PostgreSQL); nothing where it has none."""
    look = _in_files if url.startswith("sqlite") else _in_columns
    return {mark: found for mark in marks if (found := look(url, mark))}


def _in_files(url: str, mark: bytes) -> list[str]:
    file = Path(parse_url(url).database or "")
    beside = [file, *(file.with_name(file.name + part) for part in ("-wal", "-shm", "-journal"))]
    return [one.name for one in beside if one.exists() and mark in one.read_bytes()]


_COLUMNS = text(
    """
SELECT c.table_name, c.column_name, c.data_type
FROM information_schema.columns c
JOIN information_schema.tables t USING (table_schema, table_name)
WHERE c.table_schema = current_schema() AND t.table_type = 'BASE TABLE'
AND c.data_type IN ('text', 'character varying', 'bytea', 'jsonb', 'json', 'tsvector')
ORDER BY 1, 2
"""
)


def _in_columns(url: str, mark: bytes) -> list[str]:
    database = Database(url)
    try:
        with database.reading() as session:
            found = []
            for table, column, kind in session.execute(_COLUMNS).all():
                value = f'"{column}"' if kind == "bytea" else f"convert_to(\"{column}\"::text, 'UTF8')"
                where = text(f'SELECT count(*) FROM "{table}" WHERE position(:mark IN {value}) > 0')
                if session.scalar(where, {"mark": mark}):
                    found.append(f"{table}.{column}")
            return found
    finally:
        database.dispose()
