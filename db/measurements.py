"""The life of a measurement: asked for, claimed one at a time, and the fenced ways out.

The same ideas as for audits (`db.claims`): a lease by the database's clock, an attempt number that only grows, and an UPDATE that
matches (measurement, attempt, owner) before anything is written. When it is done its citation becomes tier `measured`.
"""

from typing import Any

from sqlalchemy import ColumnElement, and_, exists, func, or_, select, update
from sqlalchemy.orm import Session

from db.claimed import read_claimed
from db.clock import db_after, db_now
from db.examples import storable_text
from db.leases import NOT_HELD, attempts_spent, due, expired, in_state, taken
from db.models import Audit, Bundle, Citation, FlaggedText, Measurement, TrainingExample
from db.session import Database
from db.statements import AnySelect, insert_new, materialized
from db.trail import Event, TrailKind, record_events
from wherefrom.errors import ATTEMPTS_EXHAUSTED, LEASE_EXPIRED, InvalidRequest, NotFound
from wherefrom.records import (
    ClaimedMeasurement,
    MeasuredEffect,
    MeasurementRecord,
    MeasurementState,
    Method,
    Tier,
)


def request_measurement(
    db: Database, *, audit_id: int, rank: int, method: Method, requested_by: str
) -> MeasurementRecord:
    """Ask for the effect of one citation. Asking again answers with the same measurement; a dead one is queued again.

    Args:
        db: The database.
        audit_id: The audit.
        rank: Rank of its citation; below 0 for an opponent.
        method: How to measure.
        requested_by: Who asks.

    Raises:
        NotFound: there is no such citation.
        InvalidRequest: the output's text was erased, so nothing can be measured on it.
    """
    with db.writing() as session:
        citation = session.execute(
            select(Citation.id, Audit.bundle_id, Audit.flagged_output_id)
            .join(Audit, Audit.id == Citation.audit_id)
            .where(Citation.audit_id == audit_id, Citation.rank == rank)
        ).one_or_none()
        if citation is None:
            raise NotFound(f"audit {audit_id} has no citation with rank {rank}")
        if not session.scalar(
            select(exists().where(FlaggedText.flagged_output_id == citation.flagged_output_id))
        ):
            raise InvalidRequest(f"the text of audit {audit_id} was erased; no effect on it can be measured")
        _queue(session, citation.id, citation.bundle_id, method=method, requested_by=requested_by)
        mine = _RECORDS.where(Measurement.citation_id == citation.id, Measurement.method == method)
        return _record(session.execute(mine).mappings().one())


def _queue(session: Session, citation_id: int, bundle_id: int, *, method: Method, requested_by: str) -> None:
    """Add the measurement, or queue it again where it is dead; nothing where it is under way or done."""
    row = {
        "citation_id": citation_id,
        "bundle_id": bundle_id,
        "method": method,
        "state": MeasurementState.PENDING,
        "weak": method is not Method.REFIT,
        "requested_by": requested_by,
    }
    same = (Measurement.citation_id == citation_id, Measurement.method == method)
    new = insert_new(session, Measurement, (Measurement.citation_id, Measurement.method))
    added = session.scalar(new.returning(Measurement.id), row)
    again = NOT_HELD | {"state": MeasurementState.PENDING, "code": None, "reason": None, "finished_at": None}
    again |= {"attempt_floor": Measurement.attempt, "requested_by": requested_by}
    revived = session.scalar(
        update(Measurement)
        .where(*same, Measurement.state == MeasurementState.DEAD)
        .values(**again)
        .returning(Measurement.id)
        .execution_options(synchronize_session=False)
    )
    if (measurement_id := added or revived) is not None:
        payload = {"method": method.value, "by": requested_by}
        record_events(
            session, [Event(TrailKind.MEASUREMENT_REQUESTED, f"measurement:{measurement_id}", payload)]
        )


def claim_measurement(
    db: Database, *, bundle_id: int, owner: str, lease_s: float, max_attempts: int
) -> ClaimedMeasurement | None:
    """Take the oldest measurement of a bundle that is due, or whose lease ran out; None when there is none.

    Args:
        db: The database.
        bundle_id: The bundle.
        owner: Name of the claimer, unique among all that live.
        lease_s: How long it stays taken without `extend_measurement`, seconds.
        max_attempts: Expired ones with as many attempts are left to `release_expired_measurements`.
    """
    left = attempts_spent(Measurement) < max_attempts
    picked = materialized(
        select(Measurement.id)
        .where(Measurement.bundle_id == bundle_id, or_(due(Measurement), and_(expired(Measurement), left)))
        .order_by(Measurement.id)
        .limit(1)
        .with_for_update(skip_locked=True),
        "picked",
    )
    take = (
        update(Measurement)
        .where(Measurement.id == picked.c.id)
        .values(taken(Measurement, owner, lease_s=lease_s))
        .returning(Measurement.id)
        .execution_options(synchronize_session=False)
    )
    with db.writing() as session:
        measurement_id = session.scalar(take)
        return None if measurement_id is None else _claimed(session, measurement_id, owner)


