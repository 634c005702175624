"""Works out what changed between two bundles, a bounded number of outputs at a time; `db.comparison.comparisons` has what is asked and read.

A look walks over the audits of the other bundle in the order of their times, `STEP` at once, and compares those whose output has an audit under the
first bundle too. Only what was answered since the last look is compared again. At its end all outputs are summed up, a part at a time (`db.comparison.comparison_sums`).
Groups of outputs are left out: their members have audits of their own.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, delete, literal, select, tuple_, update
from sqlalchemy.orm import Session, aliased

from db.audit_trail.trail import NEWEST_CHANGE
from db.clock import db_now
from db.comparison.comparison_sums import Sums, sum_part, summary_of
from db.models import (
    Audit,
    BundleComparisonRow,
    Citation,
    ComparedOutputRow,
    FlaggedOutput,
    TrainingExample,
)
from db.reading.selection import ANSWERED
from db.session import Database
from db.statements import insert_rows
from wherefrom.records import matched, moved

#: Audits of the other bundle that one step walks over.
STEP = 250

_one, _other = aliased(Audit), aliased(Audit)


@dataclass(frozen=True)
class _Cited:
    """A citation as far as it is compared; satisfies `wherefrom.records.comparing.Cited`."""

    rank: int
    training_example_id: int
    text_sha256: str


def step(db: Database, comparison_id: int) -> bool:
    """Go on with a comparison by one step; whether its look is at its end, and the summary written.

    Two processes that go on at once do no harm: one of them writes nothing.
    """
    with db.reading() as session:
        row = session.get_one(BundleComparisonRow, comparison_id)
    if _is_summed(row):
        return _sum_up(db, row)
    with db.reading() as session:
        newest = session.scalar(select(NEWEST_CHANGE)) or 0
        found = session.execute(_walk(row)).all()
        changed = [one for one in found if one.audit_id is not None and _is_new(one)]
        values = _compared(session, changed)
    began = newest if row.next_at is None else row.pass_event
    if not _write(db, row, found, values, pass_event=began) or len(found) == STEP:
        return False
    sums = Sums(event=began).model_dump(mode="json")
    with db.writing() as session:
        _go_on(session, comparison_id, BundleComparisonRow.pass_event == began, summed_to=0, sums=sums)
    with db.reading() as session:
        row = session.get_one(BundleComparisonRow, comparison_id)
    return _sum_up(db, row)


def _is_summed(row: BundleComparisonRow) -> bool:
    """Whether the look is at the end of its audits, and sums up; sums of another look are what an older release left."""
    return row.sums is not None and row.next_at is not None and row.sums["event"] == row.pass_event


def _sum_up(db: Database, row: BundleComparisonRow) -> bool:
    """Sum up a part of the outputs; whether it was the last, and the summary is written."""
    before = Sums.model_validate(row.sums)
    with db.reading() as session:
        part, last = sum_part(session, row.id, after=row.summed_to or 0, event=row.pass_event)
    sums = before.plus(part)
    if last is None:
        values: dict[str, Any] = {
            "next_at": None,
            "next_audit": 0,
            "seen": 0,
            "newest_event": row.pass_event,
            "summary": summary_of(sums).model_dump(mode="json"),
            "computed_at": db_now(),
            "summed_to": None,
            "sums": None,
        }
    else:
        values = {"summed_to": last, "sums": sums.model_dump(mode="json")}
    still = (
        BundleComparisonRow.pass_event == row.pass_event,
        BundleComparisonRow.summed_to.is_not_distinct_from(row.summed_to),
    )
    with db.writing() as session:
        went_on = _go_on(session, row.id, *still, **values)
    return went_on and last is None


def _go_on(session: Session, comparison_id: int, *still: ColumnElement[bool], **values: Any) -> bool:
    """Write how far a comparison is, and that somebody went on with it; False where it stands elsewhere by now, and nothing was written."""
    table = BundleComparisonRow
    stepped = update(table).where(table.id == comparison_id, *still).values(**values, stepped_at=db_now())
    return session.scalar(stepped.returning(table.id)) is not None


def _walk(row: BundleComparisonRow) -> Select[Any]:
    """The next audits of the other bundle, each beside that of the first bundle and what is stored of both, where there are such."""
    place = (Audit.created_at, Audit.id)
    walked = select(*place, Audit.flagged_output_id, Audit.state, Audit.finished_at).where(
        Audit.bundle_id == row.other_bundle_id
    )
    if row.next_at is not None:
        walked = walked.where(
            tuple_(*place) > tuple_(literal(row.next_at, Audit.created_at.type), literal(row.next_audit))
        )
    other = walked.order_by(*place).limit(STEP).subquery("walked")
    stored = ComparedOutputRow
    return (
        select(
            other.c.created_at.label("walked_at"),
            other.c.id.label("other_audit_id"),
            other.c.flagged_output_id,
            other.c.finished_at.label("other_finished_at"),
            _one.id.label("audit_id"),
            _one.finished_at.label("finished_at"),
            (_one.state.in_(ANSWERED) & other.c.state.in_(ANSWERED)).label("answered"),
            stored.finished_at.label("stored_at"),
            stored.other_finished_at.label("other_stored_at"),
        )
        .outerjoin(FlaggedOutput, (FlaggedOutput.id == other.c.flagged_output_id) & _is_compared())
        .outerjoin(_one, (_one.flagged_output_id == FlaggedOutput.id) & (_one.bundle_id == row.bundle_id))
        .outerjoin(
            stored,
            (stored.comparison_id == row.id) & (stored.flagged_output_id == other.c.flagged_output_id),
        )
        .order_by(other.c.created_at, other.c.id)
    )


def _is_compared() -> ColumnElement[bool]:
    return FlaggedOutput.members.is_(None) & FlaggedOutput.hypothetical_of.is_(None)


def _is_new(one: Row[Any]) -> bool:
    """Whether what is stored of a pair is not what its audits say now."""
    if not one.answered:
        return one.stored_at is not None
    return (one.finished_at, one.other_finished_at) != (one.stored_at, one.other_stored_at)


def _compared(session: Session, pairs: Sequence[Row[Any]]) -> list[dict[str, Any]]:
    """The rows of pairs that are both answered."""
    answered = [one for one in pairs if one.answered]
    cited = _citations(session, [number for one in answered for number in (one.audit_id, one.other_audit_id)])
    return [
        {
            "flagged_output_id": one.flagged_output_id,
            "audit_id": one.audit_id,
            "other_audit_id": one.other_audit_id,
            "finished_at": one.finished_at,
            "other_finished_at": one.other_finished_at,
            **_changes(cited[one.audit_id], cited[one.other_audit_id]),
        }
        for one in answered
    ]


def _citations(session: Session, audit_ids: Sequence[int]) -> Mapping[int, list[_Cited]]:
    found: dict[int, list[_Cited]] = defaultdict(list)
    if not audit_ids:
        return found
    rows = (
        select(Citation.audit_id, Citation.rank, Citation.training_example_id, TrainingExample.text_sha256)
        .join(TrainingExample, TrainingExample.id == Citation.training_example_id)
        .where(Citation.audit_id.in_(audit_ids), Citation.rank > 0)
        .order_by(Citation.audit_id, Citation.rank)
    )
    for audit_id, rank, training_example_id, text_sha256 in session.execute(rows):
        found[audit_id].append(_Cited(rank, training_example_id, text_sha256))
    return found


def _changes(ones: Sequence[_Cited], others: Sequence[_Cited]) -> dict[str, Any]:
    pairs = matched(ones, others)
    stayed = sum(here is not None and there is not None for here, there in pairs)
    first = next(((here, there) for here, there in pairs if here and here.rank == 1), (None, None))
    return {
        "stayed": stayed,
        "gone": len(ones) - stayed,
        "came": len(others) - stayed,
        "moved": moved(pairs),
        "top_changed": bool(ones or others) and not (first[1] and first[1].rank == 1),
    }


def _write(
    db: Database,
    row: BundleComparisonRow,
    found: Sequence[Row[Any]],
    values: Sequence[dict[str, Any]],
    *,
    pass_event: int,
) -> bool:
    """Store what a step found; False where somebody else went on with the same look meanwhile, and nothing was stored."""
    table = BundleComparisonRow
    last = found[-1] if found else None
    still = (
        table.next_at.is_not_distinct_from(row.next_at),
        table.next_audit == row.next_audit,
        table.newest_event == row.newest_event,
    )
    place = {"next_at": last.walked_at, "next_audit": last.other_audit_id} if last else {}
    seen = (0 if row.next_at is None else row.seen) + sum(bool(one.answered) for one in found)
    gone = [one.flagged_output_id for one in found if one.audit_id is not None and _is_new(one)]
    with db.writing() as session:
        if not _go_on(session, row.id, *still, seen=seen, pass_event=pass_event, **place):
            return False
        if gone:
            stale = delete(ComparedOutputRow).where(
                ComparedOutputRow.comparison_id == row.id, ComparedOutputRow.flagged_output_id.in_(gone)
            )
            session.execute(stale)
        if values:
            session.execute(
                insert_rows(ComparedOutputRow), [{"comparison_id": row.id, **one} for one in values]
            )
    return True
