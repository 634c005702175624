"""Bundles that hold an erased training example: nobody is sent to them any more, and their folders go when no lease uses them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import Session

from db.audit_trail.trail import Event, TrailKind, record_events
from db.clock import db_now
from db.models import (
    Audit,
    Bundle,
    Corpus,
    ErasedBundle,
    GroupMeasurement,
    Measurement,
    TrainingExample,
    WhatIf,
)
from db.queues.leases import Bundled, is_pending, is_running
from db.session import Database
from db.statements import carry_out, insert_new
from wherefrom.errors import BundleMismatch, UnknownBundle
from wherefrom.records import AuditState, MeasurementState


@dataclass(frozen=True)
class _Queue:
    """Rows that are worked under a bundle."""

    table: Bundled
    #: The end of a row without an answer, and what the trail calls it.
    end: AuditState | MeasurementState
    told: TrailKind


_QUEUES = (
    _Queue(Audit, AuditState.REJECTED, TrailKind.AUDIT_REJECTED),
    _Queue(Measurement, MeasurementState.DEAD, TrailKind.MEASUREMENT_DEAD),
    _Queue(GroupMeasurement, MeasurementState.DEAD, TrailKind.MEASUREMENT_DEAD),
    _Queue(WhatIf, MeasurementState.DEAD, TrailKind.WHAT_IF_DEAD),
)
_REASON = "the bundle was deleted because a training example in it was erased; ask again under another bundle"


@dataclass(frozen=True)
class Leaving:
    """A bundle whose folder must go."""

    bundle_id: int
    name: str
    #: A worker holds a lease under it, so its folder stays for now.
    in_use: bool
    #: Something waits under it that nobody can answer.
    waits: bool
    #: Its folder was deleted on some machine already.
    deleted: bool


def mark(session: Session, bundle_ids: Iterable[int], *, erasure_id: int) -> None:
    """Let bundles go, in the transaction that erases; none of them may be active."""
    rows = [{"bundle_id": one, "erasure_id": erasure_id} for one in sorted(set(bundle_ids))]
    if rows:
        session.execute(insert_new(session, ErasedBundle, (ErasedBundle.bundle_id,)), rows)


def leaving(db: Database) -> list[Leaving]:
    """All bundles whose folders must go or are gone, oldest first."""
    columns = select(ErasedBundle.bundle_id, Bundle.name, ErasedBundle.deleted_at)
    query = columns.join(Bundle, Bundle.id == ErasedBundle.bundle_id).order_by(ErasedBundle.bundle_id)
    with db.reading() as session:
        rows = session.execute(query).all()
        ids = [row.bundle_id for row in rows]
        used, waited = (_with_work(session, ids, look) if ids else set() for look in (is_running, is_pending))
    return [
        Leaving(
            row.bundle_id,
            row.name,
            in_use=row.bundle_id in used,
            waits=row.bundle_id in waited,
            deleted=row.deleted_at is not None,
        )
        for row in rows
    ]


def _with_work(
    session: Session, bundle_ids: list[int], look: Callable[[Bundled], ColumnElement[bool]]
) -> set[int]:
    """Those of these bundles that have rows of which it holds: `is_pending` or `is_running`."""
    found: set[int] = set()
    for queue in _QUEUES:
        table = queue.table
        rows = select(table.bundle_id).where(table.bundle_id.in_(bundle_ids), look(table))
        found |= {one for one in session.scalars(rows.distinct()) if one is not None}
    return found


def end_waiting(db: Database, bundle_id: int) -> bool:
    """End what waits under a bundle that goes: nothing can answer it any more.

    Returns:
        Whether nobody works under it, which can only change when something new waits. A worker may have claimed a row that waited a moment ago.
    """
    with db.writing() as session:
        for queue in _QUEUES:
            table = queue.table
            mine = (table.bundle_id == bundle_id, is_pending(table))
            ids = session.scalars(select(table.id).where(*mine).with_for_update()).all()
            gone = {
                "state": queue.end,
                "code": UnknownBundle.code,
                "reason": _REASON,
                "finished_at": db_now(),
                "next_attempt_at": None,
            }
            carry_out(session, update(table).where(*mine).values(**gone))
            facts = {"code": UnknownBundle.code}
            record_events(session, [Event(queue.told, f"{table.__tablename__}:{one}", facts) for one in ids])
        return not _with_work(session, [bundle_id], is_running)


def note_deleted(db: Database, bundle_id: int) -> None:
    """A machine has deleted its folder of a bundle."""
    with db.writing() as session:
        change = (
            update(ErasedBundle)
            .where(ErasedBundle.bundle_id == bundle_id, ErasedBundle.deleted_at.is_(None))
            .values(deleted_at=db_now())
        )
        if session.scalar(change.returning(ErasedBundle.bundle_id)) is not None:
            record_events(session, [Event(TrailKind.BUNDLE_DELETED, f"bundle:{bundle_id}")])


def is_erased(db: Database, name: str) -> bool:
    """Whether a bundle holds an erased training example."""
    query = select(ErasedBundle.bundle_id).join(Bundle, Bundle.id == ErasedBundle.bundle_id)
    with db.reading() as session:
        return session.scalar(query.where(Bundle.name == name)) is not None


def refuse_erased(db: Database, name: str, *, corpus_sha256: str) -> None:
    """Refuse to put a bundle into service again that holds an erased training example.

    Args:
        db: The database.
        name: Of the bundle.
        corpus_sha256: Hash of its corpus: a bundle that was built again from a corpus file with the row holds the example too.

    Raises:
        BundleMismatch: it does.
    """
    if is_erased(db, name):
        raise BundleMismatch(_STAYS_OUT.format(name=name))
    erased = select(TrainingExample.example_id).join(Corpus, Corpus.id == TrainingExample.corpus_id)
    with db.reading() as session:
        found = session.scalar(
            erased.where(Corpus.sha256 == corpus_sha256, TrainingExample.erased_at.is_not(None)).limit(1)
        )
    if found is not None:
        raise BundleMismatch(
            f"bundle {name} holds training example {found!r}, which was erased; take the row out of the corpus file and build again"
        )


def refuse_going(session: Session, bundle_id: int) -> None:
    """The same in the transaction that activates a bundle.

    Raises:
        BundleMismatch: it holds an erased training example.
    """
    query = select(Bundle.name).join(ErasedBundle, ErasedBundle.bundle_id == Bundle.id)
    name = session.scalar(query.where(Bundle.id == bundle_id))
    if name is not None:
        raise BundleMismatch(_STAYS_OUT.format(name=name))


_STAYS_OUT = "bundle {name} holds a training example that was erased; it stays out of service. Add the bundle that was made in its place"


def corpora_of(db: Database, bundle_ids: Iterable[int]) -> dict[int, int]:
    """The corpus of each of these bundles, by id."""
    with db.reading() as session:
        rows = session.execute(select(Bundle.id, Bundle.corpus_id).where(Bundle.id.in_(list(bundle_ids))))
        return {row.id: row.corpus_id for row in rows}
