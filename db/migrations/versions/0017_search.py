"""A text index over flagged outputs and training examples, and indexes for the filters and orders of the list.

The tables begin empty: the sweeper indexes what is stored, some rows in each round, and so it does with the rows of the release before, which
go on coming without `indexed`. Words go with their text: by the foreign key, and on SQLite by a trigger too, since a client
of one's own enforces no foreign keys there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from alembic import op

revision: str = "0017"
down_revision: str | None = "0016"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_BIG = sa.Integer().with_variant(sa.BigInteger(), "postgresql")


@dataclass(frozen=True)
class _Words:
    """A table of words, and the texts that they are of."""

    table: str
    key: str
    columns: tuple[str, ...]
    texts: str
    text_id: str


_OUTPUTS = _Words(
    "output_words", "flagged_output_id", ("prompt", "output"), "flagged_text", "flagged_output_id"
)
_EXAMPLES = _Words("example_words", "training_example_id", ("text",), "training_example", "id")
_NEW_INDEXES = (
    ("audit", ("priority", "id")),
    ("audit", ("top_score", "id")),
    ("citation", ("source", "audit_id", "rank")),
    ("flagged_output", ("channel",)),
)


def upgrade() -> None:
    """Bring the schema to this revision."""
    for table, column in (("flagged_text", "flagged_output_id"), ("training_example", "id")):
        op.add_column(table, sa.Column("indexed", sa.Boolean(), nullable=True))
        _partial(f"ix_{table}_unindexed", table, column, "indexed IS NULL")
    for table, columns in _NEW_INDEXES:
        op.create_index(op.f(f"ix_{table}_{'_'.join(columns)}"), table, list(columns))
    op.drop_index(op.f("ix_citation_source_audit_id"), "citation")
    _partial("ix_citation_confidence", "citation", "confidence", "confidence IS NOT NULL")
    for words in (_OUTPUTS, _EXAMPLES):
        _create_words(words)


def downgrade() -> None:
    """Take the schema back to the revision before; the index is gone, the texts are not."""
    on_sqlite = op.get_bind().dialect.name == "sqlite"
    for words in (_OUTPUTS, _EXAMPLES):
        if on_sqlite:
            op.execute(f"DROP TRIGGER {words.texts}_words_erased")
            op.execute(f"DROP TABLE {words.table}_fts")
        op.drop_table(words.table)
    op.drop_index("ix_citation_confidence", "citation")
    op.create_index(op.f("ix_citation_source_audit_id"), "citation", ["source", "audit_id"])
    for table, columns in reversed(_NEW_INDEXES):
        op.drop_index(op.f(f"ix_{table}_{'_'.join(columns)}"), table)
    for table in ("training_example", "flagged_text"):
        op.drop_index(f"ix_{table}_unindexed", table)
        op.drop_column(table, "indexed")


def _partial(name: str, table: str, column: str, where: str) -> None:
    condition = sa.text(where)
    op.create_index(name, table, [column], sqlite_where=condition, postgresql_where=condition)


def _create_words(words: _Words) -> None:
    reference = sa.ForeignKey(
        f"{words.texts}.{words.text_id}", name=op.f(f"fk_{words.table}_{words.key}"), ondelete="CASCADE"
    )
    op.create_table(
        words.table,
        sa.Column(words.key, _BIG, reference, primary_key=True, autoincrement=False, nullable=False),
        *(sa.Column(column, sa.Text(), nullable=False) for column in words.columns),
    )
    if op.get_bind().dialect.name == "sqlite":
        _create_fts(words)
        return
    for column in words.columns:
        op.execute(
            f"ALTER TABLE {words.table} ADD COLUMN {column}_terms tsvector"
            f" GENERATED ALWAYS AS (array_to_tsvector(string_to_array({column}, ' '))) STORED"
        )
        op.execute(
            f"CREATE INDEX ix_{words.table}_{column}_terms ON {words.table} USING gin ({column}_terms)"
        )


def _create_fts(words: _Words) -> None:
    """FTS5 over the words, which are split at spaces already; triggers keep the two together, whoever writes."""
    table, key, names = words.table, words.key, ", ".join(words.columns)
    op.execute(
        f"CREATE VIRTUAL TABLE {table}_fts USING fts5({names}, content='{table}', content_rowid='{key}', tokenize='ascii')"
    )
    old, new = (", ".join(f"{row}.{column}" for column in words.columns) for row in ("old", "new"))
    remove = f"INSERT INTO {table}_fts({table}_fts, rowid, {names}) VALUES ('delete', old.{key}, {old});"  # noqa: S608 - names of our own
    add = f"INSERT INTO {table}_fts(rowid, {names}) VALUES (new.{key}, {new});"  # noqa: S608 - names of our own
    erase = f"DELETE FROM {table} WHERE {key} = old.{words.text_id};"  # noqa: S608 - names of our own
    for name, event, on, action in (
        (f"{table}_added", "INSERT", table, add),
        (f"{table}_removed", "DELETE", table, remove),
        (f"{table}_changed", "UPDATE", table, remove + add),
        (f"{words.texts}_words_erased", "DELETE", words.texts, erase),
    ):
        op.execute(f"CREATE TRIGGER {name} AFTER {event} ON {on} BEGIN {action} END")
