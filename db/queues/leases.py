"""What a lease is in SQL: which rows are due, which leases ran out, what a claim writes, and the fence. One place, so that all agree.

Audits and measurements are claimed by the same rules, so all of this takes the table.

Times are compared with the database's clock. States stand in the SQL as literals: with a parameter neither engine can tell that a
partial index applies.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import CTE, ColumnElement, and_, bindparam, literal_column, or_, select, tuple_, union_all
from sqlalchemy.orm import InstrumentedAttribute

from db.clock import db_after, db_now
from db.models import Audit, BuildPart, GroupMeasurement, Measurement, WhatIf
from db.statements import materialized
from wherefrom.records import Lease

#: Tables whose rows are worked on under a bundle.
Bundled = type[Audit] | type[Measurement] | type[GroupMeasurement] | type[WhatIf]
#: Tables whose rows are claimed under a lease.
Leased = Bundled | type[BuildPart]

#: What a row looks like when nobody holds it.
NOT_HELD: dict[str, Any] = {"lease_owner": None, "lease_until": None, "next_attempt_at": None}


def taken(row: Leased, owner: str, *, lease_s: float, counts: bool) -> dict[str, Any]:
    """What a claim writes: `owner` holds the row for `lease_s` seconds under the next attempt, which may count against the limit."""
    return {
        "state": literal_column("'running'"),
        "attempt": row.attempt + 1,
        "attempt_floor": row.attempt_floor + (0 if counts else 1),
        "lease_owner": owner,
        "lease_until": db_after(lease_s),
        "next_attempt_at": None,
        "claimed_at": db_now(),
    }


def fresh(row: Leased) -> dict[str, Any]:
    """What a row looks like that was put back by hand: pending, without a reason, with all its attempts."""
    cleared: dict[str, Any] = {
        "state": literal_column("'pending'"),
        "code": None,
        "reason": None,
        "finished_at": None,
    }
    return NOT_HELD | cleared | {"attempt_floor": row.attempt}


def is_pending(row: Leased) -> ColumnElement[bool]:
    """The row waits to be claimed, now or later."""
    return row.state == literal_column("'pending'")


def is_running(row: Leased) -> ColumnElement[bool]:
    """Somebody holds the row."""
    return row.state == literal_column("'running'")


def due(row: Leased) -> ColumnElement[bool]:
    """The row is pending, and its time to be tried again has come."""
    return and_(is_pending(row), or_(row.next_attempt_at.is_(None), row.next_attempt_at <= db_now()))


def expired(row: Leased) -> ColumnElement[bool]:
    """The row is running, but its owner did not extend the lease."""
    return and_(is_running(row), row.lease_until <= db_now())


def live(row: Leased) -> ColumnElement[bool]:
    """The row is running, and its owner extends the lease."""
    return and_(is_running(row), row.lease_until > db_now())


def attempts_spent(row: Leased) -> ColumnElement[int]:
    """Attempts that count against the limit: not those before a requeue, and not claims that ended before work on the row began."""
    return row.attempt - row.attempt_floor


def held(row: Leased) -> ColumnElement[bool]:
    """The fence: matches a row only while its owner holds it under the attempt that it claimed. `token` has the values."""
    return and_(
        row.id == bindparam("held_id"),
        row.attempt == bindparam("held_attempt"),
        row.lease_owner == bindparam("held_by"),
        is_running(row),
    )


def any_held(row: Leased, leases: Sequence[Lease]) -> ColumnElement[bool]:
    """The fence for several leases at once: matches the rows that are still held as claimed."""
    tokens = [(one.id, one.attempt, one.owner) for one in leases]
    return and_(
        row.id.in_([one.id for one in leases]),
        tuple_(row.id, row.attempt, row.lease_owner).in_(tokens),
        is_running(row),
    )


def token(lease: Lease) -> dict[str, Any]:
    """The values of `held` for one lease."""
    return {"held_id": lease.id, "held_attempt": lease.attempt, "held_by": lease.owner}


def pick(
    row: Leased,
    order: Sequence[InstrumentedAttribute[Any]],
    *,
    limit: int,
    max_attempts: int | None,
    only: Sequence[ColumnElement[bool]],
) -> CTE[Any]:
    """Up to `limit` ids to claim among the rows that meet the conditions, locked; rows that somebody else holds at this moment are skipped.

    Due and expired rows are picked apart, each by its own index, and then merged in the order of the queue.
    """
    first = select(*order).where(*only).order_by(*order).limit(limit).with_for_update(skip_locked=True)
    left = () if max_attempts is None else (attempts_spent(row) < max_attempts,)
    waiting = materialized(first.where(due(row)), "waiting")
    abandoned = materialized(first.where(expired(row), *left), "abandoned")
    both = union_all(select(waiting), select(abandoned)).subquery()
    return select(both.c.id).order_by(*(both.c[column.key] for column in order)).limit(limit).cte("picked")
