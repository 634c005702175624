"""However many rows there are: a transaction changes a bounded number of them, and counting ends at a limit."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from sqlalchemy import Connection, Engine, event, func, select

from db import chunks, counts
from db.bundles import routing
from db.models import Audit, Citation
from db.queues import queue, waiting
from db.queues.audit_queue import AuditQueue
from db.queues.queue import Failure
from db.reading import reader
from db.session import Database
from tests.integration.db.builders import (
    OWNER,
    accept,
    answered,
    claim,
    expire_leases,
    record,
    recorded_statements,
    register,
)
from wherefrom.records import AuditState

ROWS = 5
MANY = 23


@dataclass
class Changes:
    """Audits changed by each transaction, as far as their statements told."""

    committed: list[int] = field(default_factory=list)
    open: int = 0


@contextmanager
def recorded_changes() -> Iterator[Changes]:
    """What the transactions of the block change."""
    changes = Changes()

    def executed(connection: object, cursor: object, statement: str, *others: object) -> None:
        if statement.startswith("UPDATE audit"):
            changes.open += getattr(cursor, "rowcount", 0)

    def committed(connection: Connection) -> None:
        if changes.open:
            changes.committed.append(changes.open)
        changes.open = 0

    event.listen(Engine, "after_cursor_execute", executed)
    event.listen(Engine, "commit", committed)
    try:
        yield changes
    finally:
        event.remove(Engine, "after_cursor_execute", executed)
        event.remove(Engine, "commit", committed)


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five rows are many."""
    monkeypatch.setattr(chunks, "ROWS", ROWS)
    monkeypatch.setattr(chunks, "IDS", 2 * ROWS)
    monkeypatch.setattr(queue, "CHUNK", ROWS)
    monkeypatch.setattr(routing, "CHUNK", ROWS)


def states(db: Database) -> dict[AuditState, int]:
    """Audits by state, without those that have none."""
    with db.reading() as session:
        by_state = select(Audit.state, func.count().label("number")).group_by(Audit.state)
        return {row.state: row.number for row in session.execute(by_state)}


def assert_in_chunks(changes: Changes, rows: int = MANY) -> None:
    """All rows were changed, never more than a chunk at once."""
    assert sum(changes.committed) == rows
    assert max(changes.committed) <= ROWS


def test_requeue_by_state(db: Database, bundle_id: int) -> None:
    """Dead ones and abstained ones with their citations; a second call finds nothing."""
    answered(db, bundle_id, *(record(number) for number in range(MANY)))
    with db.writing() as session:
        session.query(Audit).update({"state": AuditState.ABSTAINED})
    with recorded_changes() as changes:
        assert waiting.requeue(db, state=AuditState.ABSTAINED) == MANY
    assert_in_chunks(changes)
    assert states(db) == {AuditState.PENDING: MANY}
    with db.reading() as session:
        assert session.scalar(select(func.count()).select_from(Citation)) == 0
    assert waiting.requeue(db, state=AuditState.ABSTAINED) == 0


def test_requeue_by_ids(db: Database, bundle_id: int) -> None:
    """The same for ids, given twice or not there."""
    accept(db, *(record(number) for number in range(MANY)))
    ids = [one.audit_id for one in claim(db, bundle_id, limit=MANY).audits]
    for one in claim_again(db, bundle_id):
        AuditQueue(db).fail(one, Failure("x", "y"), max_attempts=1)
    with recorded_changes() as changes:
        assert waiting.requeue(db, audit_ids=[*ids, *ids, 4711]) == MANY
    assert_in_chunks(changes)


def claim_again(db, bundle_id):
    """Leases of everything, after those of before ran out."""
    expire_leases(db)
    return [one.lease for one in claim(db, bundle_id, limit=MANY).audits]


