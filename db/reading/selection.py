"""Which audits a filter finds, as SQL; and the way there that does not read every audit.

`conditions` says what must hold. `narrow` looks first how many audits each filter finds that has an index of its own. Where it is a few, the
audits are named by their ids, and what follows costs as much as the few. Where it is many, the list is read in its order
until a page is full, and such a filter is only compared: SQLite would otherwise sort all that it finds.
"""

import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    SQLColumnExpression,
    and_,
    exists,
    false,
    func,
    literal,
    or_,
    select,
    union_all,
)
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from db.models import (
    Audit,
    Bundle,
    Citation,
    Finding,
    FindingOutput,
    FlaggedOutput,
    Person,
    Review,
    ReviewAssignment,
    ReviewItem,
    ReviewQueue,
    TrainingExample,
)
from db.pages import Keyset
from db.reading.finding_roots import ROOT
from db.reading.standing import standing
from db.statements import AnySelect, one_of, walked
from db.storing.intake import PRIORITY
from db.storing.search import Part, hits, holds
from wherefrom.records import AuditFilter, AuditState, ItemState, Judged, Supported

#: Audits that are few: so many are named by their ids and sorted.
FEW = 2_000
#: Audits that a search looks through before it asks the index of words, and after that has found many.
LOOKED_THROUGH = (250, 4_000)
_TEXTS = ("text", "in_prompt", "in_output", "in_cited")
#: Audits that are looked through for those that cite an example, where many do.
CITING_LOOKED_THROUGH = 10_000

#: Citations that say why an audit was flagged; opponents do not count.
_PROPONENT = Citation.rank > 0
ANSWERED = tuple(state for state in AuditState if state.is_answered)
#: An answered audit of one output, not of a group, whose members have audits of their own.
ANSWERED_ALONE = (Audit.state.in_(ANSWERED), FlaggedOutput.members.is_(None))


@dataclass(frozen=True)
class Narrowed:
    """A filter after its parts were looked up."""

    conditions: tuple[ColumnElement[bool], ...]
    #: All audits that can match; None where they are many.
    few: tuple[int, ...] | None = None
    #: The audits of `few` are not all that can match: a page of them counts only if there are more than fit.
    partial: bool = False


@dataclass(frozen=True, eq=False)
class _Part:
    """One filter: what must hold, and where it has an index of its own, the audits that it finds."""

    holds: ColumnElement[bool]
    #: The same for a list that is read in its order.
    passed: ColumnElement[bool] | None = None
    #: Selects ids of audits, the same one more than once perhaps, at most as many as it is told.
    finds: Callable[[int], Sequence[AnySelect]] | None = None
    #: The same for audits that are named by their ids: an index of this filter is no help there, and in the way.
    each: ColumnElement[bool] | None = None


def conditions(filters: AuditFilter, *, limit: float | None = None) -> list[ColumnElement[bool]]:
    """The filters that are given, as SQL over `select_audits`.

    Args:
        filters: The filters.
        limit: Largest conformal p that is supported in the listing of the other filters; None where none is. Only `support` asks for it.
    """
    return [one.holds for one in _parts(filters, limit)]


def narrow(session: Session, filters: AuditFilter, *, limit: float | None = None) -> Narrowed:
    """The same after looking up what is rare; at most one statement, none where no filter asks for it.

    Args:
        session: Where to read.
        filters: The filters.
        limit: See `conditions`.
    """
    parts = _parts(filters, limit)
    searched = [one for one in parts if one.finds is not None]
    if not searched:
        return Narrowed(tuple(one.holds for one in parts))
    found = dict(zip(searched, _look_up(session, searched), strict=True))
    sets = [ids for ids in found.values() if ids is not None]
    # What was found whole holds of every audit that is named, so it is not asked again.
    held = [one.holds if one.passed is None else one.passed for one in parts if found.get(one) is None]
    if not sets:
        return Narrowed(tuple(held))
    few = tuple(sorted(set.intersection(*sets)))
    return Narrowed((one_of(Audit.id, few) if few else false(), *held), few)


