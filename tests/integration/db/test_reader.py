"""What auditors read: filters, stable pages, the reverse question, counts; with a constant number of statements."""

from collections.abc import Callable
from datetime import timedelta
from itertools import count as numbers

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, update

from db.clock import db_after
from db.models import Audit, FlaggedText
from db.queues.audit_queue import AuditQueue, Finished
from db.reading import reader
from db.session import Database
from tests.integration.db.builders import (
    MODEL,
    accept,
    answered,
    attribution,
    audit_row,
    claim,
    claim_one,
    draft,
    example,
    expire_leases,
    record,
    recorded_statements,
    register,
)
from wherefrom.errors import InvalidRecord, NotFound
from wherefrom.records import AuditFilter, AuditState, Page, Severity

_fresh = numbers(1)


def _ids(page: Page) -> list[int]:
    return [one.audit_id for one in page.items]


def _listed(db: Database, **filters: object) -> list[int]:
    return _ids(reader.list_audits(db, AuditFilter(**filters), limit=100))


def test_a_line_of_the_list(db: Database, bundle_id: int) -> None:
    """Newest first, with an excerpt and the first citation."""
    first, second = answered(db, bundle_id, record(1), record(2, completion="x" * 500, severity="high"))
    page = reader.list_audits(db, AuditFilter())
    assert _ids(page) == [second, first]
    line = page.items[0]
    assert (line.state, line.model, line.bundle, line.flag_reason) == (
        AuditState.DONE,
        MODEL,
        "bundle-a",
        "policy",
    )
    assert (line.severity, line.channel, line.attempt, line.truncated) == (Severity.HIGH, "http", 1, False)
    assert (line.excerpt, line.top_source, line.top_score) == ("x" * reader.EXCERPT_CHARS, "source-0", 1.0)
    assert line.finished_at is not None
    assert line.finished_at >= line.created_at
    assert page.next_cursor is None


def test_filters(db: Database, bundle_id: int) -> None:
    """Each filter alone finds its audit, and all that are given must hold."""
    plain, special = answered(
        db,
        bundle_id,
        record(1),
        record(2, completion="Refunds in 90 DAYS, 100%_sure\\!", reason="refund", severity="critical"),
    )
    opponent_only = attribution(draft(1, example(0)), draft(-1, example(1)))
    (other,) = answered(db, bundle_id, record(3), answer=opponent_only)
    (waiting,) = (one.audit_id for one in accept(db, record(4, model="another")))
    assert _listed(db, state=AuditState.REJECTED) == [waiting]
    assert _listed(db, model="another") == [waiting]
    assert _listed(db, bundle="bundle-a") == [other, special, plain]
    assert _listed(db, flag_reason="refund") == [special]
    assert _listed(db, severity=Severity.CRITICAL) == [special]
    assert _listed(db, channel="http") == [waiting, other, special, plain]
    assert _listed(db, channel="stream") == []
    assert _listed(db, source="source-1") == [special, plain], "an opponent's source does not count"
    assert _listed(db, top_source="source-0") == [other, special, plain]
    assert _listed(db, top_source="source-1") == []
    assert _listed(db, flag_reason="refund", source="source-1") == [special]
    assert _listed(db, flag_reason="refund", channel="stream") == []


@pytest.mark.parametrize("text", ["90 days", "100%_sure", "\\!", "REFUNDS"])
def test_text_search_takes_every_character_literally(db: Database, bundle_id: int, text: str) -> None:
    """A part of the completion, in any case; `%`, `_` and the backslash mean themselves."""
    found, _ = (
        one.audit_id
        for one in accept(
            db, record(1, completion="Refunds in 90 DAYS, 100%_sure\\!"), record(2, completion="100 sure")
        )
    )
    assert _listed(db, text=text) == [found]


def test_since_and_until_are_inclusive(db: Database, bundle_id: int) -> None:
    """An audit of exactly that moment is in the list."""
    (audit_id,) = (one.audit_id for one in accept(db, record()))
    assert audit_id is not None
    moment, step = audit_row(db, audit_id).created_at, timedelta(microseconds=1)
    assert _listed(db, since=moment, until=moment) == [audit_id]
    assert _listed(db, since=moment + step) == []
    assert _listed(db, until=moment - step) == []


