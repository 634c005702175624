"""Works out what changed between two bundles, a bounded number of outputs at a time; `db.comparisons` has what is asked and read.

A look walks over the audits of the other bundle in the order of their times, `STEP` at once, and compares those whose output has an audit under the
first bundle too. Only what was answered since the last look is compared again. At its end all outputs are summed up.
Groups of outputs are left out: their members have audits of their own.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, case, delete, func, literal, select, tuple_, update
from sqlalchemy.orm import Session, aliased

from db.clock import db_now
from db.models import (
    Audit,
    BundleComparisonRow,
    Citation,
    ComparedOutputRow,
    FlaggedOutput,
    TrainingExample,
)
from db.selection import ANSWERED
from db.session import Database
from db.statements import insert_rows
from db.trail import NEWEST_CHANGE
from wherefrom.records import (
    AuditState,
    ComparisonSummary,
    SourceShift,
    Supported,
    SupportShift,
    matched,
    moved,
)
from wherefrom.records.comparing import MOST_SOURCES
from wherefrom.statistics import adjusted, binomial_tail

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
        newest = session.scalar(select(NEWEST_CHANGE)) or 0
        found = session.execute(_walk(row)).all()
        changed = [one for one in found if one.audit_id is not None and _is_new(one)]
        values = _compared(session, changed)
    began = newest if row.next_at is None else row.pass_event
    _write(db, row, found, values, pass_event=began)
    if len(found) == STEP:
        return False
    with db.reading() as session:
        summary = _summary(session, comparison_id)
    with db.writing() as session:
        ended = update(BundleComparisonRow).where(
            BundleComparisonRow.id == comparison_id, BundleComparisonRow.pass_event == began
        )
        session.execute(
            ended.values(
                next_at=None,
                next_audit=0,
                seen=0,
                newest_event=began,
                summary=summary.model_dump(mode="json"),
                computed_at=db_now(),
            )
        )
    return True


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
) -> None:
    """Store what a step found, unless somebody else went on with the same look meanwhile."""
    table = BundleComparisonRow
    last = found[-1] if found else None
    mine = update(table).where(
        table.id == row.id,
        table.next_at.is_not_distinct_from(row.next_at),
        table.next_audit == row.next_audit,
        table.newest_event == row.newest_event,
    )
    place = {"next_at": last.walked_at, "next_audit": last.other_audit_id} if last else {}
    seen = (0 if row.next_at is None else row.seen) + sum(bool(one.answered) for one in found)
    gone = [one.flagged_output_id for one in found if one.audit_id is not None and _is_new(one)]
    with db.writing() as session:
        went_on = session.scalar(mine.values(seen=seen, pass_event=pass_event, **place).returning(table.id))
        if went_on is None:
            return
        if gone:
            stale = delete(ComparedOutputRow).where(
                ComparedOutputRow.comparison_id == row.id, ComparedOutputRow.flagged_output_id.in_(gone)
            )
            session.execute(stale)
        if values:
            session.execute(
                insert_rows(ComparedOutputRow), [{"comparison_id": row.id, **one} for one in values]
            )


def _summary(session: Session, comparison_id: int) -> ComparisonSummary:
    """All outputs summed up; five statements."""
    totals = session.execute(_of_both(_TOTALS, comparison_id)).one()._asdict()
    support = session.execute(_of_both(_SUPPORT, comparison_id).group_by("before", "after")).all()
    sources = _sources(session, comparison_id)
    nats = {name: totals.pop(name) for name in ("loss_sum", "other_loss_sum")}
    outputs = totals["loss_outputs"]
    return ComparisonSummary(
        **{name: value or 0 for name, value in totals.items()},
        loss_nats=nats["loss_sum"] / outputs if outputs else None,
        other_loss_nats=nats["other_loss_sum"] / outputs if outputs else None,
        support=tuple(
            SupportShift(before=before, after=after, outputs=number) for before, after, number in support
        ),
        sources=tuple(sources[:MOST_SOURCES]),
        num_sources=len(sources),
    )


def _of_both(columns: Sequence[Any], comparison_id: int) -> Select[Any]:
    return (
        select(*columns)
        .select_from(ComparedOutputRow)
        .join(_one, _one.id == ComparedOutputRow.audit_id)
        .join(_other, _other.id == ComparedOutputRow.other_audit_id)
        .where(ComparedOutputRow.comparison_id == comparison_id)
    )


def _number_where(condition: ColumnElement[bool]) -> ColumnElement[Any]:
    return func.sum(case((condition, 1), else_=0))


#: Losses per token compare where both models cut the output alike.
_SAME_TOKENS = (_one.tokens == _other.tokens) & _one.loss_nats.is_not(None) & _other.loss_nats.is_not(None)
_TOTALS = (
    func.count().label("outputs"),
    *(func.sum(getattr(ComparedOutputRow, name)).label(name) for name in ("stayed", "gone", "came")),
    _number_where(ComparedOutputRow.moved == 0).label("unmoved"),
    _number_where(ComparedOutputRow.top_changed.is_(True)).label("top_changed"),
    _number_where(_one.top_source.is_distinct_from(_other.top_source)).label("source_changed"),
    func.avg(ComparedOutputRow.moved).label("mean_moved"),
    _number_where(_SAME_TOKENS).label("loss_outputs"),
    func.sum(case((_SAME_TOKENS, _one.loss_nats))).label("loss_sum"),
    func.sum(case((_SAME_TOKENS, _other.loss_nats))).label("other_loss_sum"),
)


def _support_of(audit: Any) -> ColumnElement[str]:
    """What one audit says of its support, without the listing that it stands in."""
    return case(
        (audit.state == AuditState.ABSTAINED, literal(Supported.UNSUPPORTED.value)),
        (audit.weak.is_(True), literal(Supported.WEAK.value)),
        (audit.conformal_p.is_(None), literal(Supported.UNCALIBRATED.value)),
        else_=literal(Supported.SUPPORTED.value),
    )


_SUPPORT = (
    _support_of(_one).label("before"),
    _support_of(_other).label("after"),
    func.count().label("outputs"),
)


def _sources(session: Session, comparison_id: int) -> list[SourceShift]:
    """Every source with a citation under either bundle, those whose first citations moved most first."""
    tops = (_one.top_source, _other.top_source)
    firsts = session.execute(_of_both((*tops, func.count()), comparison_id).group_by(*tops)).all()
    cited, other_cited = (
        {row.source: row.number for row in session.execute(_by_source(column, comparison_id))}
        for column in (ComparedOutputRow.audit_id, ComparedOutputRow.other_audit_id)
    )
    before, after, kept = defaultdict[str, int](int), defaultdict[str, int](int), defaultdict[str, int](int)
    for one, other, number in firsts:
        before[one] += number
        after[other] += number
        kept[one] += number if one == other else 0
    names = sorted({*cited, *other_cited})
    gains = [(after[name] - kept[name], before[name] - kept[name]) for name in names]
    found = [
        SourceShift(
            source=name,
            first=before[name],
            other_first=after[name],
            gained=gained,
            lost=lost,
            citations=cited.get(name, 0),
            other_citations=other_cited.get(name, 0),
            q=q,
        )
        for name, (gained, lost), q in zip(
            names, gains, adjusted([_sign_test(*one) for one in gains]), strict=True
        )
    ]
    return sorted(
        found,
        key=lambda one: (
            -abs(one.gained - one.lost),
            -abs(one.other_citations - one.citations),
            one.source,
        ),
    )


def _sign_test(gained: int, lost: int) -> float:
    """How likely so uneven a split would be if both were as likely, two-sided; 1 where nothing moved."""
    return min(1.0, 2 * binomial_tail(max(gained, lost), gained + lost, 0.5)) if gained + lost else 1.0


def _by_source(audit_id: Any, comparison_id: int) -> Select[str, int]:
    return (
        select(Citation.source, func.count().label("number"))
        .join(ComparedOutputRow, audit_id == Citation.audit_id)
        .where(ComparedOutputRow.comparison_id == comparison_id, Citation.rank > 0)
        .group_by(Citation.source)
    )