def test_a_requeue_that_is_stopped_goes_on_where_it_was(
    db: Database, bundle_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was committed stays; the next call takes the rest."""
    accept(db, *(record(number) for number in range(MANY)))
    for one in claim(db, bundle_id, limit=MANY).audits:
        AuditQueue(db).fail(one.lease, Failure("x", "y"), max_attempts=1)
    calls, change = [0], waiting._requeue

    def stopped(*arguments):
        calls[0] += 1
        if calls[0] == 3:
            raise KeyboardInterrupt
        change(*arguments)

    monkeypatch.setattr(waiting, "_requeue", stopped)
    with pytest.raises(KeyboardInterrupt):
        waiting.requeue(db, state=AuditState.DEAD)
    assert states(db) == {AuditState.PENDING: 2 * ROWS, AuditState.DEAD: MANY - 2 * ROWS}
    assert waiting.requeue(db, state=AuditState.DEAD) == MANY - 2 * ROWS


def test_the_activation_of_a_bundle(db: Database) -> None:
    """Audits that waited for a bundle of their model are queued when it is active; others go on waiting."""
    accept(db, *(record(number) for number in range(MANY)), record(99, model="another"))
    with recorded_changes() as changes:
        bundle_id = register(db)
    assert_in_chunks(changes)
    assert states(db) == {AuditState.PENDING: MANY, AuditState.REJECTED: 1}
    assert AuditQueue(db).pending_counts() == {bundle_id: MANY}


def test_the_explanation_of_a_refused_bundle(db: Database, bundle_id: int) -> None:
    """Every pending audit says why it waits."""
    accept(db, *(record(number) for number in range(MANY)))
    with recorded_changes() as changes:
        assert waiting.explain_waiting(db, bundle_id, code="bundle_corrupt", reason="x") == MANY
    assert_in_chunks(changes)
    assert waiting.explain_waiting(db, bundle_id, code="bundle_corrupt", reason="x") == 0


def test_leases_that_ran_out_or_are_too_long(db: Database, bundle_id: int) -> None:
    """Taken back and cut in chunks, those of a dead process too."""
    accept(db, *(record(number) for number in range(MANY)))
    audits = AuditQueue(db)
    claim(db, bundle_id, limit=MANY, lease_s=86_400)
    with recorded_changes() as changes:
        assert audits.cap_leases(lease_s=60) == MANY
    assert_in_chunks(changes)
    expire_leases(db)
    with recorded_changes() as changes:
        assert audits.release_expired(max_attempts=5) == MANY
    assert_in_chunks(changes)
    claim(db, bundle_id, limit=MANY)
    with recorded_changes() as changes:
        assert audits.release_lost(OWNER, cause="x", max_attempts=5, wait_s=float) == MANY
    assert_in_chunks(changes)


def test_counts_end_at_a_limit(db: Database, bundle_id: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to the limit they are exact, beyond it they say so; an idle bundle is left out."""
    accept(db, *(record(number) for number in range(MANY)))
    register(db, "bundle-b", model="another")
    claim(db, bundle_id, limit=3)
    monkeypatch.setattr(reader, "COUNTED", MANY - 3)
    monkeypatch.setattr(counts, "COUNTED", MANY - 3)
    exact = reader.queue_health(db)
    assert (exact.states[AuditState.PENDING], exact.more_than) == (MANY - 3, ())
    monkeypatch.setattr(reader, "COUNTED", 10)
    monkeypatch.setattr(counts, "COUNTED", 10)
    capped = reader.queue_health(db)
    assert (capped.states[AuditState.PENDING], capped.states[AuditState.RUNNING]) == (10, 3)
    assert capped.more_than == (AuditState.PENDING,)
    assert (capped.count_text(AuditState.PENDING), capped.count_text(AuditState.RUNNING)) == (
        "more than 10",
        "3",
    )
    monkeypatch.setattr(queue, "COUNTED_WORK", 7)
    assert AuditQueue(db).pending_counts() == {bundle_id: 7}
    assert AuditQueue(db).pending_counts(at_most=2) == {bundle_id: 2}
    with recorded_statements() as statements:
        AuditQueue(db).pending_counts()
    assert len(statements) == 1
    assert "LIMIT" in statements[0]


def test_progress_is_seen_without_counting(
    db: Database, bundle_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It changes when an audit ends in any way, and not when one comes in; it looks at the newest events alone."""
    monkeypatch.setattr(reader, "LOOKED_BACK", 10)
    assert reader.last_end(db) is None
    answered(db, bundle_id, record(0))
    first = reader.last_end(db)
    assert first is not None
    accept(db, record(1))
    assert reader.last_end(db) == first
    (one,) = claim(db, bundle_id, limit=1).audits
    AuditQueue(db).fail(one.lease, Failure("x", "y", refused=True), max_attempts=5)
    assert (reader.last_end(db) or 0) > first
    accept(db, *(record(number) for number in range(2, 14)))
    assert reader.last_end(db) is None