@pytest.mark.parametrize(
    "cursor", ["", "x", "äö", "W10=", "WyJ4IiwxXQ==", "WzEsMl0=", "bnVsbA==", "W251bGwsIG51bGxd"]
)
def test_a_foreign_cursor_is_refused(db: Database, cursor: str) -> None:
    """Whatever a client sends as a cursor is an invalid record, not a bug."""
    with pytest.raises(InvalidRecord):
        reader.list_audits(db, AuditFilter(), cursor=cursor)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, 4), min_size=1, max_size=6), st.integers(1, 4), st.integers(0, 3))
def test_pages_are_stable_under_inserts(db: Database, calls: list[int], limit: int, inserted: int) -> None:
    """Whoever reads page after page sees what was there at the start, once and in order, whatever comes in meanwhile."""
    model = f"model-{next(_fresh)}"

    def flag(number: int) -> list[int]:
        made = accept(db, *(record(model=model, idempotency_key=None) for _ in range(number)))
        return [one.audit_id or 0 for one in made]

    there = [audit_id for number in calls for audit_id in flag(number)]
    seen: list[int] = []
    cursor: str | None = None
    while True:
        page = reader.list_audits(db, AuditFilter(model=model), cursor=cursor, limit=limit)
        assert len(page.items) <= limit
        seen += _ids(page)
        cursor = page.next_cursor
        if cursor is None:
            break
        flag(inserted)
    assert seen == sorted(there, reverse=True)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from([0.5, 0.1 + 0.2, -1.0, 1e-17]), min_size=1, max_size=8), st.integers(1, 3))
