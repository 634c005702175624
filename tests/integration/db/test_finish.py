"""The ways out of `running`: fenced, whole or not at all, and back again by retry or requeue."""

from functools import partial

import pytest
from sqlalchemy import func, select, update

from db.clock import db_after
from db.models import Audit, Citation, TrailEvent, TrainingExample
from db.queues.audit_queue import AuditQueue, Finished
from db.queues.queue import Failure
from db.session import Database
from tests.integration.db.builders import (
    OWNER,
    accept,
    at_once,
    attribution,
    audit_row,
    claim,
    claim_one,
    count,
    draft,
    example,
    expire_leases,
    five_citations,
    record,
    recorded_statements,
    register,
    sha256,
)
from wherefrom.records import AuditState, ClaimedAudit


def _finish(db: Database, claimed: ClaimedAudit, owner: str = OWNER) -> bool:
    mine = claimed.model_copy(update={"owner": owner})
    return claimed.audit_id in AuditQueue(db).finish([Finished(mine, five_citations(), 0.5)])


def _citations_per_audit(db: Database) -> list[int]:
    with db.reading() as session:
        return list(session.scalars(select(func.count()).select_from(Citation).group_by(Citation.audit_id)))


def test_finish_stores_the_answer(db: Database, bundle_id: int) -> None:
    """State, numbers, first citation, and every citation with all its scores."""
    accept(db, record())
    claimed = claim_one(db, bundle_id)
    assert _finish(db, claimed)
    row = audit_row(db, claimed.audit_id)
    assert (row.state, row.tokens, row.loss_nats, row.candidates, row.seconds) == (
        AuditState.DONE,
        12,
        1.25,
        40,
        0.5,
    )
    assert (row.top_source, row.top_score, row.lease_owner) == ("source-0", 1.0, None)
    assert row.finished_at is not None
    with db.reading() as session:
        stored = session.scalars(select(Citation).order_by(Citation.rank)).all()
        assert [one.rank for one in stored] == [-1, 1, 2, 3, 4]
        assert (stored[1].retrieval_score, stored[1].influence_score, stored[1].bm25_score) == (
            0.5,
            0.25,
            1.5,
        )
        kinds = session.scalars(
            select(TrailEvent.kind).where(TrailEvent.subject == f"audit:{claimed.audit_id}")
        )
        assert kinds.all() == ["audit.finished"]


def test_a_late_worker_is_refused_and_citations_stand_once(db: Database, bundle_id: int) -> None:
    """Two workers answer the same audit, the one that lost its lease last: one answer, stored once."""
    accept(db, record())
    late = claim_one(db, bundle_id, owner="late")
    expire_leases(db)
    current = claim_one(db, bundle_id)
    assert not _finish(db, late, "late")
    assert count(db, Citation) == 0
    assert _finish(db, current)
    assert not _finish(db, late, "late")
    assert not _finish(db, current), "a second commit of the same answer"
    assert _citations_per_audit(db) == [5]


@pytest.mark.parametrize("change", [{"attempt": 2}, {"audit_id": 4711}])
def test_a_wrong_token_is_refused(db: Database, bundle_id: int, change: dict[str, int]) -> None:
    """Attempt and id must match; so must the owner, below."""
    accept(db, record())
    claimed = claim_one(db, bundle_id)
    assert not _finish(db, claimed.model_copy(update=change))
    assert not _finish(db, claimed, "somebody else")
    assert audit_row(db, claimed.audit_id).state is AuditState.RUNNING


def test_many_workers_finish_the_same_audit_once(db: Database, bundle_id: int) -> None:
    """Eight threads commit the same answer at once: one is stored."""
    accept(db, record())
    claimed = claim_one(db, bundle_id)
    assert sorted(at_once([partial(_finish, db, claimed)] * 8)) == [False] * 7 + [True]
    assert _citations_per_audit(db) == [5]


def test_finish_many_skips_the_fenced(db: Database, bundle_id: int) -> None:
    """A batch in which one audit was lost: the others are stored, of the lost one nothing."""
    accept(db, *(record(number) for number in range(4)))
    batch = claim(db, bundle_id)
    lost = batch.audits[1]
    AuditQueue(db).fail(lost.lease, Failure("invalid_record", "no", refused=True), max_attempts=5)
    done = [Finished(one, five_citations(), 0.1) for one in batch.audits]
    stored = AuditQueue(db).finish(done[::-1])
    assert stored == {one.audit_id for one in batch.audits} - {lost.audit_id}
    assert _citations_per_audit(db) == [5, 5, 5]
    assert audit_row(db, lost.audit_id).state is AuditState.REJECTED
    assert AuditQueue(db).finish([]) == set()


