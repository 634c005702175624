"""What stands beside an audit or a training example: the way through a list, audits with the same first citation, rows next to a row of the corpus.

Each function runs a constant number of statements and reads a bounded number of rows.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import literal, select, tuple_

from db.models import Audit, Citation, TrainingExample
from db.reading.reader import SUMMARY, keyset_of, select_audits, summary_of
from db.reading.selection import narrow
from db.session import Database
from db.statements import AnySelect
from wherefrom.records import (
    AuditFilter,
    AuditNeighbours,
    AuditOrder,
    AuditSummary,
    ExampleNeighbours,
    NeighbourRecord,
)
from wherefrom.records.bounds import MAX_ALIKE

#: Rows of the corpus before and behind an example that are shown.
ROWS_AROUND = 2


def beside_audit(
    db: Database,
    filters: AuditFilter,
    audit_id: int,
    *,
    order: AuditOrder = AuditOrder.NEWEST,
    supported: float | None = None,
) -> AuditNeighbours:
    """The audits before and behind one in a list; one that the list does not hold has neighbours too.

    Args:
        db: The database.
        filters: The list.
        audit_id: The audit; without neighbours where there is none, or where it lacks what the list is sorted by.
        order: The order of the list.
        supported: Largest conformal p that is supported in the listing; only the filter `support` asks for it.
    """
    with db.reading() as session:
        found = narrow(session, filters, limit=supported)
        keyset = keyset_of(order, found)
        place = (keyset.major, keyset.minor)
        here = session.execute(select(*place).where(Audit.id == audit_id)).one_or_none()
        if here is None or here[0] is None:
            return AuditNeighbours()
        at = tuple_(literal(here[0], keyset.major.type), literal(here[1], keyset.minor.type))
        listed = select_audits(Audit.id).where(*found.conditions, keyset.major.is_not(None)).limit(1)
        smaller = listed.where(tuple_(*place) < at).order_by(*(one.desc() for one in place))
        larger = listed.where(tuple_(*place) > at).order_by(*place)
        before, behind = (larger, smaller) if keyset.falling else (smaller, larger)
        return AuditNeighbours(before=session.scalar(before), behind=session.scalar(behind))


def same_first_citation(
    db: Database, training_example_id: int, *, beside: int, limit: int
) -> list[AuditSummary]:
    """Audits whose first citation is this training example, newest first.

    Args:
        db: The database.
        training_example_id: The stored example.
        beside: An audit that is left out.
        limit: Most audits.
    """
    query = (
        select_audits(*SUMMARY)
        .join(Citation, Citation.audit_id == Audit.id)
        .where(
            Citation.training_example_id == training_example_id,
            Citation.rank == 1,
            Citation.audit_id != beside,
        )
        .order_by(Citation.audit_id.desc())
        .limit(limit)
    )
    with db.reading() as session:
        return [summary_of(row) for row in session.execute(query).mappings()]


def beside_example(db: Database, training_example_id: int) -> ExampleNeighbours:
    """The rows around a training example in its corpus, and what says nearly the same; of what is stored. Four statements at most.

    Of a large corpus only what was cited is stored, so rows may be missing in between; each says its own number.
    """
    names = (TrainingExample.corpus_id, TrainingExample.row)
    told = (
        select(Citation.alike)
        .where(Citation.training_example_id == training_example_id, Citation.alike.is_not(None))
        .limit(1)
    )
    with db.reading() as session:
        here = session.execute(select(*names).where(TrainingExample.id == training_example_id)).one_or_none()
        if here is None:
            return ExampleNeighbours()
        mine = TrainingExample.corpus_id == here.corpus_id
        near = TrainingExample.row.between(here.row - ROWS_AROUND, here.row + ROWS_AROUND)
        rows = _neighbours(mine, near, TrainingExample.id != training_example_id)
        around = [NeighbourRecord(**row) for row in session.execute(rows).mappings()]
        ids: Sequence[str] = (session.scalar(told) or ())[:MAX_ALIKE]
        alike = _neighbours(mine, TrainingExample.example_id.in_(ids))
        found = [NeighbourRecord(**row) for row in session.execute(alike).mappings()] if ids else []
    return ExampleNeighbours(
        row=here.row,
        before=tuple(one for one in around if one.row < here.row),
        behind=tuple(one for one in around if one.row > here.row),
        alike=tuple(found),
    )


def _neighbours(*wanted: Any) -> AnySelect:
    return (
        select(
            TrainingExample.id.label("training_example_id"),
            TrainingExample.example_id,
            TrainingExample.row,
            TrainingExample.source,
            TrainingExample.prompt,
            TrainingExample.completion,
        )
        .where(*wanted)
        .order_by(TrainingExample.row)
    )