def test_pages_of_cited_by_hold_ties(db: Database, scores: list[float], limit: int) -> None:
    """Equal scores over the edge of a page: every audit once, the highest score first."""
    cited = example(10_000 + next(_fresh))
    bundle = register(
        db, f"bundle-{cited.example_id}", model=cited.example_id, examples=[], corpus_examples=99_999
    )
    accept(db, *(record(model=cited.example_id, idempotency_key=None) for _ in scores))
    batch = claim(db, bundle, limit=len(scores))
    answers = [attribution(draft(1, cited, score=score)) for score in scores]
    done = [Finished(one, answer, 0.1) for one, answer in zip(batch.audits, answers, strict=True)]
    AuditQueue(db).finish(done)
    (stored,) = reader.find_example(db, cited.example_id)
    seen, cursor = [], None
    while True:
        page = reader.cited_by(db, stored.training_example_id, cursor=cursor, limit=limit)
        seen += [(one.score, one.audit.audit_id) for one in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    expected = zip(scores, (one.audit_id for one in batch.audits), strict=True)
    assert seen == sorted(expected, reverse=True)
    assert stored.citations == len(scores)


def test_one_audit(db: Database, bundle_id: int) -> None:
    """The whole output, proponents by rank, opponents apart with the strongest first."""
    flagged = record(
        messages=[{"role": "user", "content": "Q"}], prompt=None, labels={"a": "b"}, preferred="No."
    )
    answer = attribution(
        draft(1, example(0)), draft(2, example(1)), draft(-1, example(2)), draft(-2, example(3))
    )
    (audit_id,) = answered(db, bundle_id, flagged, answer=answer)
    detail = reader.get_audit(db, audit_id)
    assert (detail.audit.audit_id, detail.idempotency_key, detail.completion) == (
        audit_id,
        "key-0",
        "Answer 0.",
    )
    assert (detail.turns, detail.labels, detail.preferred) == (flagged.turns(), {"a": "b"}, "No.")
    assert (detail.tokens, detail.loss_nats, detail.candidates, detail.seconds) == (12, 1.25, 40, 0.5)
    assert [one.rank for one in detail.citations] == [1, 2]
    assert [one.rank for one in detail.opponents] == [-1, -2]
    first = detail.citations[0]
    assert (first.example_id, first.prompt, first.source) == ("ex-00000", "How about 0?", "source-0")
    assert (first.score, first.similarity_score, first.effect_nats) == (1.0, 0.75, None)


def test_an_erased_output_is_still_listed(db: Database, bundle_id: int) -> None:
    """Without its text: an empty excerpt, empty turns, the citations as before."""
    (audit_id,) = answered(db, bundle_id, record())
    with db.writing() as session:
        session.execute(delete(FlaggedText))
    assert reader.list_audits(db, AuditFilter()).items[0].excerpt == ""
    detail = reader.get_audit(db, audit_id)
    assert (detail.turns, detail.completion, len(detail.citations)) == ((), "", 4)


def test_what_does_not_exist_is_not_found(db: Database) -> None:
    """Audits and examples; an example id that nobody has is an empty list."""
    with pytest.raises(NotFound, match="audit 7"):
        reader.get_audit(db, 7)
    with pytest.raises(NotFound, match="training example 7"):
        reader.get_example(db, 7)
    assert reader.find_example(db, "nobody") == []
    assert reader.cited_by(db, 7).items == ()


def test_one_example(db: Database, bundle_id: int) -> None:
    """Its text and fields, and how many audits name it."""
    answered(db, bundle_id, record(1), record(2))
    (found,) = reader.find_example(db, "ex-00004")
    detail = reader.get_example(db, found.training_example_id)
    assert detail == found
    assert (detail.completion, detail.source, detail.citations) == ("It is 4.", "source-1", 2)
    (line, _) = reader.cited_by(db, detail.training_example_id).items
    assert (line.rank, line.score, line.influence_score) == (-1, -1.0, -0.25)


def test_sources_count_proponents(db: Database, bundle_id: int) -> None:
    """Examples 0 to 3 are cited by each audit, example 4 as an opponent; three sources take turns."""
    answered(db, bundle_id, record(1), record(2))
    counts = {
        one.source: (one.examples, one.citations, one.first_citations, one.audits)
        for one in reader.sources(db)
    }
    assert counts == {"source-0": (2, 4, 2, 2), "source-1": (2, 2, 0, 2), "source-2": (1, 2, 0, 2)}
    assert reader.sources(db)[0].source == "source-0"


def test_queue_health(db: Database, bundle_id: int) -> None:
    """All states with their counts, the age of the oldest pending audit, leases that ran out."""
    assert reader.queue_health(db).oldest_pending_seconds is None
    answered(db, bundle_id, record(1))
    accept(db, record(2), record(3), record(4, model="another"))
    claim_one(db, bundle_id)
    with db.writing() as session:
        session.execute(
            update(Audit).where(Audit.state == AuditState.PENDING).values(created_at=db_after(-30))
        )
    expire_leases(db)
    health = reader.queue_health(db)
    assert {state.value: number for state, number in health.states.items()} == {
        "pending": 1,
        "running": 1,
        "done": 1,
        "abstained": 0,
        "rejected": 1,
        "dead": 0,
    }
    assert health.oldest_pending_seconds == pytest.approx(30, abs=5)
    assert health.expired_leases == 1


@pytest.mark.parametrize(
    ("read", "expected"),
    [
        (lambda db: reader.list_audits(db, AuditFilter(state=AuditState.DONE, top_source="source-0")), 1),
        # these two filters are looked up first, both in one statement
        (lambda db: reader.list_audits(db, AuditFilter(source="source-0", text="answer")), 2),
        (lambda db: reader.get_audit(db, 1), 3),
        (lambda db: reader.get_example(db, 1), 1),
        (lambda db: reader.find_example(db, "ex-00000"), 1),
        (lambda db: reader.cited_by(db, 1), 1),
        (reader.sources, 1),
        (reader.queue_health, 2),
    ],
)
def test_statements_of_a_page(
    db: Database, bundle_id: int, read: Callable[[Database], object], expected: int
) -> None:
    """The number of SQL statements does not depend on how much there is to show."""
    for size in (1, 8):
        answered(db, bundle_id, *(record(idempotency_key=None) for _ in range(size)))
        with recorded_statements() as statements:
            read(db)
        assert len(statements) == expected, statements


def test_answers_do_not_depend_on_who_else_works(db: Database, bundle_id: int) -> None:
    """Readers work while a writer is in the middle of its transaction."""
    answered(db, bundle_id, record(1))
    with db.writing() as session:
        session.execute(update(Audit).values(top_source="changing"))
        assert reader.list_audits(db, AuditFilter()).items[0].top_source == "source-0"
