"""Looks for bytes wherever a service keeps something: files of a folder, a SQLite database with what stands beside it, every column of a PostgreSQL database."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from sqlalchemy import text

from db.session import Database, parse_url


def holding_files(folder: Path, mark: bytes) -> list[str]:
    """Names of the files of a folder, at any depth, that have these bytes."""
    files = (one for one in sorted(folder.rglob("*")) if one.is_file())
    return [str(one.relative_to(folder)) for one in files if mark in one.read_bytes()]


def holding_database(url: str, marks: Iterable[bytes]) -> dict[bytes, list[str]]:
    """Where a database has each of these bytes: names of files (SQLite) or of columns (PostgreSQL); nothing where it has none."""
    found: dict[bytes, list[str]] = {}
    look = _in_files if url.startswith("sqlite") else _in_columns
    for place, mark in look(url, list(marks)):
        found.setdefault(mark, []).append(place)
    return found


def _in_files(url: str, marks: Sequence[bytes]) -> Iterator[tuple[str, bytes]]:
    file = Path(parse_url(url).database or "")
    beside = [file, *(file.with_name(file.name + part) for part in ("-wal", "-shm", "-journal"))]
    for one in beside:
        content = one.read_bytes() if one.exists() else b""
        yield from ((one.name, mark) for mark in marks if mark in content)


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


def _in_columns(url: str, marks: Sequence[bytes]) -> Iterator[tuple[str, bytes]]:
    database = Database(url)
    try:
        with database.reading() as session:
            for table, column, kind in session.execute(_COLUMNS).all():
                value = f'"{column}"' if kind == "bytea" else f"convert_to(\"{column}\"::text, 'UTF8')"
                has = ", ".join(f"bool_or(position(:m{n} IN {value}) > 0)" for n in range(len(marks)))
                given = {f"m{n}": mark for n, mark in enumerate(marks)}
                row = session.execute(text(f'SELECT {has} FROM "{table}"'), given).one()
                yield from (
                    (f"{table}.{column}", mark) for mark, there in zip(marks, row, strict=True) if there
                )
    finally:
        database.dispose()
