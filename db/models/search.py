"""The words of texts, as the search finds them: one row beside each text that is searched. `db.storing.search` writes and reads them.

On SQLite an FTS5 index stands over each table, on PostgreSQL generated `tsvector` columns with GIN indexes. Both belong to the engine: the
migrations make them, and no model names them (`ENGINE_OWN`).
"""

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from db.models.columns import BIG, Base

#: Tables, columns and indexes of the text index that only one engine has; a comparison of schema and models leaves them out.
ENGINE_OWN = frozenset(
    {
        *(
            f"{table}_fts{part}"
            for table in ("output_words", "example_words")
            for part in ("", "_data", "_idx", "_docsize", "_config")
        ),
        *(
            f"{prefix}{column}_terms"
            for prefix in ("", "ix_output_words_", "ix_example_words_")
            for column in ("prompt", "output", "text")
        ),
    }
)


class OutputWords(Base):
    """The words of a flagged output's prompt and completion; they go with its text."""

    __tablename__ = "output_words"

    flagged_output_id: Mapped[int] = mapped_column(
        BIG,
        ForeignKey("flagged_text.flagged_output_id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    )
    prompt: Mapped[str]
    output: Mapped[str]


class ExampleWords(Base):
    """The words of a stored training example, prompt and completion together."""

    __tablename__ = "example_words"

    training_example_id: Mapped[int] = mapped_column(
        BIG, ForeignKey("training_example.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    text: Mapped[str]
