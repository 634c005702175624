"""Cleans the database after erasures: what was deleted is taken out of its files, too."""

from sqlalchemy import select, text, update

from db.clock import db_now
from db.models import Erasure
from db.session import Database

#: Tables that erasures change.
TOUCHED = (
    "flagged_text",
    "flagged_output",
    "output_words",
    "output_vector",
    "finding_word",
    "training_example",
    "example_words",
    "review",
    "finding",
    "finding_entry",
    "fix_list",
    "fix_list_entry",
    "listing_facts",
    "saved_view",
    "review_queue",
    "review_item",
    "what_if",
    "citation",
    "erasure",
    "item_key",
)
#: Text indexes of SQLite: they mark words as deleted until their parts are merged.
_TEXT_INDEXES = ("output_words_fts", "example_words_fts")


def clean(db: Database) -> bool:
    """Clean after all erasures that are done and were not cleaned after; whether it is done.

    False where somebody still reads from SQLite's log: the sweeper tries again. On a disk, blocks that were freed keep what stood in them until they are used again (docs/limitations.md).

    Raises:
        DatabaseUnavailable: it was not cleaned.
    """
    waits = (Erasure.done_at.is_not(None), Erasure.cleaned_at.is_(None))
    with db.reading() as session:
        ids = session.scalars(select(Erasure.id).where(*waits)).all()
    if not ids:
        return True
    if db.dialect == "sqlite":
        with db.writing() as session:
            for table in _TEXT_INDEXES:
                session.execute(text(f"INSERT INTO {table}({table}) VALUES ('optimize')"))  # noqa: S608 - names of our own
    if not db.clean(TOUCHED):
        return False
    with db.writing() as session:
        session.execute(update(Erasure).where(Erasure.id.in_(ids)).values(cleaned_at=db_now()))
    return True
