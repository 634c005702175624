"""What-ifs as those who ask see them: asked, listed, read. `db.queues.what_if_queue` has what workers do.

The rows of the list and the outputs are fixed when it is asked, so the answer is to the list as it was then.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import RowMapping, func, insert, select
from sqlalchemy.orm import Session

from db.audit_trail.reads import note_texts
from db.audit_trail.trail import Event, TrailKind, record_events
from db.models import (
    Audit,
    Bundle,
    FixListRow,
    FlaggedOutput,
    FlaggedText,
    TrainingExample,
    WhatIf,
    WhatIfOutputRow,
)
from db.reading.culprits import selected
from db.reading.listings import Conditions, look_up
from db.reading.reader import EXCERPT_CHARS
from db.remedies.fix_lists import get_list
from db.session import Database
from db.statements import AnySelect, insert_rows
from wherefrom.errors import InvalidRequest, NotFound
from wherefrom.records import AuditFilter, FixAction, MeasurementState, WhatIfOutput, WhatIfRecord
from wherefrom.records.bounds import MAX_GROUP
from wherefrom.records.what_if import differs

#: What-ifs of a list that are shown.
SHOWN = 20
LEAVING = tuple(action for action in FixAction if action.leaves)


def ask(db: Database, list_id: int, filters: AuditFilter, *, most: int, by: str) -> list[WhatIfRecord]:
    """Ask what leaving a list out would do to the newest outputs of a filter; one what-if per bundle that answered them.

    Raises:
        NotFound: there is no such list.
        InvalidRequest: nothing on it leaves, it is too long, or no answered output with a text matches.
    """
    get_list(db, list_id)
    wanted = look_up(db, filters)
    with db.writing() as session:
        outputs = _outputs(session, wanted, most)
        if not outputs:
            raise InvalidRequest("no answered output with a text matches; choose other ones")
        leaving = _leaving(session, list_id)
        if not leaving:
            raise InvalidRequest("nothing on the list is to be removed or fixed")
        asked = [
            _insert(session, list_id, bundle_id, audits, leaving=leaving, filters=filters, by=by)
            for bundle_id, audits in outputs.items()
        ]
        found = [one for one in asked if one is not None]
        if not found:
            raise InvalidRequest(
                "the corpora of the bundles that answered these outputs hold no row of the list"
            )
    return [get_what_if(db, one) for one in found]


def get_what_if(db: Database, what_if_id: int) -> WhatIfRecord:
    """One what-if.

    Raises:
        NotFound: there is none with this number.
    """
    found = _records(db, WhatIf.id == what_if_id)
    if not found:
        raise NotFound(f"what-if {what_if_id} does not exist")
    return found[0]


def of_list(db: Database, list_id: int) -> list[WhatIfRecord]:
    """The newest what-ifs of a list, newest first; one statement."""
    return _records(db, WhatIf.list_id == list_id)


def bundle_of(db: Database, what_if_id: int) -> int:
    """The bundle of a what-if."""
    with db.reading() as session:
        return session.scalars(select(WhatIf.bundle_id).where(WhatIf.id == what_if_id)).one()


def outputs_of(db: Database, what_if_id: int) -> list[WhatIfOutput]:
    """The outputs of a what-if, the highest score above chance first; those without a score last."""
    query = (
        select(
            WhatIfOutputRow.audit_id,
            func.coalesce(func.substr(FlaggedText.completion, 1, EXCERPT_CHARS), "").label("excerpt"),
            FlaggedOutput.reason.label("flag_reason"),
            *(getattr(WhatIfOutputRow, name) for name in _SCORES),
            WhatIfOutputRow.code,
        )
        .join(Audit, Audit.id == WhatIfOutputRow.audit_id)
        .join(FlaggedOutput, FlaggedOutput.id == Audit.flagged_output_id)
        .outerjoin(FlaggedText, FlaggedText.flagged_output_id == FlaggedOutput.id)
        .where(WhatIfOutputRow.what_if_id == what_if_id)
        .order_by(
            WhatIfOutputRow.score.is_(None),
            func.coalesce(WhatIfOutputRow.z, WhatIfOutputRow.score).desc(),
            WhatIfOutputRow.audit_id,
        )
    )
    with db.reading() as session:
        found = [_output(row) for row in session.execute(query).mappings()]
    note_texts(one.audit_id for one in found)
    return found


def _output(row: RowMapping) -> WhatIfOutput:
    spread = {name: row[name] for name in ("chance", "low_nats", "high_nats")}
    return WhatIfOutput(**row, differs=differs(**spread))


def audits_of(db: Database, what_if_id: int) -> set[int]:
    """The audits of its outputs; no text is read."""
    with db.reading() as session:
        query = select(WhatIfOutputRow.audit_id).where(WhatIfOutputRow.what_if_id == what_if_id)
        return set(session.scalars(query))


def left_out_ids(db: Database, what_if_id: int) -> list[str]:
    """Ids in the corpus of the training examples that a what-if leaves out, for a measured check of the whole list."""
    with db.reading() as session:
        one = session.execute(
            select(WhatIf.corpus_rows, Bundle.corpus_id)
            .join(Bundle, Bundle.id == WhatIf.bundle_id)
            .where(WhatIf.id == what_if_id)
        ).one_or_none()
        if one is None:
            raise NotFound(f"what-if {what_if_id} does not exist")
        ids: list[str] = []
        rows = list(one.corpus_rows)
        for at in range(0, len(rows), 500):
            mine = select(TrainingExample.example_id).where(
                TrainingExample.corpus_id == one.corpus_id, TrainingExample.row.in_(rows[at : at + 500])
            )
            ids += session.scalars(mine).all()
    return sorted(ids)


_SCORES = ("score", "z", "chance", "effect_nats", "low_nats", "high_nats")


def _outputs(session: Session, wanted: Conditions, most: int) -> dict[int, list[int]]:
    """Newest answered audits with a text, by bundle."""
    audits = selected([*wanted, FlaggedText.flagged_output_id.is_not(None)], most)
    query = select(Audit.id, Audit.bundle_id).join(audits, audits.c.id == Audit.id).order_by(Audit.id)
    found: dict[int, list[int]] = {}
    for row in session.execute(query):
        found.setdefault(row.bundle_id, []).append(row.id)
    return found


def _leaving(session: Session, list_id: int) -> Sequence[Any]:
    query = (
        select(TrainingExample.corpus_id, TrainingExample.row)
        .join(FixListRow, FixListRow.training_example_id == TrainingExample.id)
        .where(FixListRow.list_id == list_id, FixListRow.action.in_(LEAVING))
        .limit(MAX_GROUP + 1)
    )
    rows = session.execute(query).all()
    if len(rows) > MAX_GROUP:
        raise InvalidRequest(f"more than {MAX_GROUP} rows leave; a what-if takes at most so many")
    return rows


def _insert(
    session: Session,
    list_id: int,
    bundle_id: int,
    audits: Sequence[int],
    *,
    leaving: Sequence[Any],
    filters: AuditFilter,
    by: str,
) -> int | None:
    """The number of a new what-if; None where the bundle's corpus holds no row of the list."""
    corpus_id = session.scalars(select(Bundle.corpus_id).where(Bundle.id == bundle_id)).one()
    rows = sorted(one.row for one in leaving if one.corpus_id == corpus_id)
    if not rows:
        return None
    row = {
        "list_id": list_id,
        "bundle_id": bundle_id,
        "state": MeasurementState.PENDING,
        "corpus_rows": rows,
        "other_rows": len(leaving) - len(rows),
        "filter": filters.model_dump(mode="json", exclude_none=True),
        "requested_by": by,
    }
    number = session.scalar(insert(WhatIf).values(**row).returning(WhatIf.id))
    given = [{"what_if_id": number, "audit_id": one, "scored": False} for one in audits]
    session.execute(insert_rows(WhatIfOutputRow), given)
    payload = {"list": list_id, "rows": len(rows), "outputs": len(audits)}
    record_events(session, [Event(TrailKind.WHAT_IF_REQUESTED, f"what_if:{number}", payload)])
    return number


