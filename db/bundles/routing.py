"""Which bundle the audits of a model go to: activate, retire, and what becomes of audits that wait.

A bundle of a model is active or retired. New audits go to the active one (`db.storing.intake`). Audits that wait follow: pending ones of a retired
bundle move to the active one, and without an active one they are rejected as `unknown_model` until there is one. An audit stays where it is if its output
has another audit: then somebody asked under both bundles on purpose (`ask_again`), and both answers are wanted.

What moves is moved in transactions of bounded size, after the switch. A run that was cut off is finished by the next one, or by the sweeper.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Select, exists, insert, select, text, update
from sqlalchemy.orm import Session, aliased

from db.audit_trail.trail import Event, TrailKind, record_events
from db.bundles.erased_bundles import refuse_going
from db.chunks import read_in_chunks
from db.models import Audit, Bundle, FlaggedOutput, FlaggedText, ModelRevision
from db.queues.leases import fresh, is_pending
from db.session import Database
from db.storing.examples import CHUNK
from db.storing.intake import PRIORITY, ROUTING_LOCK, read_active
from wherefrom.errors import BundleMismatch, UnknownBundle, UnknownModel
from wherefrom.records import AuditState


@dataclass(frozen=True)
class Moved:
    """What became of audits that waited."""

    #: Pending under the active bundle now.
    queued: int = 0
    #: Rejected until a bundle of their model is active.
    without_bundle: int = 0

    def __add__(self, other: "Moved") -> "Moved":
        return Moved(self.queued + other.queued, self.without_bundle + other.without_bundle)


@dataclass(frozen=True)
class AskedAgain:
    """What became of audits that were to be asked again under another bundle."""

    #: New audits, pending.
    asked: int = 0
    #: Their output has an audit under that bundle already.
    present: int = 0
    #: Outputs of another model, erased ones, ones that wait for a bundle, or no audits at all.
    left_out: int = 0


def activate(db: Database, bundle_id: int) -> Moved:
    """Make a bundle its model's active one; the others retire, and audits that wait follow.

    Raises:
        UnknownBundle: this bundle does not exist.
        BundleMismatch: it holds an erased training example.
    """
    with db.writing() as session:
        switch_to(session, bundle_id)
    return follow_switch(db)


def retire(db: Database, bundle_id: int) -> Moved:
    """Send a bundle no more new audits; pending ones are rejected until another bundle of its model is active.

    What is being worked on is finished, and answers stay.

    Raises:
        UnknownBundle: this bundle does not exist.
    """
    with db.writing() as session:
        name = _name_of(session, bundle_id)
        _lock_routing(session)
        if _set_active(session, bundle_id, active=False):
            record_events(
                session, [Event(TrailKind.BUNDLE_RETIRED, f"bundle:{bundle_id}", {"model": name.model})]
            )
    return move_waiting(db)


def switch_to(session: Session, bundle_id: int) -> None:
    """The switch of `activate`, in the caller's transaction; call `follow_switch` after its commit.

    Raises:
        UnknownBundle: this bundle does not exist.
        BundleMismatch: it holds an erased training example.
    """
    name = _name_of(session, bundle_id)
    _lock_routing(session)
    refuse_going(session, bundle_id)
    others = (Bundle.model_revision_id == name.model_revision_id, Bundle.id != bundle_id, Bundle.active)
    session.execute(update(Bundle).where(*others).values(active=False))
    if _set_active(session, bundle_id, active=True):
        record_events(
            session, [Event(TrailKind.BUNDLE_ACTIVATED, f"bundle:{bundle_id}", {"model": name.model})]
        )


def refuse_active(session: Session, bundle_ids: Sequence[int]) -> None:
    """Refuse to let active bundles go; none of them becomes active until the transaction ends.

    Raises:
        BundleMismatch: one is active.
    """
    _lock_routing(session)
    name = session.scalars(select(Bundle.name).where(Bundle.id.in_(bundle_ids), Bundle.active)).first()
    if name is not None:
        raise BundleMismatch(
            f"bundle {name} was made active meanwhile; nothing was erased. Run the command again"
        )


def follow_switch(db: Database) -> Moved:
    """Let all audits that wait follow the bundles that are active now."""
    return move_waiting(db) + queue_unrouted(db)


def move_waiting(db: Database) -> Moved:
    """Move pending audits of retired bundles to the active bundle of their model, or reject them until there is one."""
    with db.reading() as session:
        retired = session.scalars(select(Bundle.id).where(~Bundle.active)).all()
    if not retired:
        return Moved()
    waiting = (
        select(Audit.id, FlaggedOutput.model)
        .join(FlaggedOutput, FlaggedOutput.id == Audit.flagged_output_id)
        .where(is_pending(Audit), Audit.bundle_id.in_(retired), ~_has_another_audit())
    )
    return sum((_move(session, rows) for session, rows in _chunks(db, waiting)), Moved())


def queue_unrouted(db: Database) -> Moved:
    """Queue audits that were rejected as `unknown_model` and whose model has an active bundle by now. Reads all that are."""
    with db.reading() as session:
        known = list(read_active(session))
    total = Moved()
    for start in range(0, len(known), CHUNK):
        unrouted = (
            select(Audit.id, FlaggedOutput.model)
            .join(FlaggedOutput, FlaggedOutput.id == Audit.flagged_output_id)
            .where(
                Audit.bundle_id.is_(None),
                Audit.state == AuditState.REJECTED,
                Audit.code == UnknownModel.code,
                FlaggedOutput.model.in_(known[start : start + CHUNK]),
                ~_has_another_audit(),
            )
        )
        total = sum((_move(session, rows) for session, rows in _chunks(db, unrouted)), total)
    return total


def ask_again(
    db: Database,
    bundle_id: int,
    *,
    audit_ids: Iterable[int] | None = None,
    state: AuditState | None = None,
) -> AskedAgain:
    """Ask audits' outputs again under another bundle of their model; the new audits stand beside the old ones.

    Args:
        db: The database.
        bundle_id: The bundle; it need not be active.
        audit_ids: Which audits; give these or a state.
        state: All audits of the bundle's model in this state.

    Raises:
        UnknownBundle: this bundle does not exist.
        BundleMismatch: none of the ids is of an output of the bundle's model.
    """
    with db.reading() as session:
        model = _name_of(session, bundle_id).model
    ids = None if audit_ids is None else sorted(set(audit_ids))
    total = AskedAgain()
    for outputs in _outputs(db, model, ids=ids, state=state):
        made = ask_outputs(db, bundle_id, outputs)
        total = AskedAgain(total.asked + made, total.present + len(outputs) - made)
    if ids is None:
        return total
    left_out = len(ids) - total.asked - total.present
    if ids and left_out == len(ids):
        raise BundleMismatch(
            f"the bundle explains the model {model!r}; none of these {len(ids)} audits belongs to a stored output of that model"
        )
    return AskedAgain(total.asked, total.present, left_out)


def ask_outputs(db: Database, bundle_id: int, outputs: Sequence[tuple[int, int]]) -> int:
    """Ask outputs (id, priority) again under a bundle, of whichever model; how many new audits that made.

    An output that has an audit there already gets no second one, also where two ask at once.

    Raises:
        UnknownBundle: this bundle does not exist.
    """
    made = 0
    for start in range(0, len(outputs), CHUNK):
        with db.writing() as session:
            _name_of(session, bundle_id)
            _lock_routing(session)
            made += _ask(session, bundle_id, outputs[start : start + CHUNK])
    return made


@dataclass(frozen=True)
class _Name:
    model: str
    model_revision_id: int


def _name_of(session: Session, bundle_id: int) -> _Name:
    """The model that a bundle explains."""
    of = (
        select(ModelRevision.name, ModelRevision.id)
        .join(Bundle, Bundle.model_revision_id == ModelRevision.id)
        .where(Bundle.id == bundle_id)
    )
    row = session.execute(of).one_or_none()
    if row is None:
        raise UnknownBundle(f"no bundle with id {bundle_id} is registered")
    return _Name(row.name, row.id)


def _lock_routing(session: Session) -> None:
    """Wait for intakes that have just read which bundle is active, and for others that move audits."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": ROUTING_LOCK})


