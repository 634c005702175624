"""Sums up what two bundles changed over all outputs that were compared, a part of them at a time, so that nothing else waits long.

What is summed so far stands beside the comparison as JSON, with the look that it belongs to: sums of another look are not gone on with.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict
from sqlalchemy import ColumnElement, Select, case, func, literal, select
from sqlalchemy.orm import Session, aliased

from db.models import Audit, Citation, ComparedOutputRow
from db.statements import AnySelect
from wherefrom.records import AuditState, ComparisonSummary, SourceShift, Supported, SupportShift
from wherefrom.records.comparing import MOST_SOURCES
from wherefrom.statistics import adjusted, binomial_tail

#: Outputs that are summed up at once.
PART = 1_000

_one, _other = aliased(Audit), aliased(Audit)


class Sums(BaseModel):
    """What some outputs come to; sums of parts add up."""

    model_config = ConfigDict(frozen=True)

    #: Number of the newest change in the trail when the look began.
    event: int
    totals: dict[str, float] = {}
    #: Outputs by what either bundle says of their support, and by either first source.
    support: list[tuple[str, str, int]] = []
    firsts: list[tuple[str | None, str | None, int]] = []
    #: Citations by source under either bundle.
    cited: dict[str, int] = {}
    other_cited: dict[str, int] = {}

    def plus(self, other: "Sums") -> "Sums":
        """Both together."""
        return Sums(
            event=self.event,
            totals=_added(self.totals, other.totals),
            support=_pairs_added(self.support, other.support),
            firsts=_pairs_added(self.firsts, other.firsts),
            cited=_added(self.cited, other.cited),
            other_cited=_added(self.other_cited, other.other_cited),
        )


def _added(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    return {name: one.get(name, 0) + other.get(name, 0) for name in {**one, **other}}


def _pairs_added(one: Sequence[Any], other: Sequence[Any]) -> list[Any]:
    counts: Counter[tuple[Any, Any]] = Counter()
    for before, after, number in (*one, *other):
        counts[before, after] += number
    return [(*pair, number) for pair, number in counts.items()]


def sum_part(session: Session, comparison_id: int, *, after: int, event: int) -> tuple[Sums, int | None]:
    """The sums of the next outputs by number, and the last of them; None where these were the last ones. Six statements.

    Args:
        session: Where to read.
        comparison_id: The comparison.
        after: The output before the first one.
        event: Of which look.
    """
    pair = ComparedOutputRow
    ids = (
        select(pair.flagged_output_id)
        .where(pair.comparison_id == comparison_id, pair.flagged_output_id > after)
        .order_by(pair.flagged_output_id)
        .limit(PART)
        .subquery("ids")
    )
    last, number = session.execute(select(func.max(ids.c.flagged_output_id), func.count())).one()
    if last is None:
        return Sums(event=event), None
    mine = (pair.comparison_id == comparison_id, pair.flagged_output_id.between(after + 1, last))
    totals = session.execute(_of_both(_TOTALS, *mine)).one()._asdict()
    tops = (_one.top_source, _other.top_source)
    found = Sums(
        event=event,
        totals={name: value or 0 for name, value in totals.items()},
        support=_rows(session, _of_both(_SUPPORT, *mine).group_by("before", "after")),
        firsts=_rows(session, _of_both((*tops, func.count()), *mine).group_by(*tops)),
        cited=dict(_rows(session, _by_source(pair.audit_id, *mine))),
        other_cited=dict(_rows(session, _by_source(pair.other_audit_id, *mine))),
    )
    return found, last if number == PART else None


def _rows(session: Session, query: AnySelect) -> list[Any]:
    return [tuple(row) for row in session.execute(query)]


def summary_of(sums: Sums) -> ComparisonSummary:
    """What all outputs come to, from the sums of all parts."""
    counts = {name: int(sums.totals.get(name, 0)) for name in _COUNTS}
    outputs, compared = counts["outputs"], counts["loss_outputs"]
    mean = {name: sums.totals[f"{name}_sum"] / compared if compared else None for name in _LOSSES}
    sources = _sources(sums)
    return ComparisonSummary(
        **counts,
        mean_moved=sums.totals["moved_sum"] / outputs if outputs else 0.0,
        loss_nats=mean["loss"],
        other_loss_nats=mean["other_loss"],
        support=tuple(
            SupportShift(before=Supported(before), after=Supported(after), outputs=number)
            for before, after, number in sums.support
        ),
        sources=tuple(sources[:MOST_SOURCES]),
        num_sources=len(sources),
    )


def _of_both(columns: Sequence[Any], *mine: ColumnElement[bool]) -> Select[Any]:
    return (
        select(*columns)
        .select_from(ComparedOutputRow)
        .join(_one, _one.id == ComparedOutputRow.audit_id)
        .join(_other, _other.id == ComparedOutputRow.other_audit_id)
        .where(*mine)
    )


def _number_where(condition: ColumnElement[bool]) -> ColumnElement[Any]:
    return func.sum(case((condition, 1), else_=0))


#: Losses per token compare where both models cut the output alike.
_SAME_TOKENS = (_one.tokens == _other.tokens) & _one.loss_nats.is_not(None) & _other.loss_nats.is_not(None)
_COUNTS = ("outputs", "stayed", "gone", "came", "unmoved", "top_changed", "source_changed", "loss_outputs")
_LOSSES = ("loss", "other_loss")
_TOTALS = (
    func.count().label("outputs"),
    *(func.sum(getattr(ComparedOutputRow, name)).label(name) for name in ("stayed", "gone", "came")),
    _number_where(ComparedOutputRow.moved == 0).label("unmoved"),
    _number_where(ComparedOutputRow.top_changed.is_(True)).label("top_changed"),
    _number_where(_one.top_source.is_distinct_from(_other.top_source)).label("source_changed"),
    func.sum(ComparedOutputRow.moved).label("moved_sum"),
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


def _sources(sums: Sums) -> list[SourceShift]:
    """Every source with a citation under either bundle, those whose first citations moved most first."""
    cited, other_cited = sums.cited, sums.other_cited
    before, after, kept = (defaultdict[str | None, int](int) for _ in range(3))
    for one, other, number in sums.firsts:
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


def _by_source(audit_id: Any, *mine: ColumnElement[bool]) -> Select[str, int]:
    return (
        select(Citation.source, func.count().label("number"))
        .join(ComparedOutputRow, audit_id == Citation.audit_id)
        .where(*mine, Citation.rank > 0)
        .group_by(Citation.source)
    )
