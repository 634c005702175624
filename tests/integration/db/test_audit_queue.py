"""Claims and leases: never more than the limit, never the same audit twice, nothing lost when a worker dies."""

from functools import partial
from itertools import chain

import pytest
from sqlalchemy import delete, func, select, text, update

from db.models import FlaggedOutput, FlaggedText
from db.queues import waiting
from db.queues.audit_queue import AuditQueue
from db.queues.queue import Failure
from db.session import Database
from tests.integration.db.builders import (
    OWNER,
    accept,
    at_once,
    audit_row,
    claim,
    claim_one,
    expire_leases,
    make_due,
    record,
    recorded_statements,
    register,
)
from wherefrom.records import AuditState, IntakeResult


def _next(db: Database, bundle_id: int, *, limit: int, owner: str) -> list[int]:
    taken = AuditQueue(db).claim(bundle_id, limit=limit, owner=owner, lease_s=60)
    return [] if taken is None else [one.audit_id for one in taken.audits]


def test_a_claim_names_owner_bundle_and_attempt(db: Database, bundle_id: int) -> None:
    """What the worker needs: the record, the fencing token, the bundle's name."""
    (result,) = accept(db, record())
    taken = claim(db, bundle_id)
    assert (taken.owner, taken.bundle_id, taken.bundle_name) == (OWNER, bundle_id, "bundle-a")
    (one,) = taken.audits
    assert (one.audit_id, one.output_id, one.attempt) == (result.audit_id, result.output_id, 1)
    assert one.record.completion == "Answer 0."
    row = audit_row(db, one.audit_id)
    assert row.state is AuditState.RUNNING
    assert row.lease_until is not None
    assert row.claimed_at is not None
    assert 55 < (row.lease_until - row.claimed_at).total_seconds() <= 60.01


def test_waiting_audits_say_why_no_worker_takes_them(db: Database, bundle_id: int) -> None:
    """Written once, overwritten by the next reason, gone when the audit is answered; other states are left alone."""
    accept(db, record(0), record(1))
    (held,) = claim(db, bundle_id, limit=1).audits
    assert waiting.explain_waiting(db, bundle_id, code="unusable_model", reason="not here") == 1
    assert waiting.explain_waiting(db, bundle_id, code="unusable_model", reason="not here") == 0
    assert waiting.explain_waiting(db, bundle_id, code="unusable_model", reason="still not here") == 1
    assert audit_row(db, held.audit_id).code is None
    (pending,) = claim(db, bundle_id, limit=2).audits
    row = audit_row(db, pending.audit_id)
    assert (row.code, row.reason) == ("unusable_model", "still not here")


def test_never_more_than_the_limit(db: Database, bundle_id: int) -> None:
    """Pending and abandoned audits together stay within the limit, most urgent and oldest first."""
    results = accept(db, *(record(number) for number in range(6)))
    claim(db, bundle_id, limit=3, owner="dead")
    expire_leases(db)
    assert [one.audit_id for one in claim(db, bundle_id, limit=4).audits] == [
        one.audit_id for one in results[:4]
    ]
    assert len(claim(db, bundle_id, limit=4).audits) == 2


def test_nothing_to_claim_is_none(db: Database, bundle_id: int) -> None:
    """No audit, another bundle's audit, a running audit: None."""
    other = register(db, "bundle-b", model="another")
    assert AuditQueue(db).claim(bundle_id, limit=5, owner=OWNER, lease_s=60) is None
    accept(db, record())
    assert AuditQueue(db).claim(other, limit=5, owner=OWNER, lease_s=60) is None
    claim(db, bundle_id)
    assert AuditQueue(db).claim(bundle_id, limit=5, owner=OWNER, lease_s=60) is None


def test_two_claimers_never_get_the_same_audit(db: Database, bundle_id: int) -> None:
    """Six threads drain the queue: no audit twice, no batch over the limit, none left."""
    total = 60
    accept(db, *(record(number) for number in range(total)))

    def drain(owner: str) -> list[list[int]]:
        batches: list[list[int]] = []
        # An empty claim may mean that the others hold the rest at this moment; only the count says that all are taken.
        while AuditQueue(db).pending_counts():
            batches.append(_next(db, bundle_id, limit=7, owner=owner))
        return batches

    batches = list(chain(*at_once([partial(drain, f"w{number}") for number in range(6)])))
    assert max(len(batch) for batch in batches) <= 7
    ids = list(chain(*batches))
    assert len(ids) == len(set(ids)) == total