def _set_active(session: Session, bundle_id: int, *, active: bool) -> bool:
    """Whether it was not so before."""
    change = update(Bundle).where(Bundle.id == bundle_id, Bundle.active.is_not(active))
    return session.scalar(change.values(active=active).returning(Bundle.id)) is not None


def _has_another_audit() -> ColumnElement[bool]:
    other = aliased(Audit)
    return exists().where(other.flagged_output_id == Audit.flagged_output_id, other.id != Audit.id)


def _chunks(db: Database, wanted: Select[int, str]) -> Iterator[tuple[Session, Sequence[tuple[int, str]]]]:
    """Transactions over the audits of a query, in order of their ids, each locked; every audit is met once."""
    after = 0
    while True:
        with db.writing() as session:
            _lock_routing(session)
            some = wanted.where(Audit.id > after).order_by(Audit.id).limit(CHUNK)
            rows = [
                (row[0], row[1])
                for row in session.execute(some.with_for_update(of=Audit, skip_locked=True)).all()
            ]
            if rows:
                yield session, rows
        if len(rows) < CHUNK:
            return
        after = rows[-1][0]


def _move(session: Session, audits: Sequence[tuple[int, str]]) -> Moved:
    """Queue audits (id, model) under the active bundle of their model; reject those whose model has none."""
    active = read_active(session)
    by_model: dict[str, list[int]] = {}
    for audit_id, model in audits:
        by_model.setdefault(model, []).append(audit_id)
    queued = without = 0
    for model, ids in by_model.items():
        bundle_id = active.get(model)
        session.execute(update(Audit).where(Audit.id.in_(ids)).values(**_moved_values(model, bundle_id)))
        queued, without = (
            (queued + len(ids), without) if bundle_id is not None else (queued, without + len(ids))
        )
    events = [
        Event(TrailKind.AUDIT_MOVED, f"audit:{audit_id}", {"bundle_id": active.get(model)})
        for audit_id, model in audits
    ]
    record_events(session, events)
    return Moved(queued, without)


