"""Which findings are one: what stands by itself, and what went into it."""

from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from db.models import Finding, FindingOutput
from wherefrom.errors import NotFound

#: Number of the finding that stands by itself and holds a finding.
ROOT: ColumnElement[int] = func.coalesce(Finding.merged_into, Finding.id)


def root_of(session: Session, finding_id: int) -> int:
    """The finding that stands by itself and holds this one: itself, or what it went into.

    Raises:
        NotFound: there is none with this number.
    """
    found = session.scalar(select(ROOT).where(Finding.id == finding_id))
    if found is None:
        raise NotFound(f"finding {finding_id} does not exist")
    return int(found)


def whole_of(session: Session, finding_id: int) -> list[int]:
    """A finding and what went into it."""
    return [finding_id, *session.scalars(select(Finding.id).where(Finding.merged_into == finding_id))]


def finding_of(audit_id: "InstrumentedAttribute[int]") -> Any:
    """Number of the finding that an audit's output stands in, as a column."""
    return (
        select(ROOT)
        .join(FindingOutput, FindingOutput.finding_id == Finding.id)
        .where(FindingOutput.audit_id == audit_id)
        .scalar_subquery()
    )
