"""Two bundles over the outputs that were audited under both, as people ask for it and read it. `db.comparison.comparing` works it out.

A small comparison is worked out when somebody looks. A large one is left to the sweeper; until it is done, what is known is told with its age.
What is known holds as long as the newest change in the trail is the one that it was worked out at, as for listings.
"""

import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, ScalarSelect, case, func, select
from sqlalchemy.orm import aliased

from db.audit_trail.reads import note_texts
from db.audit_trail.trail import NEWEST_CHANGE
from db.clock import db_now
from db.comparison import comparing
from db.counts import COUNTED_WORK
from db.models import (
    Audit,
    Bundle,
    BundleComparisonRow,
    ComparedOutputRow,
    FlaggedOutput,
    FlaggedText,
    ModelRevision,
)
from db.pages import Keyset
from db.parts import ROUND_S
from db.queues.leases import is_pending, is_running
from db.reading.asked import PATIENCE_S, is_wanted, note
from db.reading.reader import EXCERPT_CHARS
from db.session import Database
from wherefrom.errors import InvalidRequest, UnknownBundle
from wherefrom.records import BundleComparison, ComparedOutput, ComparisonSummary, Page

#: Outputs up to which whoever looks works a comparison out; above, the sweeper does.
SMALL = 2 * comparing.STEP


@dataclass(frozen=True)
class _Side:
    """One of the two bundles."""

    bundle_id: int
    name: str
    model: str
    corpus_id: int


@dataclass(frozen=True)
class _Known:
    """What is stored of a comparison, and whether it still holds."""

    row: BundleComparisonRow | None
    holds: bool
    #: Whether whoever looks works on it: it is small, or the sweeper does not answer.
    mine: bool