def _moved_values(model: str, bundle_id: int | None) -> Mapping[str, object]:
    if bundle_id is not None:
        return fresh(Audit) | {"bundle_id": bundle_id}
    reason = f"the bundle was retired and no other bundle explains the model {model!r}; the audit is queued again when one is active"
    gone = {
        "bundle_id": None,
        "state": AuditState.REJECTED,
        "code": UnknownModel.code,
        "reason": reason,
    }
    return fresh(Audit) | gone


def _outputs(
    db: Database, model: str, *, ids: Sequence[int] | None, state: AuditState | None
) -> Iterator[Sequence[tuple[int, int]]]:
    """Outputs (id, priority) of a model whose text is kept, in chunks, by ids of their audits or by a state."""
    wanted = (
        select(FlaggedOutput.id, FlaggedOutput.severity)
        .join(FlaggedText, FlaggedText.flagged_output_id == FlaggedOutput.id)
        .where(FlaggedOutput.model == model)
    )
    audits = select(Audit.flagged_output_id).where(Audit.bundle_id.is_not(None))
    chosen = (
        [audits.where(Audit.state == state)]
        if ids is None
        else [audits.where(Audit.id.in_(ids[start : start + CHUNK])) for start in range(0, len(ids), CHUNK)]
    )
    for one in chosen:
        for rows in read_in_chunks(db, wanted.where(FlaggedOutput.id.in_(one)), FlaggedOutput.id):
            yield [(output_id, PRIORITY[severity]) for output_id, severity in rows]


def _ask(session: Session, bundle_id: int, outputs: Sequence[tuple[int, int]]) -> int:
    """Make a pending audit under the bundle for each output (id, priority) that has none there; how many were made."""
    present = select(Audit.flagged_output_id).where(
        Audit.bundle_id == bundle_id, Audit.flagged_output_id.in_([output_id for output_id, _ in outputs])
    )
    there = set(session.scalars(present))
    rows = [
        {
            "flagged_output_id": output_id,
            "bundle_id": bundle_id,
            "state": AuditState.PENDING,
            "priority": priority,
        }
        for output_id, priority in outputs
        if output_id not in there
    ]
    if rows:
        made = session.scalars(insert(Audit).returning(Audit.id), rows).all()
        record_events(
            session,
            [
                Event(TrailKind.AUDIT_REQUESTED, f"audit:{audit_id}", {"bundle_id": bundle_id})
                for audit_id in made
            ],
        )
    return len(rows)
