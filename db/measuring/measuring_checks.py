"""What a measurer found out about a bundle before anything was asked of it: whether effects can be measured, and what one will cost."""

from typing import Any

from sqlalchemy import select, update

from db.clock import db_now
from db.models import Audit, MeasuringCheckRow
from db.session import Database
from db.statements import insert_new
from db.storing.examples import storable_text
from wherefrom.records import ExpectedCost, MeasuringCheck


def save(db: Database, bundle_id: int, check: MeasuringCheck) -> None:
    """Store a check in place of the one before."""
    row: dict[str, Any] = {
        "bundle_id": bundle_id,
        "code": check.code,
        "reason": None if check.reason is None else storable_text(check.reason),
        "cost": None if check.cost is None else check.cost.model_dump(mode="json"),
        "checked_at": db_now(),
    }
    with db.writing() as session:
        session.execute(insert_new(session, MeasuringCheckRow, (MeasuringCheckRow.bundle_id,)).values(row))
        mine = update(MeasuringCheckRow).where(MeasuringCheckRow.bundle_id == bundle_id)
        session.execute(mine.values(**row).execution_options(synchronize_session=False))


def of_audit(db: Database, audit_id: int) -> MeasuringCheck | None:
    """The check of the bundle that answered an audit; None where no measurer has looked yet."""
    query = (
        select(MeasuringCheckRow.code, MeasuringCheckRow.reason, MeasuringCheckRow.cost)
        .join(Audit, Audit.bundle_id == MeasuringCheckRow.bundle_id)
        .where(Audit.id == audit_id)
    )
    with db.reading() as session:
        row = session.execute(query).one_or_none()
    if row is None:
        return None
    cost = None if row.cost is None else ExpectedCost.model_validate(row.cost)
    return MeasuringCheck(code=row.code, reason=row.reason, cost=cost)