def ways(
    session: Session, filters: AuditFilter, *, limit: float | None, listed: Keyset, cursor: str | None
) -> Iterator[Narrowed]:
    """Ways to a page of a list, the next one where the one before does not fill it; the last one is not partial.

    A text that many audits hold, and an example that many cite, fill a page from the next audits of the list. To ask their index reads all that do.

    Args:
        session: Where to read.
        filters: The filters.
        limit: See `conditions`.
        listed: The order of the list.
        cursor: Where the page begins.
    """
    is_searched = any(getattr(filters, name) is not None for name in _TEXTS)
    cites = CITING_LOOKED_THROUGH if filters.example is not None else 0
    first, second = LOOKED_THROUGH if is_searched else (0, cites)
    if first:
        ids = listed.next_ids(session, cursor=cursor, limit=first)
        yield _among(ids, filters, limit, partial=len(ids) == first)
    found = narrow(session, filters, limit=limit)
    if second and found.few is None:
        ids = listed.next_ids(session, cursor=cursor, limit=second)
        yield _among(ids, filters, limit, partial=True)
    yield found


def _among(ids: Sequence[int], filters: AuditFilter, limit: float | None, *, partial: bool) -> Narrowed:
    """The filter over audits that are known by themselves; no statement."""
    held = [
        next(way for way in (one.each, one.passed, one.holds) if way is not None)
        for one in _parts(filters, limit)
    ]
    return Narrowed((one_of(Audit.id, ids) if ids else false(), *held), tuple(ids), partial=partial)


def _look_up(session: Session, parts: Sequence[_Part]) -> list[set[int] | None]:
    """The audits that each part finds; None where there are more than `FEW`."""
    looks = []
    for place, one in enumerate(parts):
        for look in one.finds(FEW + 1) if one.finds else ():
            limited = look.limit(FEW + 1).subquery()
            looks.append(select(literal(place).label("place"), limited.c[0].label("audit_id")))
    found: list[set[int]] = [set() for _ in parts]
    rows = [0 for _ in parts]
    for place, audit_id in session.execute(union_all(*looks)):
        rows[place] += 1
        found[place].add(audit_id)
    return [
        None if number > FEW or _TOO_MANY in ids else ids for number, ids in zip(rows, found, strict=True)
    ]


#: Stands for "more than a look-up names", where the number of its rows cannot tell.
_TOO_MANY = -1


def _parts(filters: AuditFilter, limit: float | None) -> list[_Part]:
    given = {name: getattr(filters, name) for name in type(filters).model_fields}
    made = [_PARTS[name](value) for name, value in given.items() if name in _PARTS and value is not None]
    if filters.support is not None:
        made.append(_Part(_supported(filters.support, limit)))
    made += [
        _Part(one)
        for one in (
            _cited_between(Citation.confidence, filters.confidence_min, filters.confidence_max),
            _cited_between(_EFFECT, filters.effect_min, filters.effect_max),
        )
        if one is not None
    ]
    return made


def _compared(
    column: InstrumentedAttribute[Any], compare: Callable[[Any, Any], ColumnElement[bool]] = operator.eq
) -> Callable[[Any], _Part]:
    """A column of the audit or its bundle: the indexes of the list begin with it."""
    return lambda value: _Part(compare(column, value), each=compare(walked(column), value))


def _of_bundle(name: str) -> _Part:
    return _compared(Audit.bundle_id)(select(Bundle.id).where(Bundle.name == name).scalar_subquery())


def _of_output(column: InstrumentedAttribute[Any]) -> Callable[[Any], _Part]:
    """A column of the output."""

    def part(value: Any) -> _Part:
        def finds(most: int) -> Sequence[AnySelect]:
            outputs = select(FlaggedOutput.id).where(column == value).limit(most)
            return (select(Audit.id).where(Audit.flagged_output_id.in_(outputs)),)

        return _Part(column == value, walked(column) == value, finds)

    return part


