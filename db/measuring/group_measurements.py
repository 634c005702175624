"""Measurements of groups as those who ask for them see them: asked for once, read. `db.queues.group_queue` has what workers do."""

from typing import Any

from sqlalchemy import exists, select

from db.measuring.asking import ask_once
from db.measuring.effects import effect_columns, effect_fields
from db.models import Audit, FlaggedOutput, FlaggedText, GroupMeasurement
from db.session import Database
from db.statements import AnySelect
from db.storing.examples import storable_name
from wherefrom.errors import InvalidRequest, NotFound
from wherefrom.records import GroupMeasurementRecord, GroupRequest, MeasurementState


def request_group(
    db: Database, *, audit_id: int, request: GroupRequest, requested_by: str
) -> GroupMeasurementRecord:
    """Ask for the effect of a group. Asking again answers with the same measurement; a dead one is queued again.

    Args:
        db: The database.
        audit_id: The audit on whose output the effect is measured.
        request: The training examples.
        requested_by: Who asks.

    Raises:
        NotFound: there is no such audit.
        InvalidRequest: it is of a group of outputs, no bundle has it, or its text was erased, so nothing can be measured on it.
    """
    with db.writing() as session:
        audit = session.execute(
            select(Audit.bundle_id, _HAS_TEXT.label("has_text"), FlaggedOutput.members)
            .join(FlaggedOutput, FlaggedOutput.id == Audit.flagged_output_id)
            .where(Audit.id == audit_id)
        ).one_or_none()
        if audit is None:
            raise NotFound(f"audit {audit_id} does not exist")
        if audit.members is not None:
            raise InvalidRequest(
                f"audit {audit_id} is of a group of outputs; measure on the audit of one of its members"
            )
        if audit.bundle_id is None:
            raise InvalidRequest(
                f"audit {audit_id} waits for a bundle of its model; nothing can be measured on it"
            )
        if not audit.has_text:
            raise InvalidRequest(f"the text of audit {audit_id} was erased; no effect on it can be measured")
        key = request.key()
        row = {
            "audit_id": audit_id,
            "group_key": key,
            "bundle_id": audit.bundle_id,
            "source": None if request.source is None else storable_name(request.source),
            "example_ids": sorted({storable_name(one) for one in request.example_ids}) or None,
            "state": MeasurementState.PENDING,
            "requested_by": requested_by,
        }
        ask_once(session, GroupMeasurement, row, unique=("audit_id", "group_key"), told={"group": key})
        mine = RECORDS.where(GroupMeasurement.audit_id == audit_id, GroupMeasurement.group_key == key)
        return record_of(session.execute(mine).mappings().one())


def get_group_measurement(db: Database, measurement_id: int) -> GroupMeasurementRecord:
    """One measurement of a group.

    Raises:
        NotFound: there is none with this id.
    """
    with db.reading() as session:
        row = session.execute(RECORDS.where(GroupMeasurement.id == measurement_id)).mappings().one_or_none()
    if row is None:
        raise NotFound(f"measurement {measurement_id} of a group does not exist")
    return record_of(row)


_HAS_TEXT = exists().where(FlaggedText.flagged_output_id == Audit.flagged_output_id)

RECORDS: AnySelect = select(
    *effect_columns(GroupMeasurement),
    GroupMeasurement.audit_id,
    GroupMeasurement.source,
    GroupMeasurement.example_ids,
    GroupMeasurement.group_size,
)


def record_of(row: Any) -> GroupMeasurementRecord:
    """A row of `RECORDS` as readers see it."""
    found = effect_fields(row)
    asked = GroupRequest(example_ids=tuple(found.pop("example_ids") or ()), source=found.pop("source"))
    return GroupMeasurementRecord(**found, request=asked)
