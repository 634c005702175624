"""What a claim writes, and conditions on what is claimed: which rows are due, which lease ran out, and the fence. One place, so that all agree.

Audits and measurements are claimed by the same rules, so most of this takes the table.

Times are compared with the database's clock. States stand in the SQL as literals: with a parameter neither engine can tell that a
partial index applies.
"""

from typing import Any

from sqlalchemy import CTE, ColumnElement, and_, bindparam, literal_column, or_, select, union_all

from db.clock import db_after, db_now
from db.models import Audit, Measurement
from db.statements import materialized
from wherefrom.records import AuditState, ClaimedAudit, MeasurementState

#: Tables whose rows are claimed under a lease.
Leased = type[Audit] | type[Measurement]

#: What a row looks like when nobody holds it.
NOT_HELD: dict[str, Any] = {"lease_owner": None, "lease_until": None, "next_attempt_at": None}


def taken(row: Leased, owner: str, *, lease_s: float) -> dict[str, Any]:
    """What a claim writes: `owner` holds the row for `lease_s` seconds under the next attempt."""
    return {
        "state": literal_column("'running'"),
        "attempt": row.attempt + 1,
        "lease_owner": owner,
        "lease_until": db_after(lease_s),
        "next_attempt_at": None,
        "claimed_at": db_now(),
    }


def in_state(row: Leased, state: AuditState | MeasurementState) -> ColumnElement[bool]:
    """The row stands in this state."""
    return row.state == literal_column(f"'{state.value}'")


def due(row: Leased) -> ColumnElement[bool]:
    """The row is pending, and its time to be tried again has come."""
    ready = or_(row.next_attempt_at.is_(None), row.next_attempt_at <= db_now())
    return and_(in_state(row, AuditState.PENDING), ready)


def expired(row: Leased) -> ColumnElement[bool]:
    """The row is running, but its owner did not extend the lease."""
    return and_(in_state(row, AuditState.RUNNING), row.lease_until <= db_now())


def attempts_spent(row: Leased) -> ColumnElement[int]:
    """Attempts that count against the limit: those since the row was last requeued."""
    return row.attempt - row.attempt_floor


#: The fence: matches an audit's row only while its owner holds it under the attempt that it claimed. `token` has the values.
HELD = and_(
    Audit.id == bindparam("held_id"),
    Audit.attempt == bindparam("held_attempt"),
    Audit.lease_owner == bindparam("held_by"),
    in_state(Audit, AuditState.RUNNING),
)


def token(claimed: ClaimedAudit, owner: str) -> dict[str, Any]:
    """The values of `HELD` for an audit that `owner` claimed."""
    return {"held_id": claimed.audit_id, "held_attempt": claimed.attempt, "held_by": owner}


def pick(bundle_id: int, limit: int, max_attempts: int | None) -> CTE[Any]:
    """Up to `limit` ids to claim, locked; rows that somebody else holds at this moment are skipped.

    Due and expired audits are picked apart, each by its own partial index, and then merged in the order of the queue.
    """
    columns = select(Audit.id, Audit.priority).where(Audit.bundle_id == bundle_id)
    left = () if max_attempts is None else (attempts_spent(Audit) < max_attempts,)
    first = columns.order_by(Audit.priority, Audit.id).limit(limit).with_for_update(skip_locked=True)
    waiting = materialized(first.where(due(Audit)), "waiting")
    abandoned = materialized(first.where(expired(Audit), *left), "abandoned")
    both = union_all(
        select(waiting.c.id, waiting.c.priority), select(abandoned.c.id, abandoned.c.priority)
    ).subquery()
    return select(both.c.id).order_by(both.c.priority, both.c.id).limit(limit).cte("picked")