def test_a_part_of_a_batch_was_claimed_again_by_another_worker(db: Database, bundle_id: int) -> None:
    """The late worker's answers to that part change nothing, also while the other one works on it; the rest of its batch is stored."""
    accept(db, *(record(number) for number in range(6)))
    late = claim(db, bundle_id, owner="late").audits
    with db.writing() as session:
        passed = update(Audit).where(Audit.id.in_([one.audit_id for one in late[:3]]))
        session.execute(passed.values(lease_until=db_after(-1)))
    other = claim(db, bundle_id, owner="other").audits
    assert [one.audit_id for one in other] == [one.audit_id for one in late[:3]]
    answers = [Finished(one, five_citations(), 0.1) for one in late]
    assert AuditQueue(db).finish(answers) == {one.audit_id for one in late[3:]}
    held = [audit_row(db, one.audit_id) for one in other]
    assert [(one.state, one.lease_owner, one.tokens) for one in held] == [
        (AuditState.RUNNING, "other", None)
    ] * 3
    assert AuditQueue(db).finish([Finished(one, five_citations(), 0.1) for one in other]) == {
        one.audit_id for one in other
    }
    assert AuditQueue(db).finish(answers) == set(), "all of them are closed"
    assert _citations_per_audit(db) == [5] * 6
    with db.reading() as session:
        told = select(func.count()).where(TrailEvent.kind == "audit.finished")
        assert session.scalar(told) == 6


def test_workers_that_finish_overlapping_batches_at_once(db: Database, bundle_id: int) -> None:
    """Tokens of two claims in opposite orders, stored at the same time: each audit by the one that holds it, and no deadlock."""
    accept(db, *(record(number) for number in range(12)))
    late = claim(db, bundle_id, owner="late", limit=12).audits
    with db.writing() as session:
        passed = update(Audit).where(Audit.id.in_([one.audit_id for one in late[::2]]))
        session.execute(passed.values(lease_until=db_after(-1)))
    other = claim(db, bundle_id, owner="other", limit=12).audits
    mine = [Finished(one, five_citations(), 0.1) for one in late]
    theirs = [Finished(one, five_citations(), 0.1) for one in other[::-1]]
    finish = AuditQueue(db).finish
    stored = at_once([partial(finish, mine), partial(finish, theirs)] * 3)
    assert sorted(number for one in stored for number in one) == sorted(one.audit_id for one in late)
    assert all(one <= {audit.audit_id for audit in other} for one in stored[1::2])
    assert _citations_per_audit(db) == [5] * 12


def test_a_failing_insert_takes_the_whole_batch_back(db: Database, bundle_id: int) -> None:
    """Two citations of one rank are a bug: it is raised, and no audit of the batch is closed."""
    accept(db, record(1), record(2))
    good, bad = claim(db, bundle_id).audits
    twice = attribution(draft(1, example(0)), draft(1, example(1)))
    with pytest.raises(Exception, match=r"(?i)unique"):
        AuditQueue(db).finish([Finished(good, five_citations(), 0.1), Finished(bad, twice, 0.1)])
    assert audit_row(db, good.audit_id).state is AuditState.RUNNING
    assert count(db, Citation) == 0


def test_abstained_carries_code_and_reason(db: Database, bundle_id: int) -> None:
    """An answer without citations closes the audit with the reason given."""
    accept(db, record())
    claimed = claim_one(db, bundle_id)
    assert AuditQueue(db).finish(
        [
            Finished(
                claimed,
                attribution(),
                0.1,
                state=AuditState.ABSTAINED,
                code="no_evidence",
                reason="nothing stands out",
            )
        ]
    )
    row = audit_row(db, claimed.audit_id)
    assert (row.state, row.code, row.top_source) == (AuditState.ABSTAINED, "no_evidence", None)


def test_statements_of_finish(db: Database, bundle_id: int) -> None:
    """However many audits: who is still held, one fenced UPDATE for all, examples, citations, trail."""
    accept(db, *(record(number) for number in range(9)))
    first, *others = claim(db, bundle_id).audits
    for some in ([first], others):
        with recorded_statements() as statements:
            AuditQueue(db).finish([Finished(one, five_citations(), 0.1) for one in some])
        assert len(statements) == 5
        assert sum(one.startswith("UPDATE audit") for one in statements) == 1


