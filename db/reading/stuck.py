"""What is stuck, and why: audits, and what else waits for a process or died of something. Of each kind and state the newest `LOOKED_AT` are looked at.

Exports do not stand here: they are sent while they are read, and nothing of them waits.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Select,
    SQLColumnExpression,
    String,
    cast,
    false,
    func,
    inspect,
    literal,
    null,
    select,
    union_all,
)
from sqlalchemy.orm import Session

from db.clock import db_after
from db.models import (
    Audit,
    Base,
    BundleComparisonRow,
    Citation,
    FlaggedText,
    GroupMeasurement,
    Measurement,
    WebhookDelivery,
    WhatIf,
)
from db.models.columns import BIG
from db.reading.asked import is_wanted
from db.reading.said import of_what_was_said
from wherefrom.errors import HANDED_BACK
from wherefrom.records import AuditState, DeliveryState, MeasurementState, Stuck, StuckKind, StuckWork

#: Rows of each state that are looked at for their codes.
LOOKED_AT = 5_000
#: What waits so long for a process is stuck, seconds.
WAITS_S = 900.0

_STATES = (AuditState.DEAD, AuditState.REJECTED, AuditState.PENDING)
_AUDITS = "audit"


def stuck(session: Session) -> tuple[tuple[Stuck, ...], tuple[StuckWork, ...]]:
    """Audits that are dead, rejected, or wait after a failure, by their codes, the most first; and the other work. One statement."""
    rows = session.execute(
        union_all(*map(_of_state, _STATES), *(one.counted() for one in _other_work()))
    ).all()
    return _audits([row for row in rows if row.what == _AUDITS]), _work(
        [row for row in rows if row.what != _AUDITS]
    )


def _of_state(state: AuditState) -> Select[Any]:
    """The newest audits of a state with their codes, and whether each can be tried again."""
    conditions = [Audit.state == state, of_what_was_said(Audit.id)]
    if state is AuditState.PENDING:
        conditions += [Audit.code.is_not(None), Audit.code != HANDED_BACK]  # nothing failed there
    retry = Audit.bundle_id.is_not(None) & FlaggedText.flagged_output_id.is_not(None)
    newest = (
        select(Audit.code, (retry & literal(state.is_requeuable)).label("retry"))
        .outerjoin(FlaggedText, FlaggedText.flagged_output_id == Audit.flagged_output_id)
        .where(*conditions)
        .order_by(Audit.created_at.desc(), Audit.id.desc())
        .limit(LOOKED_AT)
        .subquery()
    )
    by = (newest.c.code, newest.c.retry)
    named = (literal(_AUDITS).label("what"), literal(state.value).label("state"))
    return select(*named, *by, _NO_NUMBER.label("leads_to"), func.count().label("number")).group_by(*by)


_NO_NUMBER, _NO_CODE = cast(null(), BIG), cast(null(), String)


@dataclass(frozen=True, eq=False)
class _Look:
    """Rows of one kind of work that are stuck in one state."""

    kind: StuckKind
    state: MeasurementState
    table: type[Base]
    stuck: ColumnElement[bool]
    code: SQLColumnExpression[Any]
    #: Number of what a link leads to.
    leads_to: SQLColumnExpression[Any] = _NO_NUMBER

    def counted(self) -> Select[Any]:
        """How many of the newest rows there are, by code."""
        key: ColumnElement[int] = inspect(self.table).primary_key[0]
        newest = (
            select(self.code.label("code"), self.leads_to.label("leads_to"))
            .where(self.stuck)
            .order_by(key.desc())
            .limit(LOOKED_AT)
            .subquery()
        )
        return select(
            literal(self.kind.value).label("what"),
            literal(self.state.value).label("state"),
            newest.c.code,
            false().label("retry"),
            func.max(newest.c.leads_to).label("leads_to"),
            func.count().label("number"),
        ).group_by(newest.c.code)


def _other_work() -> Iterator[_Look]:
    """Measurements, what-ifs, comparisons of bundles and notices."""
    cited = select(Citation.audit_id).where(Citation.id == Measurement.citation_id).scalar_subquery()
    queues: tuple[tuple[Any, StuckKind, Any], ...] = (
        (Measurement, StuckKind.MEASUREMENT, cited),
        (GroupMeasurement, StuckKind.GROUP_MEASUREMENT, GroupMeasurement.audit_id),
        (WhatIf, StuckKind.WHAT_IF, WhatIf.id),
    )
    dead, pending = MeasurementState.DEAD, MeasurementState.PENDING
    for table, kind, leads_to in queues:
        yield _Look(kind, dead, table, table.state == dead, table.code, leads_to)
        late = (table.state == pending) & (table.created_at < db_after(-WAITS_S))
        yield _Look(kind, pending, table, late, table.code, leads_to)
    comparison, notice = BundleComparisonRow, WebhookDelivery
    waits_since = db_after(-WAITS_S)
    goes_on = comparison.stepped_at.is_not(None) & (comparison.stepped_at >= waits_since)
    late = is_wanted(comparison) & (comparison.asked_at < waits_since) & ~goes_on
    yield _Look(StuckKind.COMPARISON, pending, comparison, late, _NO_CODE)
    yield _Look(StuckKind.NOTICE, dead, notice, notice.state == DeliveryState.DEAD, notice.code)


def _audits(rows: Sequence[Any]) -> tuple[Stuck, ...]:
    looked_at = {state: sum(row.number for row in rows if row.state == state) for state in _STATES}
    audits: dict[tuple[AuditState, str | None], int] = {}
    retried: set[tuple[AuditState, str | None]] = set()
    for row in rows:
        key = (AuditState(row.state), row.code)
        audits[key] = audits.get(key, 0) + row.number
        if row.retry:
            retried.add(key)
    return tuple(
        Stuck(
            state=state,
            code=code,
            audits=number,
            more=looked_at[state] >= LOOKED_AT,
            retry=(state, code) in retried,
        )
        for (state, code), number in sorted(
            audits.items(), key=lambda one: (_STATES.index(one[0][0]), -one[1], one[0][1] or "")
        )
    )


def _work(rows: Sequence[Any]) -> tuple[StuckWork, ...]:
    looked_at: Counter[tuple[str, str]] = Counter()
    for row in rows:
        looked_at[row.what, row.state] += row.number
    kinds = list(StuckKind)
    found = [
        StuckWork(
            kind=StuckKind(row.what),
            state=MeasurementState(row.state),
            code=row.code,
            number=row.number,
            more=looked_at[row.what, row.state] >= LOOKED_AT,
            leads_to=row.leads_to,
        )
        for row in rows
    ]
    return tuple(
        sorted(found, key=lambda one: (kinds.index(one.kind), one.state, -one.number, one.code or ""))
    )