def compare_bundles(db: Database, bundle: str, other: str) -> BundleComparison:
    """What changed between two bundles, by their names; five statements where what is known holds.

    Raises:
        UnknownBundle: there is no bundle of one of the names.
        InvalidRequest: both names are the same.
    """
    one, another = _sides(db, bundle, other)
    known = _look(db, one, another)
    if not known.holds:
        comparison_id = _ask(db, one, another)
        if known.mine and comparison_id is not None:
            any(comparing.step(db, comparison_id) for _ in range(SMALL // comparing.STEP + 1))
        known = _look(db, one, another)
    with db.reading() as session:
        unanswered = session.scalar(select(_unanswered(one, another) + _unanswered(another, one)))
    row = known.row
    summary = None if row is None or row.summary is None else ComparisonSummary(**row.summary)
    return BundleComparison(
        bundle=one.name,
        other_bundle=another.name,
        model=one.model,
        other_model=another.model,
        same_corpus=one.corpus_id == another.corpus_id,
        unanswered=min(unanswered or 0, COUNTED_WORK),
        progress=None if known.holds else 0 if row is None else row.seen,
        summary=summary,
        as_of=None if row is None or summary is None else row.computed_at,
    )


def compared_outputs(
    db: Database, bundle: str, other: str, *, cursor: str | None = None, limit: int = 50
) -> Page[ComparedOutput]:
    """One page of the outputs that were compared, those whose citations moved most first; two statements.

    Raises:
        UnknownBundle: there is no bundle of one of the names.
        InvalidRequest: both names are the same.
        InvalidRecord: the cursor is not one that this list gave out.
    """
    one, another = _sides(db, bundle, other)
    audit, other_audit, pair = aliased(Audit), aliased(Audit), ComparedOutputRow
    query = (
        select(
            pair.flagged_output_id.label("output_id"),
            pair.audit_id,
            pair.other_audit_id,
            FlaggedOutput.reason.label("flag_reason"),
            func.coalesce(func.substr(FlaggedText.completion, 1, EXCERPT_CHARS), "").label("excerpt"),
            *(getattr(pair, name) for name in ("stayed", "gone", "came", "moved", "top_changed")),
            audit.top_source,
            other_audit.top_source.label("other_top_source"),
            audit.loss_nats,
            other_audit.loss_nats.label("other_loss_nats"),
        )
        .join(BundleComparisonRow, BundleComparisonRow.id == pair.comparison_id)
        .join(audit, audit.id == pair.audit_id)
        .join(other_audit, other_audit.id == pair.other_audit_id)
        .join(FlaggedOutput, FlaggedOutput.id == pair.flagged_output_id)
        .outerjoin(FlaggedText, FlaggedText.flagged_output_id == pair.flagged_output_id)
        .where(pair.comparison_id == _number_of(one, another))
    )
    order = Keyset(pair.moved, pair.flagged_output_id)
    with db.reading() as session:
        return order.read(session, query, cursor=cursor, limit=limit, record=_output)


def refresh(db: Database) -> int:
    """Go on with comparisons that somebody asked for since they were last worked out, for a while; how many were finished."""
    began, done = time.monotonic(), 0
    while time.monotonic() - began < ROUND_S:
        with db.reading() as session:
            number = session.scalar(_WANTED.limit(1))
        if number is None:
            break
        done += comparing.step(db, number)
    return done


_WANTED = (
    select(BundleComparisonRow.id)
    .where(is_wanted(BundleComparisonRow))
    .order_by(BundleComparisonRow.asked_at, BundleComparisonRow.id)
)


def _sides(db: Database, bundle: str, other: str) -> tuple[_Side, _Side]:
    if bundle == other:
        raise InvalidRequest("choose two different bundles")
    query = (
        select(Bundle.id, Bundle.name, ModelRevision.name.label("model"), Bundle.corpus_id)
        .join(ModelRevision, ModelRevision.id == Bundle.model_revision_id)
        .where(Bundle.name.in_([bundle, other]))
    )
    with db.reading() as session:
        found = {row.name: _Side(*row) for row in session.execute(query)}
    for name in (bundle, other):
        if name not in found:
            raise UnknownBundle(f"no bundle with name {name!r} is registered")
    return found[bundle], found[other]


def _of(one: _Side, other: _Side) -> tuple[ColumnElement[bool], ...]:
    return (
        BundleComparisonRow.bundle_id == one.bundle_id,
        BundleComparisonRow.other_bundle_id == other.bundle_id,
    )


def _number_of(one: _Side, other: _Side) -> ScalarSelect[int]:
    return select(BundleComparisonRow.id).where(*_of(one, other)).scalar_subquery()


def _look(db: Database, one: _Side, other: _Side) -> _Known:
    with db.reading() as session:
        row = session.scalars(select(BundleComparisonRow).where(*_of(one, other))).one_or_none()
        event, now = session.execute(select(NEWEST_CHANGE, db_now())).one()
    if row is None:
        return _Known(None, holds=False, mine=True)
    holds = row.summary is not None and row.next_at is None and row.newest_event == (event or 0)
    compared = 0 if row.summary is None else int(row.summary["outputs"])
    small = max(compared, row.seen) <= SMALL
    waits_since = max(row.first_asked_at, row.stepped_at or row.first_asked_at)
    late = row.summary is None and (now - waits_since).total_seconds() > PATIENCE_S
    return _Known(row, holds=holds, mine=small or late)


def _ask(db: Database, one: _Side, other: _Side) -> int | None:
    """Note that somebody looks; the comparison's number, or None where a lock is held: the next look is noted."""
    new = {"bundle_id": one.bundle_id, "other_bundle_id": other.bundle_id}
    empty = {"next_audit": 0, "seen": 0, "pass_event": 0, "newest_event": 0}
    unique = (BundleComparisonRow.bundle_id, BundleComparisonRow.other_bundle_id)
    # Whoever waits already has asked: how long the wait is counts from there.
    since = case((is_wanted(BundleComparisonRow), BundleComparisonRow.asked_at), else_=db_now())
    return note(db, BundleComparisonRow, new | empty, unique=unique, values={"asked_at": since})


def _unanswered(one: _Side, other: _Side) -> ColumnElement[Any]:
    """How many of the first audits under a bundle that are not answered have a counterpart under the other."""
    counts = []
    for state in (is_pending(Audit), is_running(Audit)):
        waiting = select(Audit.flagged_output_id).where(Audit.bundle_id == one.bundle_id, state)
        some = waiting.limit(COUNTED_WORK).subquery()
        counterpart = aliased(Audit)
        beside = (
            select(func.count())
            .select_from(some)
            .join(
                counterpart,
                (counterpart.flagged_output_id == some.c.flagged_output_id)
                & (counterpart.bundle_id == other.bundle_id),
            )
        )
        counts.append(beside.scalar_subquery())
    return counts[0] + counts[1]


def _output(row: RowMapping) -> ComparedOutput:
    """The output in a row; its excerpt is a read of the text, which both audits have."""
    note_texts((row["audit_id"], row["other_audit_id"]))
    return ComparedOutput(**{name: row[name] for name in ComparedOutput.model_fields})
