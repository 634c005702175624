"""Erasures and what goes on beside them: holds on groups, other people's words, texts that are stored or indexed at the same time."""

import random
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import select, text

from db.access import people
from db.erasure import cleaning, example_erasing, holds
from db.erasure.erasing import erase_outputs
from db.models import ExampleWords, FlaggedOutput, FlaggedText, Review, SavedView
from db.reading import saved_views
from db.remedies import fix_rows, hypotheticals
from db.reviewing import blind, review_queues, reviews
from db.reviewing.reviews import Reviewer
from db.session import Database
from db.storing import groups, search
from tests.integration.db.builders import (
    accept,
    answered,
    corpus_of,
    count,
    example,
    forget,
    record,
    recorded_statements,
    register,
)
from tests.waiting import wait_until
from wherefrom.errors import Held, InvalidRequest
from wherefrom.records import (
    HoldDraft,
    HypotheticalRequest,
    OutputClass,
    QueueDraft,
    ReviewDraft,
    Via,
    ViewDraft,
)

BY = "operator"


def flagged(db: Database, *records: Any, **more: Any) -> list[int]:
    """Ids of the audits of outputs."""
    return [one.audit_id or 0 for one in accept(db, *records, **more)]


def held(db: Database) -> set[int]:
    """Ids of all outputs that are held."""
    with db.reading() as session:
        return set(session.scalars(select(FlaggedOutput.id).where(holds.is_held(session))))


@pytest.mark.parametrize("by_class", [False, True])
def test_who_holds_a_group_holds_what_its_members_say(
    db: Database, bundle_id: int, *, by_class: bool
) -> None:
    """A group has no text of its own: erasing a member would take the held evidence away. Lifted, it goes."""
    first, second, other = flagged(db, *(record(number) for number in range(3)))
    group = groups.ask_group(db, groups.AskedGroup(audit_ids=(first, second)), producer="ann")
    draft = (
        HoldDraft(outputs=OutputClass(channel="group"), reason="court")
        if by_class
        else HoldDraft(audit_ids=(group.audit_id or 0,), reason="court")
    )
    hold = holds.place(db, draft, by=BY)
    assert len(held(db)) == 3
    with pytest.raises(Held, match="court"):
        forget(db, second)
    assert forget(db, other).erased == 1
    holds.lift(db, hold.hold_id, reason="over", by=BY)
    assert forget(db, second).erased == 1


def test_a_held_class_holds_what_is_supposed_in_its_place(lite: Database) -> None:
    """Whoever supposed it has another name, so the class alone does not find it."""
    register(lite)
    [audit_id] = flagged(lite, record(1), producer="chat")
    asked = HypotheticalRequest(completion="Something else.")
    supposed = hypotheticals.suppose(lite, audit_id, asked, producer="ann")
    holds.place(lite, HoldDraft(outputs=OutputClass(producer="chat"), reason="court"), by=BY)
    with pytest.raises(Held, match="court"):
        forget(lite, supposed.audit_id or 0)


def test_one_common_word_is_no_quotation(lite: Database) -> None:
    """Short answers and labels take nothing of other people's work with them; on the output itself the word goes, and a number goes everywhere."""
    bundle_id = register(lite)
    labels = {"channel": "chat", "user": "u1234567"}
    gone, kept = answered(
        lite, bundle_id, record(1, completion="Yes.", labels=labels), record(2, completion="Perhaps.")
    )
    ann = Reviewer(people.choose_local(lite, "ann").ref, Via.LOCAL)
    for audit_id, comment in (
        (gone, "the chat again"),
        (kept, "In the chat it said yes. Twice."),
        (kept, "ask u1234567"),
    ):
        reviews.judge(lite, audit_id, ReviewDraft(comment=comment), by=ann)
    review_queues.create_queue(lite, QueueDraft(name="chat"), created_by=None)
    for name, searched in (("mine", "chat"), ("theirs", "u1234567")):
        draft = ViewDraft(name=name, parameters={"text": searched})
        saved_views.save_view(lite, ann.person.person_id, draft)
    forget(lite, gone)
    with lite.reading() as session:
        comments = session.scalars(select(Review.comment).order_by(Review.id)).all()
        views = session.scalars(select(SavedView.parameters).order_by(SavedView.id)).all()
    assert comments == ["[erased]", "In the chat it said yes. Twice.", "[erased]"]
    assert [one["text"] for one in views] == ["chat", "[erased]"]
    assert [one.name for one in review_queues.list_queues(lite)] == ["chat"]