def extend_measurement(db: Database, claimed: ClaimedMeasurement, *, lease_s: float) -> bool:
    """Renew the lease for `lease_s` seconds from now; False when it is no longer held."""
    with db.writing() as session:
        return _update_held(session, claimed, lease_until=db_after(lease_s)) is not None


def finish_measurement(db: Database, claimed: ClaimedMeasurement, effect: MeasuredEffect) -> bool:
    """Store what was measured and raise the citation to tier `measured`, in one transaction; False when fenced.

    A weak method never hides what a retraining found.
    """
    found = effect.model_dump(mode="json", exclude={"group"})
    ending = NOT_HELD | {
        "state": MeasurementState.DONE,
        "finished_at": db_now(),
        "code": None,
        "reason": None,
    }
    with db.writing() as session:
        citation_id = _update_held(session, claimed, **(found | ending), left_out=list(effect.group))
        if citation_id is None:
            return False
        stronger = exists().where(
            Measurement.citation_id == citation_id,
            Measurement.state == MeasurementState.DONE,
            ~Measurement.weak,
            Measurement.id != claimed.measurement_id,
        )
        shown: list[ColumnElement[bool]] = [Citation.id == citation_id]
        if effect.weak:
            shown.append(~stronger)
        session.execute(
            update(Citation)
            .where(*shown)
            .values(
                tier=Tier.MEASURED,
                measured_effect_nats=effect.effect_nats,
                measured_low_nats=effect.low_nats,
                measured_high_nats=effect.high_nats,
            )
            .execution_options(synchronize_session=False)
        )
        payload = {
            "attempt": claimed.attempt,
            "method": claimed.method.value,
            "effect_nats": effect.effect_nats,
        }
        record_events(session, [_event(TrailKind.MEASUREMENT_FINISHED, claimed, payload)])
    return True


def fail_measurement(
    db: Database,
    claimed: ClaimedMeasurement,
    *,
    code: str,
    reason: str,
    retry_in_s: float | None,
    max_attempts: int,
) -> MeasurementState | None:
    """Record a failed attempt: it waits for its next one, or is dead; None when it is no longer held.

    Args:
        db: The database.
        claimed: The measurement with its fencing token.
        code: Stable code of the failure.
        reason: What happened, without text of the output.
        retry_in_s: Seconds until it can be claimed again; None makes it dead at once.
        max_attempts: Attempts after which it is dead.
    """
    with db.writing() as session:
        mine = (*_held(claimed),)
        floor = session.scalar(select(Measurement.attempt_floor).where(*mine).with_for_update())
        if floor is None:
            return None
        spent = claimed.attempt - floor
        if retry_in_s is not None and spent < max_attempts:
            waiting = {"state": MeasurementState.PENDING, "next_attempt_at": db_after(retry_in_s)}
            _update_held(session, claimed, **(NOT_HELD | waiting), code=code, reason=storable_text(reason))
            return MeasurementState.PENDING
        if retry_in_s is not None:
            code, reason = ATTEMPTS_EXHAUSTED, f"{spent} attempts failed, the last with {code}: {reason}"
        ended = {"state": MeasurementState.DEAD, "finished_at": db_now()}
        _update_held(session, claimed, **(NOT_HELD | ended), code=code, reason=storable_text(reason))
        record_events(session, [_event(TrailKind.MEASUREMENT_DEAD, claimed, {"code": code})])
        return MeasurementState.DEAD


def release_expired_measurements(db: Database, *, max_attempts: int) -> int:
    """Take measurements back from workers that did not extend their leases; how many there were."""
    run_out = (
        select(Measurement.id, attempts_spent(Measurement).label("spent"))
        .where(expired(Measurement))
        .order_by(Measurement.id)
        .with_for_update(skip_locked=True)
    )
    with db.writing() as session:
        rows = session.execute(run_out).all()
        for row in rows:
            values = NOT_HELD | {"state": MeasurementState.PENDING}
            if row.spent >= max_attempts:
                reason = (
                    f"attempt {row.spent} of {max_attempts}: the measuring worker did not extend its lease"
                )
                values |= {"state": MeasurementState.DEAD, "finished_at": db_now()}
                values |= {"code": LEASE_EXPIRED, "reason": reason}
                dead = Event(TrailKind.MEASUREMENT_DEAD, f"measurement:{row.id}", {"code": LEASE_EXPIRED})
                record_events(session, [dead])
            session.execute(update(Measurement).where(Measurement.id == row.id).values(**values))
    return len(rows)