def test_numbers_and_lists_arrive_as_they_were(db: Database, bundle_id: int) -> None:
    """Bit by bit, whichever way the rows of a batch take: also columns that only one of them has a value for."""
    accept(db, record(1), record(2))
    plain, rich = claim(db, bundle_id).audits
    numbers = [0.1 + 0.2, 5e-324, 1.7976931348623157e308, -2.2250738585072014e-308, 1 / 3]
    drafts = [draft(rank, example(rank - 1), score=score) for rank, score in enumerate(numbers, start=1)]
    odd = drafts[0].model_copy(
        update={"confidence": 0.1, "alike": ("ü\u2028", '"'), "sign_determined": False}
    )
    AuditQueue(db).finish(
        [
            Finished(plain, five_citations(), 1 / 7),
            Finished(rich, attribution(odd, *drafts[1:], loss_nats=numbers[0]), 2 / 7),
        ]
    )
    with db.reading() as session:
        query = select(Citation).where(Citation.audit_id == rich.audit_id).order_by(Citation.rank)
        stored = session.scalars(query).all()
        assert [one.score for one in stored] == numbers
        assert (stored[0].confidence, stored[0].alike, stored[0].sign_determined) == (
            0.1,
            ["ü\u2028", '"'],
            False,
        )
        assert (stored[1].confidence, stored[1].alike, stored[1].ekfac_score) == (None, [], None)
        assert stored[0].tier is drafts[0].tier
    row = audit_row(db, rich.audit_id)
    assert (row.seconds, row.loss_nats, row.top_score) == (2 / 7, numbers[0], numbers[0])


def test_cited_examples_of_a_large_corpus_are_stored_once(db: Database) -> None:
    """Workers that cite the same new examples at once, in different orders: stored once, nobody deadlocks."""
    bundle = register(db, corpus_examples=1_000_000, examples=[])
    assert count(db, TrainingExample) == 0
    accept(db, *(record(number) for number in range(12)))
    batches = [claim(db, bundle, limit=3, owner=f"w{number}") for number in range(4)]

    def answer(number: int) -> set[int]:
        order = range(30) if number % 2 else range(29, -1, -1)
        drafts = [draft(rank, example(cited)) for rank, cited in enumerate(order, start=1)]
        done = [Finished(one, attribution(*drafts), 0.1) for one in batches[number].audits]
        return AuditQueue(db).finish(done)

    stored = at_once([partial(answer, number) for number in range(4)])
    assert sum(len(one) for one in stored) == 12
    assert count(db, TrainingExample) == 30
    assert count(db, Citation) == 12 * 30


def test_heartbeats_and_commits_of_one_batch_do_not_deadlock(db: Database, bundle_id: int) -> None:
    """The heartbeat renews a batch's leases while the batch is committed, in the worst order for locks."""
    for round_number in range(5):
        accept(db, *(record(100 * round_number + number) for number in range(12)))
        batch = claim(db, bundle_id, limit=12)
        turned = batch.model_copy(update={"audits": batch.audits[::-1]})
        done = [Finished(one, five_citations(), 0.1) for one in turned.audits]
        extend = partial(AuditQueue(db).extend, [one.lease for one in turned.audits], lease_s=60)
        finish = partial(AuditQueue(db).finish, done)
        stored = at_once([extend, finish, extend])[1]
        assert stored == {one.audit_id for one in batch.audits}


def test_more_citations_than_variables_of_a_statement(db: Database) -> None:
    """Hundreds of new examples cited by one batch fit."""
    bundle = register(db, corpus_examples=1_000_000, examples=[])
    accept(db, *(record(number) for number in range(8)))
    done = []
    for position, one in enumerate(claim(db, bundle).audits):
        drafts = [draft(rank, example(position * 200 + rank)) for rank in range(1, 201)]
        done.append(Finished(one, attribution(*drafts), 0.1))
    assert len(AuditQueue(db).finish(done)) == 8
    assert count(db, Citation) == 1600


def test_texts_that_no_column_holds_are_replaced(db: Database) -> None:
    """NUL and lone surrogates of a corpus become U+FFFD; its fields become JSON that both engines take."""
    bundle = register(db, corpus_examples=1_000_000, examples=[])
    odd = example(
        1,
        prompt="a\x00b",
        completion="c\ud800d",
        fields={"n": float("nan"), "l": (1, "x\x00"), "o": {2}, "b": True},
    )
    accept(db, record())
    claimed = claim_one(db, bundle)
    assert AuditQueue(db).finish([Finished(claimed, attribution(draft(1, odd)), 0.1)])
    with db.reading() as session:
        stored = session.scalars(select(TrainingExample)).one()
        assert (stored.prompt, stored.completion) == ("a\ufffdb", "c\ufffdd")
        assert stored.fields == {"n": None, "l": [1, "x\ufffd"], "o": "{2}", "b": True}
        assert stored.text_sha256 == sha256("1")
