"""Sources of a large database: counted by the sweeper a part at a time, told with their age, and the same as a count of now."""

from contextlib import suppress
from datetime import timedelta
from functools import partial
from itertools import islice
from threading import Barrier, BrokenBarrierError

import pytest
from sqlalchemy import Insert, update

from db import parts
from db.clock import db_after
from db.models import Base, SourceLook
from db.reading import asked, blame, culprits, reader, source_facts
from db.session import Database
from db.statements import insert_rows
from tests.all_parts import all_parts
from tests.integration.db.builders import (
    answered,
    at_once,
    attribution,
    draft,
    example,
    record,
    recorded_statements,
    register,
)
from wherefrom.errors import NotFound

HOUR = timedelta(hours=1)


@pytest.fixture
def large(db: Database, bundle_id: int, monkeypatch: pytest.MonkeyPatch) -> Database:
    """A database that counts as large, with four audits in parts of two and an example of which only opponents speak."""
    monkeypatch.setattr(source_facts, "SMALL", 0)
    monkeypatch.setattr(source_facts, "_AT_ONCE", 2)
    monkeypatch.setattr(parts, "ROUND_S", 60.0)  # a round ends with its work, however slow the machine
    for number, rows in enumerate([(0, 1), (0, 2, 3), (1,), (0,)]):
        cite(db, bundle_id, number, *rows)
    return db


def cite(db: Database, bundle_id: int, number: int, *rows: int) -> None:
    """An audit that cites these rows of the corpus in this order, and row 4 as an opponent."""
    drafts = [draft(rank, example(row)) for rank, row in enumerate(rows, start=1)]
    answered(db, bundle_id, record(number), answer=attribution(*drafts, draft(-1, example(4))))


