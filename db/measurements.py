"""Measurements as those who ask for them see them: asked for once, counted, read. `db.measurement_queue` has what workers do."""

from typing import Any

from sqlalchemy import exists, select, update
from sqlalchemy.orm import Session

from db.counts import COUNTED, count_states
from db.leases import fresh
from db.models import Audit, Citation, FlaggedText, Measurement, TrainingExample
from db.session import Database
from db.statements import AnySelect, insert_new
from db.trail import Event, TrailKind, record_events
from wherefrom.errors import InvalidRequest, NotFound
from wherefrom.records import (
    MeasurementRecord,
    MeasurementState,
    Method,
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
    again = fresh(Measurement) | {"requested_by": requested_by}
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


def measurement_counts(db: Database) -> dict[MeasurementState, int]:
    """How many measurements stand in each state, up to `COUNTED`."""
    with db.reading() as session:
        counted = count_states(session, Measurement, MeasurementState)
    return {state: min(number, COUNTED) for state, number in counted.items()}


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
