"""Conditions on audits: which can be claimed, which lease ran out, and the fence. One place, so that all agree.

Times are compared with the database's clock. States stand in the SQL as literals: with a parameter neither engine can tell that a
partial index applies.
"""

from typing import Any

from sqlalchemy import CTE, ColumnElement, and_, bindparam, literal_column, or_, select, union_all

from db.clock import db_now
from db.models import Audit
from db.statements import materialized
from wherefrom.records import AuditState, ClaimedAudit


def in_state(state: AuditState) -> ColumnElement[bool]:
    """The audit stands in this state."""
    return Audit.state == literal_column(f"'{state.value}'")


def due() -> ColumnElement[bool]:
    """The audit is pending, and its time to be tried again has come."""
    ready = or_(Audit.next_attempt_at.is_(None), Audit.next_attempt_at <= db_now())
    return and_(in_state(AuditState.PENDING), ready)


def expired() -> ColumnElement[bool]:
    """The audit is running, but its owner did not extend the lease."""
    return and_(in_state(AuditState.RUNNING), Audit.lease_until <= db_now())


def attempts_spent() -> ColumnElement[int]:
    """Attempts that count against the limit: those since the audit was last requeued."""
    return Audit.attempt - Audit.attempt_floor


#: The fence: matches an audit's row only while its owner holds it under the attempt that it claimed. `token` has the values.
HELD = and_(
    Audit.id == bindparam("held_id"),
    Audit.attempt == bindparam("held_attempt"),
    Audit.lease_owner == bindparam("held_by"),
    in_state(AuditState.RUNNING),
)


def token(claimed: ClaimedAudit, owner: str) -> dict[str, Any]:
    """The values of `HELD` for an audit that `owner` claimed."""
    return {"held_id": claimed.audit_id, "held_attempt": claimed.attempt, "held_by": owner}


def pick(bundle_id: int, limit: int, max_attempts: int | None) -> CTE[Any]:
    """Up to `limit` ids to claim, locked; rows that somebody else holds at this moment are skipped.

    Due and expired audits are picked apart, each by its own partial index, and then merged in the order of the queue.
    """
    columns = select(Audit.id, Audit.priority).where(Audit.bundle_id == bundle_id)
    left = () if max_attempts is None else (attempts_spent() < max_attempts,)
    first = columns.order_by(Audit.priority, Audit.id).limit(limit).with_for_update(skip_locked=True)
    waiting = materialized(first.where(due()), "waiting")
    abandoned = materialized(first.where(expired(), *left), "abandoned")
    both = union_all(
        select(waiting.c.id, waiting.c.priority), select(abandoned.c.id, abandoned.c.priority)
    ).subquery()
    return select(both.c.id).order_by(both.c.priority, both.c.id).limit(limit).cte("picked")