def test_the_sweeper_counts_what_a_count_of_now_says(
    large: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits; after its round all is known, part by part the same as at once, for the list and for a source."""
    assert source_facts.known(large) is None
    assert source_facts.known_detail(large, "source-0") is None
    assert source_facts.rounds(large).go_on() == 1
    kept, detail = source_facts.known(large), source_facts.known_detail(large, "source-0")
    monkeypatch.setattr(source_facts, "SMALL", 100)
    now, detail_now = source_facts.facts(large), source_facts.source_detail(large, "source-0")
    assert kept is not None
    assert detail is not None
    assert (kept.as_of is None, detail.as_of is None, now.as_of) == (False, False, None)
    assert list(kept.summaries) == list(now.summaries)
    assert sorted(kept.blames, key=lambda one: one.source) == sorted(now.blames, key=lambda one: one.source)
    assert detail.model_copy(update={"as_of": None}) == detail_now
    assert [(one.source, one.citations, one.first_citations, one.audits) for one in kept.summaries] == [
        ("source-0", 4, 3, 3),
        ("source-1", 2, 1, 2),
        ("source-2", 1, 0, 1),
    ]


def test_what_is_known_is_told_until_it_is_counted_again(large: Database, bundle_id: int) -> None:
    """What came meanwhile is not told, the age is; the next round counts it, and then nothing waits."""
    assert source_facts.facts(large).as_of is None, "whoever waits gets a count of now"
    work = source_facts.rounds(large)
    assert (work.go_on(), work.go_on()) == (1, 0)
    before = source_facts.known(large)
    cite(large, bundle_id, 9, 0)
    assert source_facts.known(large) == before == source_facts.facts(large)
    assert (work.go_on(), work.go_on()) == (1, 0)
    after = source_facts.known(large)
    assert before is not None
    assert after is not None
    assert [one.summaries[0].citations for one in (before, after)] == [4, 5]


def test_a_source_that_nobody_stored_is_not_found(large: Database) -> None:
    """Whether it is counted now or was counted."""
    source_facts.known(large)
    source_facts.rounds(large).go_on()
    with pytest.raises(NotFound, match="when sources were counted"):
        source_facts.known_detail(large, "nobody")


def test_without_a_sweeper_one_of_those_who_ask_counts(
    large: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After half a minute, for all. The others are told that it is counted, however long that takes, and then what was counted."""
    assert source_facts.known(large) is None
    counting, told = source_facts._counting, []

    def counted(db: Database) -> parts.Parts[None]:
        for step in counting(db):
            with db.writing() as session:  # each part takes long
                session.execute(update(SourceLook).values(first_asked_at=db_after(-2 * asked.PATIENCE_S)))
            yield step
            told.append(source_facts.known(db))

    monkeypatch.setattr(source_facts, "_counting", counted)
    with large.writing() as session:
        session.execute(update(SourceLook).values(first_asked_at=db_after(-2 * asked.PATIENCE_S)))
    found = source_facts.known(large)
    assert found == source_facts.facts(large)
    assert found is not None
    assert found.as_of is not None
    assert told == [None] * 4, "two parts of audits, one of examples, the tests"


def test_of_two_who_ask_at_once_one_takes_over(large: Database) -> None:
    """The other one finds that it was taken meanwhile."""
    assert source_facts.known(large) is None
    with large.writing() as session:
        session.execute(update(SourceLook).values(first_asked_at=db_after(-2 * asked.PATIENCE_S)))
    assert [asked.take_over(large, SourceLook, SourceLook.id == 1) for _ in range(2)] == [True, False]


def test_a_part_ends_before_the_work(large: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A round that is over goes on where it stood; an audit that came meanwhile is counted by the next look."""
    source_facts.known(large)
    monkeypatch.setattr(parts, "ROUND_S", 1e-9)
    work, rounds = source_facts.rounds(large), 1
    while not work.go_on():
        rounds += 1
    assert rounds >= 4, "two parts of audits, one of examples, the tests, and the end"
    assert source_facts.known(large) is not None


def test_the_worst_of_a_source_are_found_by_its_citations(db: Database, bundle_id: int) -> None:
    """As many statements for any size, the newest audits by number, and no opponents."""
    for number, rows in enumerate([(0,), (3, 0), (0, 1)]):
        cite(db, bundle_id, number, *rows)
    with recorded_statements() as statements:
        found = culprits.worst_of(db, "source-0", most=5)
    assert len(statements) == 4
    assert [(one.example_id, one.outputs, one.strength) for one in found.items] == [
        ("ex-00000", 3, 2.5),
        ("ex-00003", 1, 1.0),
    ]
    newest = culprits.worst_of(db, "source-0", most=5, newest=1)
    assert (newest.audits, newest.more, [one.outputs for one in newest.items]) == (1, True, [1])


def test_of_two_sweepers_the_later_count_stays(
    large: Database, bundle_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever ends first; and where both end together, neither fails."""
    source_facts.known(large)
    early = before_its_end(large, audits=4)
    cite(large, bundle_id, 9, 0)
    all_parts(source_facts._counting(large))
    all_parts(early)
    known = source_facts.known(large)
    assert known is not None
    assert known.summaries[0].citations == 5
    cite(large, bundle_id, 10, 0)
    meeting = Barrier(2)

    def insert_together(model: type[Base]) -> Insert:
        with suppress(BrokenBarrierError):  # one of the two waits for the other's commit
            meeting.wait(0.5)
        return insert_rows(model)

    monkeypatch.setattr(source_facts, "insert_rows", insert_together)
    at_once([partial(all_parts, before_its_end(large, audits=6)) for _ in range(2)])
    known = source_facts.known(large)
    assert known is not None
    assert known.summaries[0].citations == 6


def before_its_end(db: Database, *, audits: int) -> parts.Parts[None]:
    """A count that has looked at everything and has not written yet: at the examples, at two audits at a time, at the tests."""
    work, steps = source_facts._counting(db), 1 + audits // 2 + 1
    assert len(list(islice(work, steps))) == steps
    return work


def test_a_source_is_told_by_one_count(large: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a sweeper ends between two looks of a reader: stretches of time and first citations are those of the same count."""
    source_facts.known(large)
    all_parts(source_facts._counting(large))
    look = source_facts._look

    def looked(db: Database) -> source_facts._Kept:
        found = look(db)
        monkeypatch.setattr(blame, "period_edges", lambda first, last: [first, first, last + HOUR])
        all_parts(source_facts._counting(db))
        return found

    monkeypatch.setattr(source_facts, "_look", looked)
    detail = source_facts.known_detail(large, "source-0")
    assert detail is not None
    assert [one.first_citations for one in detail.over_time] == [0, 3]


def test_two_corpora_with_one_source_are_counted_together(large: Database) -> None:
    """The examples of both, once each."""
    register(large, "bundle-b", activate=False, corpus_examples=1_000_000, form="activation")
    source_facts.known(large)
    source_facts.rounds(large).go_on()
    known = source_facts.known(large)
    assert known is not None
    assert {one.source: one.examples for one in known.summaries} == {
        one.source: one.examples for one in reader.sources(large)
    }