def _records(db: Database, condition: Any) -> list[WhatIfRecord]:
    mine = WhatIfOutputRow.what_if_id == WhatIf.id
    counts = [
        select(func.count()).select_from(WhatIfOutputRow).where(*one).correlate(WhatIf).scalar_subquery()
        for one in ((mine,), (mine, WhatIfOutputRow.scored.is_(True)))
    ]
    query: AnySelect = (
        select(
            WhatIf.id.label("what_if_id"),
            WhatIf.list_id,
            Bundle.name.label("bundle"),
            WhatIf.state,
            WhatIf.code,
            WhatIf.reason,
            WhatIf.corpus_rows,
            WhatIf.other_rows,
            counts[0].label("outputs"),
            counts[1].label("scored"),
            WhatIf.basis,
            WhatIf.filter,
            WhatIf.requested_by,
            WhatIf.created_at,
            WhatIf.finished_at,
        )
        .join(Bundle, Bundle.id == WhatIf.bundle_id)
        .where(condition)
        .order_by(WhatIf.id.desc())
        .limit(SHOWN)
    )
    with db.reading() as session:
        return [
            WhatIfRecord(
                rows=len(row["corpus_rows"]), **{name: row[name] for name in row if name != "corpus_rows"}
            )
            for row in session.execute(query).mappings()
        ]