def pending_measurements(db: Database) -> dict[int, int]:
    """How many measurements could be claimed now, by bundle id; bundles without any are left out."""
    counts = (
        select(Measurement.bundle_id, func.count().label("number"))
        .where(or_(due(Measurement), expired(Measurement)))
        .group_by(Measurement.bundle_id)
    )
    with db.reading() as session:
        return {row.bundle_id: row.number for row in session.execute(counts)}


def measurement_counts(db: Database) -> dict[MeasurementState, int]:
    """How many measurements stand in each state."""
    counts = select(Measurement.state, func.count().label("number")).group_by(Measurement.state)
    with db.reading() as session:
        counted = {row.state: row.number for row in session.execute(counts)}
    return {state: counted.get(state, 0) for state in MeasurementState}


def get_measurement(db: Database, measurement_id: int) -> MeasurementRecord:
    """One measurement.

    Raises:
        NotFound: there is none with this id.
    """
    with db.reading() as session:
        row = session.execute(_RECORDS.where(Measurement.id == measurement_id)).mappings().one_or_none()
    if row is None:
        raise NotFound(f"measurement {measurement_id} does not exist")
    return _record(row)


def measurements_of(session: Session, audit_id: int) -> tuple[MeasurementRecord, ...]:
    """The measurements of an audit's citations, oldest first."""
    rows = session.execute(_RECORDS.where(Citation.audit_id == audit_id).order_by(Measurement.id)).mappings()
    return tuple(map(_record, rows))


def _held(claimed: ClaimedMeasurement) -> tuple[ColumnElement[bool], ...]:
    """The fence: matches the row only while its owner holds it under the attempt that it claimed."""
    return (
        Measurement.id == claimed.measurement_id,
        Measurement.attempt == claimed.attempt,
        Measurement.lease_owner == claimed.owner,
        in_state(Measurement, MeasurementState.RUNNING),
    )


def _update_held(session: Session, claimed: ClaimedMeasurement, **values: Any) -> int | None:
    """Change a measurement that is still held; the id of its citation, or None when the fence refused."""
    change = update(Measurement).where(*_held(claimed)).values(**values).returning(Measurement.citation_id)
    citation_id: int | None = session.scalar(change.execution_options(synchronize_session=False))
    return citation_id


def _claimed(session: Session, measurement_id: int, owner: str) -> ClaimedMeasurement:
    row = session.execute(
        select(
            Measurement.id.label("measurement_id"),
            Measurement.bundle_id,
            Bundle.name.label("bundle_name"),
            Measurement.attempt,
            Measurement.method,
            Citation.audit_id,
            Citation.rank,
            TrainingExample.example_id,
        )
        .join(Bundle, Bundle.id == Measurement.bundle_id)
        .join(Citation, Citation.id == Measurement.citation_id)
        .join(TrainingExample, TrainingExample.id == Citation.training_example_id)
        .where(Measurement.id == measurement_id)
    ).mappings()
    found = dict(row.one())
    audits = read_claimed(session, [found["audit_id"]]).audits
    return ClaimedMeasurement(**found, owner=owner, record=audits[0].record if audits else None)


def _event(kind: TrailKind, claimed: ClaimedMeasurement, payload: dict[str, Any]) -> Event:
    return Event(kind, f"measurement:{claimed.measurement_id}", {"owner": claimed.owner, **payload})


_RECORDS: AnySelect = (
    select(
        Measurement.id.label("measurement_id"),
        Citation.audit_id,
        Citation.rank,
        TrainingExample.example_id,
        Measurement.method,
        Measurement.state,
        Measurement.code,
        Measurement.reason,
        Measurement.attempt,
        Measurement.effect_nats,
        Measurement.low_nats,
        Measurement.high_nats,
        Measurement.z,
        Measurement.seeds,
        Measurement.controls,
        Measurement.left_out.label("group"),
        Measurement.weak,
        Measurement.cost_seconds,
        Measurement.requested_by,
        Measurement.created_at,
        Measurement.finished_at,
    )
    .join(Citation, Citation.id == Measurement.citation_id)
    .join(TrainingExample, TrainingExample.id == Citation.training_example_id)
)


def _record(row: Any) -> MeasurementRecord:
    return MeasurementRecord(**(dict(row) | {name: row[name] or () for name in ("controls", "group")}))