def _severity(value: Any) -> _Part:
    priority = PRIORITY[value]

    def finds(most: int) -> Sequence[AnySelect]:
        return (select(Audit.id).where(Audit.priority == priority).limit(most),)

    return _Part(Audit.priority == priority, walked(Audit.priority) == priority, finds)


def _score(*, least: float | None = None, most: float | None = None) -> _Part:
    def holds(column: SQLColumnExpression[Any]) -> ColumnElement[bool]:
        return column >= least if least is not None else column <= most

    def finds(limit: int) -> Sequence[AnySelect]:
        return (select(Audit.id).where(holds(Audit.top_score)).limit(limit),)

    return _Part(holds(Audit.top_score), holds(walked(Audit.top_score)), finds)


def _cites_source(value: str) -> _Part:
    mine = (Citation.source == value, _PROPONENT)

    def finds(most: int) -> Sequence[AnySelect]:
        return (select(Citation.audit_id).where(*mine).distinct().limit(most),)

    return _Part(exists().where(Citation.audit_id == Audit.id, *mine), None, finds)


def _cites_example(value: str) -> _Part:
    known = select(TrainingExample.id).where(TrainingExample.example_id == value)
    mine = (Citation.training_example_id.in_(known), _PROPONENT)

    def finds(most: int) -> Sequence[AnySelect]:
        return (select(Citation.audit_id).where(*mine).limit(most),)

    holds = exists().where(Citation.audit_id == Audit.id, *mine)
    # PostgreSQL takes every example for a rare one and would begin with all that cite it; OFFSET keeps it from that.
    each = select(literal(1)).where(Citation.audit_id == Audit.id, *mine).correlate(Audit).offset(0).exists()
    return _Part(holds, None, finds, each)


#: `hits` or `holds`.
_Searched = Callable[[SQLColumnExpression[Any], str, Sequence[Part]], ColumnElement[bool]]


def _stands_in(parts: Sequence[Part], *, cited: bool) -> Callable[[str], _Part]:
    """A text that is searched for: in the output itself, in cited training examples, or in either."""

    def part(text: str) -> _Part:
        def places(output: SQLColumnExpression[Any], compared: _Searched = hits) -> ColumnElement[bool]:
            found = [compared(output, text, parts)] if parts else []
            if cited:
                # With `hits` not correlated but for the audit: the training examples are looked up once.
                example = compared(walked(Citation.training_example_id), text, (Part.EXAMPLE,))
                found.append(exists().where(Citation.audit_id == Audit.id, _PROPONENT, example))
            return or_(*found)

        def finds(most: int) -> Sequence[AnySelect]:
            looks: list[AnySelect] = []
            if parts:
                looks.append(select(Audit.id).where(hits(Audit.flagged_output_id, text, parts, most=most)))
            if cited:
                example = hits(Citation.training_example_id, text, (Part.EXAMPLE,), most=most)
                looks.append(select(Citation.audit_id).where(example, _PROPONENT))
                # Examples that nobody cites count too: where they are too many, not all of them were looked at.
                known = select(TrainingExample.id).where(
                    hits(TrainingExample.id, text, (Part.EXAMPLE,), most=most)
                )
                looks.append(
                    select(literal(_TOO_MANY).label("too_many")).select_from(known.offset(FEW).subquery())
                )
            return looks

        output = Audit.flagged_output_id
        return _Part(places(output), places(walked(output)), finds, places(walked(output), holds))

    return part


def _judged(value: Judged) -> _Part:
    if value is Judged.NONE:
        return _Part(~exists().where(Review.audit_id == Audit.id, *standing()))
    mine = [*standing(), *([] if value is Judged.ANY else [Review.verdict == value.value])]

    def finds(most: int) -> Sequence[AnySelect]:
        return (select(Review.audit_id).where(*mine).limit(most),)

    return _Part(exists().where(Review.audit_id == Audit.id, *mine), None, finds)


