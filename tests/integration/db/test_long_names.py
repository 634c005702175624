"""Ids and sources longer than any index takes: of bundles of earlier releases, and in databases of earlier releases."""

import pytest
from sqlalchemy import insert, select

from db import migrate
from db.models import Audit, Citation, Corpus, TrainingExample
from db.reading import reader
from db.session import Database
from db.statements import insert_rows
from tests.integration.db.builders import answered, attribution, draft, example, record, register, sha256
from tests.integration.db.sabotage import on_postgres
from wherefrom.errors import UnstorableRecord
from wherefrom.records.bounds import MAX_STORED_NAME_CHARS, shortened

LONG = "".join(sha256(str(number)) for number in range(120))


def test_a_small_corpus_with_long_names_is_registered(db: Database) -> None:
    """Both names are stored shortened, stay different from others with the same beginning, and are found by the long one."""
    ids = [LONG, LONG + "x", "short"]
    register(db, examples=[example(row, example_id=one, source=one) for row, one in enumerate(ids)])
    for one in ids:
        [found] = reader.find_example(db, one)
        assert len(found.example_id) <= MAX_STORED_NAME_CHARS
        assert found.source == found.example_id == shortened(one, longest=MAX_STORED_NAME_CHARS)


@pytest.mark.parametrize("name", [LONG, "\U0001f600" * 600, "ж" * 5000])
def test_citations_of_a_large_corpus_with_long_names_are_stored(db: Database, name: str) -> None:
    """Examples that are stored when they are first cited; the audit's first source fits its index too."""
    bundle_id = register(db, examples=[], corpus_examples=60_000)
    cited = draft(1, example(0, example_id=name, source=name))
    assert len(answered(db, bundle_id, record(1), answer=attribution(cited))) == 1
    short = shortened(name, longest=MAX_STORED_NAME_CHARS)
    with db.reading() as session:
        assert session.scalars(select(Audit.top_source)).one() == short
        assert session.scalars(select(Citation.source)).one() == short


def test_long_names_of_an_existing_database_are_shortened(own: Database, own_url: str) -> None:
    """The upgrade keeps them apart, touches no other row, and what is cited again is the same row."""
    names = [LONG, LONG + "x"] if not on_postgres(own) else ["x" * 5000, "x" * 5001]
    migrate.downgrade(own_url, "0005")
    with own.writing() as session:
        corpus_id = session.scalar(
            insert(Corpus).returning(Corpus.id), {"sha256": "s", "name": "n", "examples": 3}
        )
        rows = [
            {"corpus_id": corpus_id, **example(row, example_id=one, source=one).model_dump()}
            for row, one in enumerate([*names, "short"])
        ]
        session.execute(insert_rows(TrainingExample), rows)
    migrate.upgrade(own_url)
    with own.reading() as session:
        stored = session.scalars(select(TrainingExample.example_id).order_by(TrainingExample.row)).all()
    assert stored == [shortened(one, longest=MAX_STORED_NAME_CHARS) for one in [*names, "short"]]
    assert [reader.find_example(own, one)[0].source for one in names] == list(stored[:2])


def test_a_name_that_no_column_takes_is_refused_in_words(db: Database) -> None:
    """A permanent error instead of a traceback; SQLite takes it."""
    if not on_postgres(db):
        return
    with pytest.raises(UnstorableRecord):
        register(db, model="m" * 300)
