"""Erasing training examples: every copy in the database is gone, byte by byte, and the rows stay as tombstones."""

import pytest
from sqlalchemy import select, update

from db.access import people
from db.erasure import cleaning, erasures, example_erasing, holds
from db.models import Citation, TrainingExample
from db.reading import listings, reader
from db.reviewing import reviews
from db.reviewing.reviews import Reviewer
from db.session import Database
from db.storing import search
from tests.byte_scan import holding_database
from tests.integration.db.builders import answered, corpus_of, example, record, register
from tests.integration.db.test_erasing import BY, SECRET
from wherefrom.errors import Held
from wherefrom.records import AuditFilter, HoldDraft, ReviewDraft, Via


def test_nothing_of_an_erased_example_is_left(own: Database, own_url: str) -> None:
    """Text, fields, words, digest, quotations and marks: found before, in no byte after; the citation stays and says so."""
    one = example(
        0, completion=f"It is 0, {SECRET}.", prompt="Antediluvian ocelots?", fields={"note": "Byzantine"}
    )
    bundle_id = register(own, examples=[one, *(example(number) for number in range(1, 5))])
    [audit_id] = answered(own, bundle_id, record(1))
    ann = Reviewer(people.choose_local(own, "ann").ref, Via.LOCAL)
    draft = ReviewDraft(comment="Zanzibar again", quote="Zanzibar", part="example", rank=1)
    reviews.judge(own, audit_id, draft, by=ann)
    listings.facts(own, AuditFilter(in_cited=SECRET), level=0.1)
    with own.writing() as session:
        first = Citation.rank == 1
        marks_of = [{"output": [0, 4], "example": [3, 9], "tokens": 2}]
        session.execute(update(Citation).where(first).values(overlaps=marks_of, spans=[]))
    marks = [
        SECRET.encode(),
        b"Antediluvian",
        b"Byzantine",
        b"quizzical zanzibar",
        b"antediluvian",
        one.text_sha256.encode(),
    ]
    search.index_missing(own)
    assert set(holding_database(own_url, marks)) == set(marks)
    corpus_id = corpus_of(own)
    with own.writing() as session:
        assert example_erasing.erase_examples(session, {corpus_id: [one]}, by="request") == 1
        erasures.note_examples(session, reason="r", by=BY, erased=1)
    assert cleaning.clean(own)
    assert holding_database(own_url, marks) == {}
    cited = reader.get_audit(own, audit_id).citations[0]
    assert (cited.example_id, cited.prompt, cited.completion, cited.overlaps) == ("ex-00000", "", "", ())
    assert cited.erased_by == "request"
    assert cited.erased_at is not None
    rows = example_erasing.stored(own, ["ex-00000", "ex-00001"])
    assert {row.training_example_id: row.erased for row in rows} == {
        cited.training_example_id: True,
        2: False,
    }


def test_an_erased_example_is_not_stored_again(lite: Database, lite_bundle: int) -> None:
    """A worker that cites it from an old bundle, cited before or not, keeps the tombstone."""
    corpus_id = corpus_of(lite)
    with lite.writing() as session:
        new = example(0, example_id="never-cited")
        assert example_erasing.erase_examples(session, {corpus_id: [example(0), new]}, by="request") == 2
    [audit_id] = answered(lite, lite_bundle, record(1))
    assert reader.get_audit(lite, audit_id).citations[0].completion == ""
    register(lite)
    with lite.reading() as session:
        texts = session.scalars(select(TrainingExample.completion).where(TrainingExample.row == 0)).all()
    assert set(texts) == {""}


def test_an_example_that_a_held_output_cites_stays(db: Database, bundle_id: int) -> None:
    """It is evidence too."""
    [audit_id] = answered(db, bundle_id, record(1))
    holds.place(db, HoldDraft(audit_ids=(audit_id,), reason="court"), by=BY)
    corpus_id = corpus_of(db)
    with pytest.raises(Held, match="court"), db.writing() as session:
        example_erasing.erase_examples(session, {corpus_id: [example(0)]}, by="request")
    assert reader.get_audit(db, audit_id).citations[0].completion == "It is 0."
