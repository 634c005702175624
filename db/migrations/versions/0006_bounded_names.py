"""Ids and sources of training examples are at most 500 characters long, so that they fit every index.

Longer ones are cut and end in a hash of the whole, as this release stores them. PostgreSQL took long ones only where they could be
compressed, SQLite took all. No column changes, so the release before goes on working.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_LONGEST = 500
_DIGEST = 14
#: Rows read at once: their values may be large.
_CHUNK = 200
_NAMES = (
    ("training_example", "example_id"),
    ("training_example", "source"),
    ("citation", "source"),
    ("audit", "top_source"),
)


def upgrade() -> None:
    """Bring the data to this revision."""
    connection = op.get_bind()
    for table_name, column_name in _NAMES:
        table = sa.table(table_name, sa.column("id"), sa.column(column_name))
        column = table.c[column_name]
        for row_id, value in _too_long(connection, table, column):
            shortened = {column_name: _shortened(value)}
            connection.execute(sa.update(table).where(table.c.id == row_id).values(**shortened))


def downgrade() -> None:
    """Nothing to take back: the shortened names are names."""


def _too_long(
    connection: sa.Connection, table: sa.TableClause, column: sa.ColumnElement[Any]
) -> Iterator[tuple[int, str]]:
    after = 0
    while True:
        page = (
            sa.select(table.c.id, column)
            .where(table.c.id > after, sa.func.length(column) > _LONGEST)
            .order_by(table.c.id)
            .limit(_CHUNK)
        )
        rows = connection.execute(page).all()
        yield from ((row_id, value) for row_id, value in rows)
        if len(rows) < _CHUNK:
            return
        after = rows[-1][0]


def _shortened(name: str) -> str:
    digest = hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:_DIGEST]
    return f"{name[: _LONGEST - _DIGEST - 4]}... {digest}"