def test_an_example_that_is_erased_while_it_is_indexed_gets_no_words(
    lite: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sweeper has read its text, and somebody erases it before the words are stored."""
    register(lite)
    corpus_id = corpus_of(lite)
    words_of = search.words_of

    def erased_first(said: str) -> list[str]:
        monkeypatch.setattr(search, "words_of", words_of)
        with lite.writing() as session:
            example_erasing.erase_examples(session, {corpus_id: [example(0)]}, by="request")
        return words_of(said)

    monkeypatch.setattr(search, "words_of", erased_first)
    assert search.index_missing(lite) == 4
    assert count(lite, ExampleWords) == 4
    assert search.unindexed(lite) == 0


@pytest.mark.postgres
def test_what_is_supposed_during_an_erasure_goes_too(
    migrated_postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite has one writer. On PostgreSQL an erasure waits for what is being supposed and takes it with it, and the other way round nothing is supposed."""
    db = Database(migrated_postgres_url)
    register(db)
    first, second = flagged(db, record(1), record(2))
    asked = HypotheticalRequest(completion="Something else.")
    inserted, insert = threading.Event(), hypotheticals._insert

    def waits() -> bool:
        with db.reading() as session:
            return bool(session.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")))

    def insert_slowly(*given: Any, **more: Any) -> None:
        insert(*given, **more)
        inserted.set()
        wait_until(waits, message="the erasure waits")

    with ThreadPoolExecutor(1) as pool:
        with db.writing() as session:
            erase_outputs(session, [1], by="request")
            late = pool.submit(hypotheticals.suppose, db, first, asked, producer="ann")
            wait_until(waits, message="whoever supposes waits")
        with pytest.raises(InvalidRequest, match="was erased"):
            late.result()
        monkeypatch.setattr(hypotheticals, "_insert", insert_slowly)
        early = pool.submit(hypotheticals.suppose, db, second, asked, producer="ann")
        assert inserted.wait(10)
        assert forget(db, second).erased == 2
        assert early.result().status == "accepted"
    assert count(db, FlaggedText) == 0
    db.dispose()


def test_what_erasures_change_is_cleaned(lite: Database) -> None:
    """Each table that an erasure updates or deletes from keeps dead rows on PostgreSQL until it is vacuumed."""
    bundle_id = register(lite)
    [audit_id] = answered(lite, bundle_id, record(1))
    corpus_id = corpus_of(lite)
    with recorded_statements() as statements:
        forget(lite, audit_id)
        with lite.writing() as session:
            example_erasing.erase_examples(session, {corpus_id: [example(0)]}, by="request")
    changed = {found[1] for one in statements if (found := re.match(r"(?:UPDATE|DELETE FROM) (\w+)", one))}
    assert {"flagged_text", "review_item"} < changed
    assert changed <= set(cleaning.TOUCHED)


def test_an_erased_example_is_neither_learned_nor_shown_again(lite: Database) -> None:
    """A cleaned corpus has no empty row in its place, and a blind reviewer is not shown one."""
    register(lite)
    corpus_id = corpus_of(lite)
    with lite.writing() as session:
        example_erasing.erase_examples(session, {corpus_id: [example(0)]}, by="request")
    ids = [one["id"] for one in fix_rows.staying(lite, 0, corpus_id)]
    assert ids == [example(number).example_id for number in range(1, 5)]
    with lite.reading() as session:
        assert len(blind._pool(session, corpus_id, random.Random(0))) == 4


@pytest.mark.parametrize("name", ['a"b', "a\\b"])
def test_a_label_that_cannot_be_looked_for_is_refused(name: str) -> None:
    """SQLite's paths of JSON have no way to write it: a hold on it would end every erasure with an error."""
    with pytest.raises(ValueError, match="choose the outputs in another way"):
        OutputClass(label=f"{name}=x")
    assert OutputClass(label=f"a={name}").label == f"a={name}"