def test_expired_leases_are_claimed_again_under_the_next_attempt(db: Database, bundle_id: int) -> None:
    """A dead worker's audit goes to the next claimer; the attempt grows."""
    accept(db, record())
    first = claim_one(db, bundle_id, owner="dead")
    expire_leases(db)
    second = claim_one(db, bundle_id)
    assert (second.audit_id, second.attempt) == (first.audit_id, 2)


def test_spent_attempts_are_left_to_the_sweeper(db: Database, bundle_id: int) -> None:
    """With `max_attempts`, an audit that killed its workers is not claimed again, only made dead."""
    accept(db, record())
    assert AuditQueue(db).begin(claim_one(db, bundle_id).lease)
    expire_leases(db)
    one_more = {"limit": 1, "owner": OWNER, "lease_s": 60.0}
    assert AuditQueue(db).claim(bundle_id, **one_more, max_attempts=1) is None  # type: ignore[arg-type]  # one mapping for several types of argument
    assert AuditQueue(db).claim(bundle_id, **one_more, max_attempts=2) is not None  # type: ignore[arg-type]  # one mapping for several types of argument


def test_extend_renews_what_is_held_and_tells_it(db: Database, bundle_id: int) -> None:
    """An expired lease that nobody took is renewed; an audit that somebody else took is missing from the answer."""
    accept(db, record(1), record(2), record(3))
    taken = claim(db, bundle_id)
    finished, lost, kept = (one.audit_id for one in taken.audits)
    assert AuditQueue(db).fail(
        taken.audits[0].lease, Failure("invalid_record", "no", refused=True), max_attempts=5
    )
    expire_leases(db)
    (stolen,) = _next(db, bundle_id, limit=1, owner="other")
    assert stolen == lost
    assert AuditQueue(db).extend([one.lease for one in taken.audits], lease_s=60) == {kept}
    assert AuditQueue(db).release_expired(max_attempts=5) == 0
    assert finished not in AuditQueue(db).extend([one.lease for one in taken.audits], lease_s=60)


def test_release_expired_gives_back_or_ends(db: Database, bundle_id: int) -> None:
    """Attempts left: pending at once. Attempts spent: dead, with code and the worker's name."""
    accept(db, record(1), record(2))
    AuditQueue(db).begin(claim_one(db, bundle_id, owner="dead").lease)
    expire_leases(db)
    assert AuditQueue(db).release_expired(max_attempts=2) == 1
    again = claim_one(db, bundle_id, owner="dead")
    assert (again.attempt, again.spent) == (2, 1)
    AuditQueue(db).begin(again.lease)
    expire_leases(db)
    assert AuditQueue(db).release_expired(max_attempts=2) == 1
    row = audit_row(db, again.audit_id)
    assert (row.state, row.code) == (AuditState.DEAD, "lease_expired")
    assert row.reason is not None
    assert "'dead'" in row.reason
    assert row.finished_at is not None
    assert AuditQueue(db).release_expired(max_attempts=2) == 0


def test_a_claim_alone_costs_no_attempt(db: Database, bundle_id: int) -> None:
    """However often a process dies with an audit that it did not work on, the audit has all its attempts left."""
    accept(db, record())
    queue = AuditQueue(db)
    for number in range(1, 5):
        one = claim_one(db, bundle_id, max_attempts=1)
        assert (one.attempt, one.spent) == (number, 0)
        expire_leases(db)
        assert queue.release_expired(max_attempts=1) == 1
    assert audit_row(db, one.audit_id).state is AuditState.PENDING


def test_what_was_begun_costs_one_attempt(db: Database, bundle_id: int) -> None:
    """Begun once or twice, and failed after it or not: one attempt. A lost lease can begin nothing."""
    accept(db, record())
    queue = AuditQueue(db)
    first = claim_one(db, bundle_id)
    assert queue.begin(first.lease)
    assert queue.begin(first.lease)
    queue.fail(first.lease, Failure("x", "y", retry_in_s=0), max_attempts=5)
    second = claim_one(db, bundle_id)
    assert second.spent == 1
    queue.fail(second.lease, Failure("x", "y", retry_in_s=0), max_attempts=5)
    third = claim_one(db, bundle_id)
    assert third.spent == 2
    assert not queue.begin(second.lease)
    assert claim_spent(db, third.audit_id) == 2


def claim_spent(db: Database, audit_id: int) -> int:
    """Attempts of an audit that count."""
    row = audit_row(db, audit_id)
    return row.attempt - row.attempt_floor


