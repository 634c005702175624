"""A table as a queue: claim, keep, end, take back and count, under leases and behind a fence.

A claim is a lease: an owner holds a row under an attempt number until a time of the database's clock. The attempt only ever grows,
so (row, attempt, owner) is a fencing token: every way out starts with an UPDATE that matches it, and a worker that was too slow
matches no row, writes nothing and learns it. `db.queues.audit_queue`, and the queues that `db.queues.single_claims` names, add what is read for a worker, and what an
answer looks like.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Generic, TypeVar

from sqlalchemy import ColumnElement, Update, and_, bindparam, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from db.audit_trail.trail import Event, TrailKind, record_events
from db.chunks import change_in_chunks
from db.clock import db_after, db_now
from db.counts import COUNTED_WORK, count_at_most
from db.models import Bundle, SharedBuild
from db.queues.leases import (
    NOT_HELD,
    Leased,
    any_held,
    attempts_spent,
    due,
    expired,
    held,
    is_pending,
    is_running,
    pick,
    taken,
    token,
)
from db.session import Database
from db.statements import materialized
from db.storing.examples import CHUNK, storable_text
from db.storing.intake import check_writable
from wherefrom.errors import ATTEMPTS_EXHAUSTED, HANDED_BACK, LEASE_EXPIRED
from wherefrom.records import AuditState, Lease, MeasurementState

State = TypeVar("State", AuditState, MeasurementState)


@dataclass(frozen=True)
class Failure:
    """Why a row was not answered, and whether it is tried again."""

    #: Stable code.
    code: str
    #: What happened, without text of the output.
    reason: str
    #: Seconds until it can be claimed again; None: never.
    retry_in_s: float | None = None
    #: The row itself is to blame (a permanent error), so it is refused rather than dead.
    refused: bool = False


class LeasedQueue(Generic[State]):
    """One table as a queue; its subclasses name the table and its states."""

    row: ClassVar[Leased]
    #: The table by whose rows work is claimed and counted.
    parent: ClassVar[type[Bundle] | type[SharedBuild]] = Bundle
    parent_column: ClassVar[str] = "bundle_id"
    #: What a row is called in the trail: ``audit:7``.
    subject: ClassVar[str]
    #: The order in which rows are claimed; the id is among the columns.
    order: ClassVar[tuple[InstrumentedAttribute[Any], ...]]
    pending: State
    dead: State
    #: The end of rows that can never be answered.
    refused: State
    #: What the trail calls the ends without an answer.
    ended: ClassVar[Mapping[str, TrailKind]]
    #: What it calls a failed attempt that another one follows, and a row that was taken back from its worker.
    retried: ClassVar[TrailKind]
    released: ClassVar[TrailKind]
    #: Whether a claim counts as an attempt at once; else it counts when `begin` says so, or when it fails.
    claims_count: ClassVar[bool] = True

    def __init__(self, database: Database) -> None:
        self._database = database

    @classmethod
    def parent_key(cls) -> InstrumentedAttribute[Any]:
        """The column that names a row's parent."""
        column: InstrumentedAttribute[Any] = getattr(cls.row, cls.parent_column)
        return column

    def check_writable(self) -> None:
        """Store a probe and take it back: whoever is about to blame a row asks this first.

        Raises:
            DatabaseUnavailable: the database is to blame.
        """
        check_writable(self._database)

    def extend(self, leases: Sequence[Lease], *, lease_s: float) -> set[int]:
        """Renew leases for `lease_s` seconds from now.

        Returns:
            Ids of the rows that are still held; what is missing was finished, or another worker has it.
        """
        row = self.row
        # Rows are locked in the order of their ids, as all that changes several of them does it: no deadlock between the two.
        mine = select(row.id).where(any_held(row, leases)).order_by(row.id)
        kept = materialized(mine.with_for_update(), "kept")
        renew = update(row).where(row.id == kept.c.id).values(lease_until=db_after(lease_s)).returning(row.id)
        with self._database.writing() as session:
            return set(session.scalars(renew.execution_options(synchronize_session=False)))

    def begin(self, lease: Lease) -> bool:
        """Count an attempt before work on this row alone begins, so that a death is charged to nobody else.

        Returns:
            False when another worker holds the row by now: it must not be worked on.
        """
        row = self.row
        count = update(row).where(held(row)).values(attempt_floor=row.attempt - (lease.spent + 1))
        with self._database.writing() as session:
            begun = session.scalar(count.returning(row.id), token(lease))
        return begun is not None

    def fail(self, lease: Lease, failure: Failure, *, max_attempts: int) -> State | None:
        """Record a failed attempt: the row waits for its next one, or this was its end.

        Args:
            lease: The fencing token.
            failure: What happened.
            max_attempts: Attempts after which it is dead (code ``attempts_exhausted``, the last failure in the reason).

        Returns:
            The new state, or None when another worker holds the row by now.
        """
        floor = select(self.row.attempt_floor).where(held(self.row)).with_for_update()
        with self._database.writing() as session:
            forgiven = session.scalar(floor, token(lease))
            if forgiven is None:
                return None
            spent = max(lease.attempt - forgiven, lease.spent + 1)
            if failure.retry_in_s is not None and spent < max_attempts:
                self._put_back(session, lease, failure, spent)
                return self.pending
            state = self.refused if failure.refused else self.dead
            if failure.retry_in_s is not None:
                last = f"{spent} attempts failed, the last with {failure.code}: {failure.reason}"
                failure = Failure(ATTEMPTS_EXHAUSTED, last)
            self._end(session, lease, state, code=failure.code, reason=failure.reason)
            return state

    def release_expired(self, *, max_attempts: int) -> int:
        """Take rows back from workers that did not extend their leases: to the queue, or dead when their attempts are spent.

        Returns:
            How many leases had run out.
        """
        return self._release(
            expired(self.row),
            lambda owner: f"worker {owner!r} did not extend its lease",
            max_attempts=max_attempts,
        )

    def cap_leases(self, *, lease_s: float) -> int:
        """Let no lease last longer than `lease_s` seconds from now; the database's clock was set back where one does.

        Returns:
            How many leases were too long.
        """
        latest = db_after(lease_s)
        too_long = and_(is_running(self.row), self.row.lease_until > latest)
        return self._cap(too_long, {"lease_until": latest})

    def cap_waits(self, *, wait_s: float) -> int:
        """Let no pending row wait longer than `wait_s` seconds from now, for the same reason; how many did. Reads all pending rows."""
        latest = db_after(wait_s)
        too_long = and_(is_pending(self.row), self.row.next_attempt_at > latest)
        return self._cap(too_long, {"next_attempt_at": latest})

    def release_lost(
        self, owner_prefix: str, *, cause: str, max_attempts: int, wait_s: Callable[[int], float]
    ) -> int:
        """Take rows back at once from a process that is known to have ended.

        What was not in work can be claimed at once; what was waits, and says why.

        Args:
            owner_prefix: How the names of its owners begin.
            cause: How it ended, for the reason.
            max_attempts: Attempts after which a row is dead.
            wait_s: Seconds to wait after so many attempts.

        Returns:
            How many rows it held.
        """
        theirs = and_(is_running(self.row), self.row.lease_owner.startswith(owner_prefix, autoescape=True))
        return self._release(theirs, lambda _: cause, max_attempts=max_attempts, wait_s=wait_s)

    def hand_back(self, leases: Sequence[Lease], *, suspects: Collection[int] = ()) -> int:
        """Put rows back that were claimed and never worked on; others can claim them at once.

        Args:
            leases: The fencing tokens.
            suspects: Ids of those that may have killed a process before; the others say that nothing was tried.

        Returns:
            How many were still held.
        """
        mine = select(self.row.id).where(any_held(self.row, leases)).order_by(self.row.id).with_for_update()
        with self._database.writing() as session:
            held_ids = session.scalars(mine).all()
            self._give_back(session, held_ids)
            innocent = [one for one in held_ids if one not in suspects]
            told = update(self.row).where(self.row.id.in_(innocent))
            session.execute(
                told.values(**_outcome(HANDED_BACK, "its worker was told to end before work on it began"))
            )
        return len(held_ids)

    def now(self) -> datetime:
        """The database's clock."""
        with self._database.reading() as session:
            return session.execute(select(db_now())).scalar_one()

    def pending_counts(self, *, at_most: int | None = None) -> dict[int, int]:
        """How many rows could be claimed now, by the id of their parent, up to `at_most` or `COUNTED_WORK` each; parents without any are left out."""
        row, parent, limit = self.row, self.parent, COUNTED_WORK if at_most is None else at_most
        waiting, abandoned = (
            count_at_most(limit, self.parent_key() == parent.id, condition, correlate=parent)
            for condition in (due(row), expired(row))
        )
        counts = select(parent.id, (waiting + abandoned).label("number"))
        with self._database.reading() as session:
            found = {one.id: min(one.number, limit) for one in session.execute(counts)}
        return {parent_id: number for parent_id, number in found.items() if number}

    def _take(
        self,
        session: Session,
        parent_id: int,
        *,
        owner: str,
        limit: int,
        lease_s: float,
        max_attempts: int | None,
        only: Sequence[ColumnElement[bool]] = (),
    ) -> Sequence[int]:
        """Claim up to `limit` rows, due ones and those whose lease ran out, `only` those that meet further conditions; their ids.

        Two claimers never get the same row under the same attempt: on PostgreSQL they skip each other's rows, on SQLite one
        writes at a time.
        """
        theirs = self.parent_key() == parent_id
        picked = pick(self.row, self.order, limit=limit, max_attempts=max_attempts, only=(theirs, *only))
        take = (
            update(self.row)
            .where(self.row.id == picked.c.id)
            .values(taken(self.row, owner, lease_s=lease_s, counts=self.claims_count))
            .returning(self.row.id)
        )
        return session.scalars(take.execution_options(synchronize_session=False)).all()

    def _put_back(self, session: Session, lease: Lease, failure: Failure, spent: int) -> None:
        """Let a held row wait for its next attempt."""
        waiting = NOT_HELD | {"state": self.pending, "next_attempt_at": db_after(failure.retry_in_s or 0.0)}
        waiting |= {"attempt_floor": lease.attempt - spent}
        wait = (
            update(self.row).where(held(self.row)).values(**waiting, **_outcome(failure.code, failure.reason))
        )
        session.execute(wait.execution_options(synchronize_session=False), token(lease))
        payload = {"code": failure.code, "attempt": lease.attempt, "owner": lease.owner}
        record_events(session, [self._event(self.retried, lease.id, payload)])

    def _end(self, session: Session, lease: Lease, state: State, *, code: str, reason: str) -> None:
        """End a held row without an answer."""
        ending = ending_of(self.row).execution_options(synchronize_session=False)
        session.execute(ending, token(lease) | ending_values(state, code, reason))
        payload = {"code": code, "attempt": lease.attempt, "owner": lease.owner}
        record_events(session, [self._event(self.ended[state], lease.id, payload)])

    def _release(
        self,
        lost: ColumnElement[bool],
        cause_text: Callable[[str | None], str],
        *,
        max_attempts: int,
        wait_s: Callable[[int], float] | None = None,
    ) -> int:
        """Take back the rows that `lost` matches, in transactions of `CHUNK` rows; how many there were."""
        row = self.row
        some = (
            select(row.id, row.lease_owner, attempts_spent(row).label("spent"))
            .where(lost)
            .order_by(row.id)
            .limit(CHUNK)
            .with_for_update(skip_locked=True)
        )
        released = 0
        while True:
            with self._database.writing() as session:
                found = session.execute(some).all()
                self._give_back(session, [one.id for one in found if one.spent < max_attempts])
                for one in found:
                    reason = f"attempt {one.spent} of {max_attempts}: {cause_text(one.lease_owner)}"
                    if one.spent >= max_attempts:
                        self._give_up(session, one.id, reason)
                    elif one.spent and wait_s is not None:
                        self._delay(session, one.id, reason, wait_s(one.spent))
            released += len(found)
            if len(found) < CHUNK:
                return released

    def _cap(self, too_long: ColumnElement[bool], latest: dict[str, Any]) -> int:
        def cut(session: Session, ids: Sequence[int]) -> None:
            session.execute(update(self.row).where(self.row.id.in_(ids)).values(**latest))

        wanted = select(self.row.id).where(too_long)
        return change_in_chunks(self._database, wanted, self.row.id, cut)

    def _give_back(self, session: Session, ids: Sequence[int]) -> None:
        if ids:
            session.execute(
                update(self.row).where(self.row.id.in_(ids)).values(**NOT_HELD, state=self.pending)
            )
            record_events(session, [self._event(self.released, one, {}) for one in ids])

    def _give_up(self, session: Session, row_id: int, reason: str) -> None:
        ending = NOT_HELD | {"state": self.dead, "finished_at": db_now()} | _outcome(LEASE_EXPIRED, reason)
        session.execute(update(self.row).where(self.row.id == row_id).values(**ending))
        record_events(session, [self._event(self.ended[self.dead], row_id, {"code": LEASE_EXPIRED})])

    def _delay(self, session: Session, row_id: int, reason: str, wait_s: float) -> None:
        waiting = {"next_attempt_at": db_after(wait_s)} | _outcome(LEASE_EXPIRED, reason)
        session.execute(update(self.row).where(self.row.id == row_id).values(**waiting))

    def _event(self, kind: TrailKind, row_id: int, payload: Mapping[str, Any]) -> Event:
        return Event(kind, f"{self.subject}:{row_id}", dict(payload))


def ending_of(row: Leased, *answer: str) -> Update:
    """The fenced UPDATE that takes a held row to its end; `ending_values` has its values, `answer` names further columns."""
    columns = ("state", "code", "reason", *answer)
    given = {name: bindparam(f"new_{name}", type_=getattr(row, name).type) for name in columns}
    return update(row).where(held(row)).values(**NOT_HELD, finished_at=db_now(), **given)


def ending_values(
    state: AuditState | MeasurementState, code: str | None, reason: str | None, **answer: Any
) -> dict[str, Any]:
    """The values of `ending_of`."""
    values = {"state": state, **_outcome(code, reason), **answer}
    return {f"new_{name}": value for name, value in values.items()}


def _outcome(code: str | None, reason: str | None) -> dict[str, Any]:
    """What a row says of itself, as both engines take it."""
    return {"code": code, "reason": None if reason is None else storable_text(reason)}