def _assigned_to(name: str) -> _Part:
    mine = (
        ReviewItem.state != ItemState.REMOVED,
        ReviewAssignment.item_id == ReviewItem.id,
        ReviewAssignment.person_id.in_(select(Person.id).where(Person.name == name)),
    )

    def finds(most: int) -> Sequence[AnySelect]:
        return (select(ReviewItem.audit_id).where(*mine).limit(most),)

    return _Part(exists().where(ReviewItem.audit_id == Audit.id, *mine), None, finds)


def _in_queue(name: str) -> _Part:
    mine = (
        ReviewItem.state != ItemState.REMOVED,
        ReviewItem.queue_id.in_(select(ReviewQueue.id).where(ReviewQueue.name == name)),
    )

    def finds(most: int) -> Sequence[AnySelect]:
        return (select(ReviewItem.audit_id).where(*mine).limit(most),)

    return _Part(exists().where(ReviewItem.audit_id == Audit.id, *mine), None, finds)


def _in_finding(value: int) -> _Part:
    """A finding with all that stands in the same one: whoever kept the number of a part finds the whole."""
    named = aliased(Finding)
    root = select(func.coalesce(named.merged_into, named.id)).where(named.id == value).scalar_subquery()
    whole = select(Finding.id).where(root == ROOT)
    mine = (FindingOutput.finding_id.in_(whole),)

    def finds(most: int) -> Sequence[AnySelect]:
        return (select(FindingOutput.audit_id).where(*mine).limit(most),)

    return _Part(exists().where(FindingOutput.audit_id == Audit.id, *mine), None, finds)


def _supported(value: Supported, limit: float | None) -> ColumnElement[bool]:
    if value is Supported.WEAK:
        return Audit.weak.is_(True)
    if value is Supported.UNCALIBRATED:
        return and_(Audit.conformal_p.is_(None), *ANSWERED_ALONE)
    if value is Supported.UNSUPPORTED:
        return Audit.conformal_p.is_not(None) if limit is None else Audit.conformal_p > limit
    return false() if limit is None else Audit.conformal_p <= limit


_EFFECT = func.coalesce(Citation.measured_effect_nats, Citation.effect_nats)


def _cited_between(
    column: SQLColumnExpression[Any], least: float | None, most: float | None
) -> ColumnElement[bool] | None:
    """A citation whose value lies in a range; None where no end of it is given."""
    ends = [column >= least] if least is not None else []
    ends += [column <= most] if most is not None else []
    return exists().where(Citation.audit_id == Audit.id, _PROPONENT, *ends) if ends else None


#: What each filter means; those that belong together are put together in `_parts`.
_PARTS: dict[str, Callable[[Any], _Part]] = {
    "state": _compared(Audit.state),
    "code": _compared(Audit.code),
    "model": _of_output(FlaggedOutput.model),
    "bundle": _of_bundle,
    "flag_reason": _of_output(FlaggedOutput.reason),
    "severity": _severity,
    "top_source": _compared(Audit.top_source),
    "channel": _of_output(FlaggedOutput.channel),
    "since": _compared(Audit.created_at, operator.ge),
    "until": _compared(Audit.created_at, operator.le),
    "text": _stands_in((Part.PROMPT, Part.OUTPUT), cited=True),
    "in_prompt": _stands_in((Part.PROMPT,), cited=False),
    "in_output": _stands_in((Part.OUTPUT,), cited=False),
    "in_cited": _stands_in((), cited=True),
    "source": _cites_source,
    "example": _cites_example,
    "verdict": _judged,
    "assignee": _assigned_to,
    "in_queue": _in_queue,
    "finding": _in_finding,
    "score_min": lambda value: _score(least=value),
    "score_max": lambda value: _score(most=value),
}


def without_support(filters: AuditFilter) -> AuditFilter:
    """The listing over which `support` is judged: what the other filters find."""
    return filters.model_copy(update={"support": None})