def test_a_dead_process_is_told_and_its_audits_are_free_at_once(db: Database, bundle_id: int) -> None:
    """What it had not begun can be claimed now; what it had begun waits and says how the process ended; others keep theirs."""
    accept(db, record(1), record(2), record(3))
    queue = AuditQueue(db)
    begun, innocent = claim(db, bundle_id, limit=2, owner="host:7:a").audits
    other = claim_one(db, bundle_id, owner="host:77:a")
    queue.begin(begun.lease)
    cause = "its process was ended by signal 9 (SIGKILL)"
    release = partial(queue.release_lost, "host:7:", cause=cause, wait_s=lambda spent: 60.0 * spent)
    assert release(max_attempts=2) == 2
    assert release(max_attempts=2) == 0
    row = audit_row(db, begun.audit_id)
    assert (row.state, row.reason) == (AuditState.PENDING, f"attempt 1 of 2: {cause}")
    assert audit_row(db, other.audit_id).lease_owner == "host:77:a"
    assert claim_one(db, bundle_id, limit=9).audit_id == innocent.audit_id
    make_due(db)
    last = claim_one(db, bundle_id, owner="host:7:b")
    queue.begin(last.lease)
    assert release(max_attempts=2) == 1
    row = audit_row(db, begun.audit_id)
    assert (row.state, row.code, row.reason) == (
        AuditState.DEAD,
        "lease_expired",
        f"attempt 2 of 2: {cause}",
    )


def test_owners_are_matched_by_letter(db: Database, bundle_id: int) -> None:
    """Wildcards of SQL in the name of a machine are no wildcards."""
    accept(db, record())
    claim_one(db, bundle_id, owner="hostX7:a")
    assert AuditQueue(db).release_lost("host_7:", cause="x", max_attempts=2, wait_s=float) == 0
    assert AuditQueue(db).release_lost("%", cause="x", max_attempts=2, wait_s=float) == 0


def erase(db: Database, *results: IntakeResult) -> None:
    """Erase the texts of outputs."""
    with db.writing() as session:
        outputs = [one.output_id for one in results]
        session.execute(delete(FlaggedText).where(FlaggedText.flagged_output_id.in_(outputs)))


def test_an_erased_output_is_closed_and_hides_nobody(db: Database, bundle_id: int) -> None:
    """Two erased outputs at the head of the queue: rejected at the first claim, which gives what stands behind them."""
    first, second, third, last = accept(
        db, record(1, severity="critical"), record(2, severity="critical"), record(3), record(4)
    )
    erase(db, first, second, last)
    (one,) = claim(db, bundle_id, limit=2).audits
    assert one.audit_id == third.audit_id
    for erased in (first, second):
        row = audit_row(db, erased.audit_id or 0)
        assert (row.state, row.code, row.lease_owner) == (AuditState.REJECTED, "output_erased", None)
        assert "erased" in (row.reason or "")
        assert row.finished_at is not None
    assert AuditQueue(db).claim(bundle_id, owner=OWNER, limit=2, lease_s=60) is None
    assert audit_row(db, last.audit_id or 0).state is AuditState.REJECTED
    assert AuditQueue(db).pending_counts() == {}


def test_an_output_erased_under_a_lease_is_closed_at_the_next_claim(db: Database, bundle_id: int) -> None:
    """The worker died, the text is gone: it is not tried again."""
    (result,) = accept(db, record())
    claim(db, bundle_id)
    erase(db, result)
    expire_leases(db)
    assert AuditQueue(db).claim(bundle_id, owner=OWNER, limit=1, lease_s=60) is None
    assert audit_row(db, result.audit_id or 0).code == "output_erased"
    assert waiting.requeue(db, state=AuditState.REJECTED) == 0, "there is nothing to explain"
    assert waiting.requeue(db, audit_ids=[result.audit_id or 0]) == 0


