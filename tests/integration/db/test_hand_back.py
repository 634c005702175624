"""Audits that a worker puts back without having worked on them: they cost nobody an attempt, and nobody loses them meanwhile."""

from collections.abc import Sequence

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from db.audit_trail.trail import TrailKind
from db.models import TrailEvent
from db.queues.audit_queue import AuditQueue
from db.session import Database
from tests.integration.db.builders import (
    OWNER,
    accept,
    audit_row,
    claim,
    claim_one,
    expire_leases,
    record,
    register,
)
from wherefrom.records import AuditState


def test_what_was_not_worked_on_is_handed_back(db: Database, bundle_id: int) -> None:
    """Whoever holds it puts it back, and others can claim it at once; it cost no attempt, and a stale token puts back nothing."""
    accept(db, *(record(number) for number in range(3)))
    queue = AuditQueue(db)
    first, second, third = (one.lease for one in claim(db, bundle_id, limit=3).audits)
    stale = second.model_copy(update={"owner": "another"})
    assert queue.hand_back([first, stale]) == 1
    assert queue.hand_back([first]) == 0
    row = audit_row(db, first.id)
    assert (row.state, row.lease_owner, row.attempt, row.attempt_floor) == (AuditState.PENDING, None, 1, 1)
    assert audit_row(db, second.id).lease_owner == OWNER
    assert row.code == "handed_back"
    again = claim_one(db, bundle_id, limit=9, owner="another")
    assert (again.audit_id, again.attempt, again.spent) == (first.id, 2, 0)
    assert not again.is_suspect
    assert audit_row(db, first.id).code is None
    assert queue.extend([first, third], lease_s=60) == {third.id}
    with db.reading() as session:
        told = session.scalars(select(TrailEvent.kind).where(TrailEvent.subject == f"audit:{first.id}")).all()
    assert TrailKind.AUDIT_RELEASED in told


def test_what_was_handed_back_is_innocent_once(db: Database, bundle_id: int) -> None:
    """Whoever claims it next may die of it, and whoever handed it back may have had reason to suspect it."""
    accept(db, record(0), record(1))
    queue = AuditQueue(db)
    one, suspect = (audit.lease for audit in claim(db, bundle_id, limit=2).audits)
    queue.hand_back([one, suspect], suspects={suspect.id})
    assert [audit.is_suspect for audit in claim(db, bundle_id, limit=2).audits] == [False, True]
    expire_leases(db)
    assert [audit.is_suspect for audit in claim(db, bundle_id, limit=2).audits] == [True, True]


@pytest.mark.postgres
def test_nobody_claims_what_is_being_handed_back(
    migrated_postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lease runs out meanwhile: the claimer passes it by, and is not robbed of it a moment later."""
    pg = Database(migrated_postgres_url)
    pg_bundle_id = register(pg)
    accept(pg, record())
    (late,) = claim(pg, pg_bundle_id, limit=1).audits
    expire_leases(pg)
    queue, others = AuditQueue(pg), AuditQueue(pg)
    give_back, met = queue._give_back, []

    def meet(session: Session, ids: Sequence[int]) -> None:
        met.append(others.claim(pg_bundle_id, limit=1, owner="another", lease_s=60))
        give_back(session, ids)

    monkeypatch.setattr(queue, "_give_back", meet)
    assert queue.hand_back([late.lease]) == 1
    assert met == [None]
    assert audit_row(pg, late.audit_id).state is AuditState.PENDING
    pg.dispose()
