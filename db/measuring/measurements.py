"""Measurements as those who ask for them see them: asked for once, counted, read. `db.queues.measurement_queue` has what workers do."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import cast, exists, null, select, union_all
from sqlalchemy.orm import Session

from db.counts import COUNTED, count_states
from db.measuring import group_measurements
from db.measuring.asking import ask_once
from db.measuring.effects import effect_columns, effect_fields
from db.models import (
    Audit,
    Citation,
    FlaggedOutput,
    FlaggedText,
    GroupMeasurement,
    Measurement,
    TrainingExample,
)
from db.session import Database
from db.statements import AnySelect
from wherefrom.errors import InvalidRequest, NotFound
from wherefrom.records import (
    GroupMeasurementRecord,
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
        InvalidRequest: the output's text was erased, so nothing can be measured on it; or the audit is of a group.
    """
    with db.writing() as session:
        citation = session.execute(
            select(Citation.id, Audit.bundle_id, Audit.flagged_output_id, FlaggedOutput.members)
            .join(Audit, Audit.id == Citation.audit_id)
            .join(FlaggedOutput, FlaggedOutput.id == Audit.flagged_output_id)
            .where(Citation.audit_id == audit_id, Citation.rank == rank)
        ).one_or_none()
        if citation is None:
            raise NotFound(f"audit {audit_id} has no citation with rank {rank}")
        if citation.members is not None:
            raise InvalidRequest(
                f"audit {audit_id} is of a group of outputs; measure the citation on the audit of one of its members"
            )
        if not session.scalar(
            select(exists().where(FlaggedText.flagged_output_id == citation.flagged_output_id))
        ):
            raise InvalidRequest(f"the text of audit {audit_id} was erased; no effect on it can be measured")
        row = {
            "citation_id": citation.id,
            "bundle_id": citation.bundle_id,
            "method": method,
            "state": MeasurementState.PENDING,
            "weak": method is not Method.REFIT,
            "requested_by": requested_by,
        }
        ask_once(session, Measurement, row, unique=("citation_id", "method"), told={"method": method.value})
        mine = _RECORDS.where(Measurement.citation_id == citation.id, Measurement.method == method)
        return _record(session.execute(mine).mappings().one())


def measurement_counts(db: Database) -> dict[MeasurementState, int]:
    """How many measurements, of citations and of groups, stand in each state, up to `COUNTED`."""
    with db.reading() as session:
        counted = [
            count_states(session, model, MeasurementState) for model in (Measurement, GroupMeasurement)
        ]
    return {state: min(sum(one[state] for one in counted), COUNTED) for state in MeasurementState}


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


def measurements_of(
    session: Session, audit_ids: Sequence[int]
) -> tuple[tuple[MeasurementRecord, ...], tuple[GroupMeasurementRecord, ...]]:
    """The measurements of the citations of audits, and those of groups on their outputs, oldest first; one statement."""
    mine = _RECORDS.where(Citation.audit_id.in_(audit_ids))
    groups = group_measurements.RECORDS.where(GroupMeasurement.audit_id.in_(audit_ids))
    own, others = (list(query.selected_columns.keys()) for query in (mine, groups))
    names = list(dict.fromkeys([*own, *others]))
    both = union_all(_padded(mine, groups, names), _padded(groups, mine, names)).subquery()
    found: tuple[list[MeasurementRecord], list[GroupMeasurementRecord]] = ([], [])
    for row in session.execute(select(both).order_by(both.c.measurement_id)).mappings():
        if row["rank"] is None:
            found[1].append(group_measurements.record_of({name: row[name] for name in others}))
        else:
            found[0].append(_record({name: row[name] for name in own}))
    return tuple(found[0]), tuple(found[1])


def _padded(query: AnySelect, other: AnySelect, names: Sequence[str]) -> AnySelect:
    """A SELECT with NULL in the columns that only the other one has."""
    own, others = query.selected_columns, other.selected_columns
    columns = [
        own[name].label(name) if name in own else cast(null(), others[name].type).label(name)
        for name in names
    ]
    return query.with_only_columns(*columns)


_RECORDS: AnySelect = (
    select(
        *effect_columns(Measurement),
        Citation.audit_id,
        Citation.rank,
        TrainingExample.example_id,
        Measurement.method,
        Measurement.weak,
    )
    .join(Citation, Citation.id == Measurement.citation_id)
    .join(TrainingExample, TrainingExample.id == Citation.training_example_id)
)


def _record(row: Any) -> MeasurementRecord:
    return MeasurementRecord(**effect_fields(row))