def test_leases_and_waits_end_after_the_clock_was_set_back(db: Database, bundle_id: int) -> None:
    """A lease until tomorrow is cut to a lease from now, a wait until tomorrow to the longest wait; others stay."""
    accept(db, record(1), record(2), record(3), record(4))
    queue = AuditQueue(db)
    late, right, waits, waits_long = claim(db, bundle_id, lease_s=50).audits
    queue.fail(waits.lease, Failure("x", "y", retry_in_s=100), max_attempts=5)
    queue.fail(waits_long.lease, Failure("x", "y", retry_in_s=86_400), max_attempts=5)
    queue.extend([late.lease], lease_s=86_400)
    before = audit_row(db, right.audit_id).lease_until
    assert queue.cap_leases(lease_s=60) == 1
    assert queue.cap_leases(lease_s=60) == 0
    assert queue.cap_waits(wait_s=300) == 1
    assert queue.cap_waits(wait_s=300) == 0
    now = queue.now()
    row = audit_row(db, late.audit_id)
    assert row.lease_until is not None
    assert 50 < (row.lease_until - now).total_seconds() <= 60.1
    assert audit_row(db, right.audit_id).lease_until == before
    times = [audit_row(db, one.audit_id).next_attempt_at for one in (waits, waits_long)]
    assert [one is not None and round((one - now).total_seconds(), -1) for one in times] == [100, 300]
    assert queue.extend([late.lease], lease_s=60) == {late.audit_id}, "its owner still holds it"


def test_pending_counts_are_what_could_be_claimed_now(db: Database, bundle_id: int) -> None:
    """Due and abandoned audits count; running ones and those that wait for a retry do not."""
    accept(db, *(record(number) for number in range(4)))
    waiting, running, _ = claim(db, bundle_id, limit=3).audits
    AuditQueue(db).fail(waiting.lease, Failure("out_of_memory", "full", retry_in_s=60), max_attempts=5)
    assert AuditQueue(db).pending_counts() == {bundle_id: 1}
    expire_leases(db)
    AuditQueue(db).fail(running.lease, Failure("invalid_record", "no", refused=True), max_attempts=5)
    assert AuditQueue(db).pending_counts() == {bundle_id: 2}
    make_due(db)
    assert AuditQueue(db).pending_counts() == {bundle_id: 3}


def test_a_claim_costs_two_statements(db: Database, bundle_id: int) -> None:
    """One UPDATE and one SELECT, however many audits."""
    accept(db, *(record(number) for number in range(20)))
    with recorded_statements() as statements:
        claim(db, bundle_id, limit=20)
    assert len(statements) == 2


@pytest.mark.parametrize("column", ["messages", "labels"])
def test_an_unreadable_row_does_not_take_its_batch_down(db: Database, bundle_id: int, column: str) -> None:
    """A stored output that is no record (any more) is rejected; the others of the batch are claimed in their order."""
    first, broken, last = accept(db, record(1), record(2), record(3))
    damage = {
        "messages": update(FlaggedText)
        .where(FlaggedText.flagged_output_id == broken.output_id)
        .values(turns=[]),
        "labels": update(FlaggedOutput).where(FlaggedOutput.id == broken.output_id).values(labels={"a": 1}),
    }
    with db.writing() as session:
        session.execute(damage[column])
    assert [one.audit_id for one in claim(db, bundle_id).audits] == [first.audit_id, last.audit_id]
    row = audit_row(db, broken.audit_id or 0)
    assert (row.state, row.code, row.lease_owner) == (AuditState.REJECTED, "invalid_record", None)
    assert "not a valid record (ValidationError)" in (row.reason or "")
    assert AuditQueue(db).claim(bundle_id, limit=5, owner=OWNER, lease_s=60) is None


def test_a_column_that_is_no_json(sqlite_copy: str) -> None:
    """SQLite holds any text where JSON should be; the audit is rejected alone, also when it is the only one."""
    db = Database(sqlite_copy)
    bundle_id = register(db)
    (broken,) = accept(db, record(1))
    with db.writing() as session:
        session.execute(text("UPDATE flagged_text SET turns = '{'"))
    assert AuditQueue(db).claim(bundle_id, limit=5, owner=OWNER, lease_s=60) is None
    assert audit_row(db, broken.audit_id or 0).code == "invalid_record"
    db.dispose()


def test_a_claim_says_whether_the_prompt_came_as_one_text(db: Database, bundle_id: int) -> None:
    """A model without a chat template answers for a prompt, and for messages not; rows of the release before count as messages."""
    prompt = record(0)
    chat = record(1).model_copy(update={"prompt": None, "messages": prompt.turns()})
    accept(db, prompt, chat, record(2))
    with db.writing() as session:
        last = select(func.max(FlaggedText.flagged_output_id)).scalar_subquery()
        old = update(FlaggedText).where(FlaggedText.flagged_output_id == last)
        session.execute(old.values(plain_prompt=None))
    records = [one.record for one in claim(db, bundle_id, limit=9).audits]
    assert [one.prompt is not None for one in records] == [True, False, False]
    assert [one.turns()[0].content for one in records] == [
        prompt.prompt,
        prompt.prompt,
        record(2).turns()[0].content,
    ]
