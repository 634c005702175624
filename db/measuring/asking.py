"""How a measurement is asked for: once, however often and from however many at once; a dead one is queued again and says why it died."""

from typing import Any

from sqlalchemy import update
from sqlalchemy.orm import Session

from db.audit_trail.trail import Event, TrailKind, record_events
from db.models import GroupMeasurement, Measurement
from db.queues.leases import fresh
from db.statements import insert_new
from wherefrom.records import MeasurementState


def ask_once(
    session: Session,
    model: type[Measurement] | type[GroupMeasurement],
    row: dict[str, Any],
    *,
    unique: tuple[str, ...],
    told: dict[str, Any],
) -> None:
    """Add a measurement, or queue it again where it is dead; nothing where it is under way or done.

    Args:
        session: The transaction.
        model: The table.
        row: The new row's values.
        unique: Columns that tell whether it is the same question.
        told: What the trail says of the question, beside who asked. No texts.
    """
    columns = tuple(getattr(model, name) for name in unique)
    same = [column == row[name] for name, column in zip(unique, columns, strict=True)]
    added = session.scalar(insert_new(session, model, columns).returning(model.id), row)
    again = fresh(model) | {"requested_by": row["requested_by"]}
    again |= {"last_code": model.code, "last_reason": model.reason}
    revived = session.scalar(
        update(model)
        .where(*same, model.state == MeasurementState.DEAD)
        .values(**again)
        .returning(model.id)
        .execution_options(synchronize_session=False)
    )
    if (measurement_id := added or revived) is not None:
        subject = f"{model.__tablename__}:{measurement_id}"
        record_events(session, [Event(TrailKind.MEASUREMENT_REQUESTED, subject, told)])
