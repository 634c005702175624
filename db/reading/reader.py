"""What auditors read: lists, one audit, one training example, the reverse question, sources, the queue.

Returns records, never rows. Every function runs a constant number of SQL statements, however much it finds.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    RowMapping,
    ScalarSelect,
    column,
    func,
    select,
    table,
)
from sqlalchemy.orm import InstrumentedAttribute, Session

from db.audit_trail.reads import note_texts
from db.audit_trail.trail import AUDIT_ENDS
from db.clock import db_now
from db.counts import COUNTED, count_at_most, count_states
from db.measuring.measurements import measurements_of
from db.models import Audit, Bundle, Citation, Corpus, FlaggedOutput, FlaggedText, TrailEvent, TrainingExample
from db.pages import Keyset
from db.queues.leases import expired, is_pending, live
from db.reading.finding_roots import finding_of
from db.reading.said import OTHER_AUDITS, of_what_was_said
from db.reading.selection import Narrowed, ways
from db.session import Database
from db.statements import AnySelect, unindexed
from db.storing.examples import storable_name
from db.storing.groups import members_of, newest_group
from db.storing.setups import ASKED_AGAIN
from wherefrom.errors import NotFound
from wherefrom.records import (
    AuditDetail,
    AuditFilter,
    AuditOrder,
    AuditState,
    AuditSummary,
    CitationRecord,
    CitedBy,
    ExampleDetail,
    GroupMeasurementRecord,
    MeasurementRecord,
    Page,
    QueueHealth,
    SourceSummary,
    carried_by,
    conclusion_of,
)

#: Events of the trail that `last_end` looks at.
LOOKED_BACK = 2_000
#: Characters of the completion that a list shows.
EXCERPT_CHARS = 160


def list_audits(
    db: Database,
    filters: AuditFilter,
    *,
    order: AuditOrder = AuditOrder.NEWEST,
    cursor: str | None = None,
    limit: int = 50,
    supported: float | None = None,
) -> Page[AuditSummary]:
    """One page of audits. One statement, and one before it where filters are looked up (`db.reading.selection`); of a text that many audits hold, up to six, and of an example that many cite, up to four.

    Args:
        db: The database.
        filters: Which audits.
        order: In which order; those by a number list only the audits that have it.
        cursor: `next_cursor` of the page before in the same order; None for the first page.
        limit: Most audits of the page.
        supported: Largest conformal p that is supported in the listing; only the filter `support` asks for it.

    Raises:
        InvalidRecord: the cursor is not one that this list gave out in this order.
    """
    with db.reading() as session:
        listed = keyset_of(order, Narrowed(()))
        for found in ways(session, filters, limit=supported, listed=listed, cursor=cursor):
            keyset, held = keyset_of(order, found), found.conditions
            query = select_audits(*SUMMARY)
            page = keyset.read(session, query, cursor=cursor, limit=limit, record=summary_of, conditions=held)
            if not found.partial or page.next_cursor is not None:
                break
    return page


def keyset_of(order: AuditOrder, found: Narrowed) -> Keyset:
    """The columns of an order. A few audits that are named by their ids are sorted; many are read in the order of its index."""
    major, falling = _ORDERS[order]
    name = None if order is AuditOrder.NEWEST else order.value
    sorted_by = None if found.few is None else unindexed(major)
    return Keyset(major, Audit.id, falling=falling, name=name, sorted_by=sorted_by)


def get_audit(db: Database, audit_id: int) -> AuditDetail:
    """One audit with the whole flagged output and its citations.

    Raises:
        NotFound: there is no audit with this id.
    """
    found = get_audits(db, [audit_id])
    if not found:
        raise NotFound(f"audit {audit_id} does not exist")
    return found[0]


def get_audits(db: Database, audit_ids: Sequence[int]) -> list[AuditDetail]:
    """The audits with these ids as wholes, in the order given; those that do not exist are left out. Three statements, and one for each group of outputs."""
    query = select_any_audits(*SUMMARY, *_DETAIL).where(Audit.id.in_(audit_ids))
    citations: dict[int, list[CitationRecord]] = defaultdict(list)
    measured: dict[int, list[MeasurementRecord]] = defaultdict(list)
    together: dict[int, list[GroupMeasurementRecord]] = defaultdict(list)
    with db.reading() as session:
        rows = {row["audit_id"]: row for row in session.execute(query).mappings()}
        if not rows:
            return []
        for audit_id, citation in _citations(session, list(rows)):
            citations[audit_id].append(citation)
        singles, groups = measurements_of(session, list(rows))
        members = {
            audit_id: members_of(session, row["output_id"])
            for audit_id, row in rows.items()
            if row["members"] is not None
        }
    for single in singles:
        measured[single.audit_id].append(single)
    for group in groups:
        together[group.audit_id].append(group)
    return [
        _detail(
            rows[one],
            citations[one],
            members=members.get(one, ()),
            measurements=tuple(measured[one]),
            group_measurements=tuple(together[one]),
        )
        for one in audit_ids
        if one in rows
    ]


def _detail(row: RowMapping, citations: Sequence[CitationRecord], **more: Any) -> AuditDetail:
    """The audit in a row that holds its summary and its detail."""
    empty = {"turns": (), "completion": "", "spans": (), "against": ()}
    found = AuditDetail(
        audit=summary_of(row),
        **{part.name: row[part.name] or empty.get(part.name, row[part.name]) for part in _DETAIL},
        citations=tuple(one for one in citations if one.rank > 0),
        opponents=tuple(one for one in reversed(citations) if one.rank < 0),
        **more,
    )
    return found.model_copy(update={"conclusion": conclusion_of(found)})


def get_example(db: Database, training_example_id: int) -> ExampleDetail:
    """One training example, with how many audits name it.

    Raises:
        NotFound: no example with this id is stored.
    """
    found = _examples(db, TrainingExample.id == training_example_id)
    if not found:
        raise NotFound(f"training example {training_example_id} does not exist")
    return found[0]


def find_example(db: Database, example_id: str) -> list[ExampleDetail]:
    """The stored training examples with this id of the corpus, newest corpus first; empty when there is none."""
    return _examples(db, TrainingExample.example_id == storable_name(example_id))


def cited_by(
    db: Database, training_example_id: int, *, cursor: str | None = None, limit: int = 50
) -> Page[CitedBy]:
    """One page of the audits that name a training example, highest score first; opponents (rank below 0) come last.

    Args:
        db: The database.
        training_example_id: The stored example.
        cursor: `next_cursor` of the page before; None for the first page.
        limit: Most audits of the page.

    Raises:
        InvalidRecord: the cursor is not one that this list gave out.
    """
    query = (
        select_audits(*SUMMARY, Citation.rank, Citation.score, Citation.influence_score)
        .join(Citation, Citation.audit_id == Audit.id)
        .where(Citation.training_example_id == training_example_id)
    )
    order = Keyset(Citation.score, Citation.audit_id)
    with db.reading() as session:
        return order.read(session, query, cursor=cursor, limit=limit, record=_cited_by)


def sources(db: Database) -> list[SourceSummary]:
    """All sources, those with the most first citations first. Only proponents count."""
    names = tuple(SourceSummary.model_fields)
    view = table("v_sources", *(column(name) for name in names))
    order = (view.c.first_citations.desc(), view.c.citations.desc(), view.c.source)
    with db.reading() as session:
        return [SourceSummary(**row) for row in session.execute(select(view).order_by(*order)).mappings()]


def queue_health(db: Database, *, most: int | None = None) -> QueueHealth:
    """Counts of all states up to `most`, or `COUNTED`, the age of the oldest pending audit, and leases that ran out and were not taken back yet.

    What somebody supposes counts in no state and in no age.
    """
    said = of_what_was_said(Audit.id)
    pending_since = select(Audit.created_at).where(is_pending(Audit), said).order_by(Audit.created_at)
    oldest: ScalarSelect[Any] = pending_since.limit(1).scalar_subquery()
    leases = count_at_most(COUNTED, expired(Audit))
    with db.reading() as session:
        counted = count_states(session, Audit, AuditState, said, most=most)
        now, since, lost = session.execute(select(db_now(), oldest, leases)).one()
    limit = most or COUNTED
    return QueueHealth(
        states={state: min(number, limit) for state, number in counted.items()},
        more_than=tuple(state for state, number in counted.items() if number > limit),
        oldest_pending_seconds=None if since is None else max(0.0, (now - since).total_seconds()),
        expired_leases=lost,
    )


def is_worked_on(db: Database) -> bool:
    """Whether somebody holds an audit under a lease that has not run out; one of what somebody supposes is work too."""
    with db.reading() as session:
        return session.scalar(select(Audit.id).where(live(Audit)).limit(1)) is not None


def last_end(db: Database) -> int | None:
    """Number of the newest trail event that ended an audit; None where the last `LOOKED_BACK` events hold none.

    It changes when any audit ends, and costs the same however many there are.
    """
    newest = (
        select(TrailEvent.id, TrailEvent.kind).order_by(TrailEvent.id.desc()).limit(LOOKED_BACK).subquery()
    )
    ends = select(func.max(newest.c.id)).where(newest.c.kind.in_(AUDIT_ENDS))
    with db.reading() as session:
        last: int | None = session.scalar(ends)
    return last


#: What each order sorts by, and whether it falls; ties by the audit's number in the same direction.
_ORDERS: dict[AuditOrder, tuple[InstrumentedAttribute[Any], bool]] = {
    AuditOrder.NEWEST: (Audit.created_at, True),
    AuditOrder.OLDEST: (Audit.created_at, False),
    AuditOrder.ANSWERED: (Audit.finished_at, True),
    AuditOrder.SEVERITY: (Audit.priority, False),
    AuditOrder.SCORE: (Audit.top_score, True),
    AuditOrder.SUPPORT: (Audit.conformal_p, False),
}

#: The columns of an `AuditSummary`, under its names.
SUMMARY = (
    Audit.id.label("audit_id"),
    Audit.flagged_output_id.label("output_id"),
    Audit.state.label("state"),
    Audit.code.label("code"),
    Audit.reason.label("reason"),
    FlaggedOutput.model.label("model"),
    Bundle.name.label("bundle"),
    FlaggedOutput.reason.label("flag_reason"),
    FlaggedOutput.severity.label("severity"),
    FlaggedOutput.channel.label("channel"),
    Audit.attempt.label("attempt"),
    Audit.truncated.label("truncated"),
    Audit.created_at.label("created_at"),
    Audit.finished_at.label("finished_at"),
    func.coalesce(func.substr(FlaggedText.completion, 1, EXCERPT_CHARS), "").label("excerpt"),
    Audit.top_source.label("top_source"),
    Audit.top_score.label("top_score"),
    FlaggedOutput.members.label("members"),
    Audit.conformal_p.label("conformal_p"),
    Audit.novelty_p.label("novelty_p"),
    Audit.weak.label("weak"),
)

#: What an `AuditDetail` has beyond its summary and its citations, under its names.
_DETAIL = (
    FlaggedOutput.idempotency_key.label("idempotency_key"),
    FlaggedOutput.erased_at.label("erased_at"),
    FlaggedOutput.erased_by.label("erased_by"),
    FlaggedOutput.occurred_at.label("occurred_at"),
    FlaggedOutput.labels.label("labels"),
    FlaggedText.turns.label("turns"),
    FlaggedText.completion.label("completion"),
    FlaggedText.spans.label("spans"),
    FlaggedText.preferred.label("preferred"),
    Audit.loss_nats.label("loss_nats"),
    Audit.tokens.label("tokens"),
    Audit.candidates.label("candidates"),
    Audit.noise_level.label("noise_level"),
    Audit.noise_best.label("noise_best"),
    FlaggedText.against.label("against"),
    newest_group(Audit.flagged_output_id).label("group_audit_id"),
    finding_of(Audit.id).label("finding_id"),
    *OTHER_AUDITS,
    Audit.seconds.label("seconds"),
    *ASKED_AGAIN,
)


def select_audits(*columns: Any) -> AnySelect:
    """A query over the audits of what was said, with what belongs to them; the text is gone where it was erased."""
    return select_any_audits(*columns).where(FlaggedOutput.hypothetical_of.is_(None))


def select_any_audits(*columns: Any) -> AnySelect:
    """The same with the audits of what somebody supposes."""
    return (
        select(*columns)
        .select_from(Audit)
        .join(FlaggedOutput, FlaggedOutput.id == Audit.flagged_output_id)
        .outerjoin(FlaggedText, FlaggedText.flagged_output_id == FlaggedOutput.id)
        .outerjoin(Bundle, Bundle.id == Audit.bundle_id)
    )


def select_examples(*columns: Any) -> AnySelect:
    """A query over stored training examples as wholes, each with the corpus that it is of; these columns come on top."""
    whole = (
        TrainingExample.id.label("training_example_id"),
        TrainingExample.example_id,
        TrainingExample.source,
        TrainingExample.prompt,
        TrainingExample.completion,
        TrainingExample.text_sha256,
        Corpus.sha256.label("corpus_sha256"),
    )
    return select(*whole, *columns).join(Corpus, Corpus.id == TrainingExample.corpus_id)


def summary_of(row: RowMapping) -> AuditSummary:
    """The summary in a row that holds the columns of `SUMMARY`; its excerpt is a read of the text."""
    note_texts((row["audit_id"],))
    return AuditSummary(**{part.name: row[part.name] for part in SUMMARY})


def _cited_by(row: RowMapping) -> CitedBy:
    return CitedBy(
        audit=summary_of(row), rank=row["rank"], score=row["score"], influence_score=row["influence_score"]
    )


def _citations(session: Session, audit_ids: Sequence[int]) -> Iterator[tuple[int, CitationRecord]]:
    """All citations of audits by rank, each with its audit: opponents from the weakest, then proponents from the strongest."""
    columns = {name: getattr(Citation, name, None) for name in CitationRecord.model_fields}
    columns |= {
        "example_id": TrainingExample.example_id,
        "prompt": TrainingExample.prompt,
        "completion": TrainingExample.completion,
        "text_sha256": TrainingExample.text_sha256,
        "erased_at": TrainingExample.erased_at,
        "erased_by": TrainingExample.erased_by,
    }
    query = (
        select(Citation.audit_id, *(one.label(name) for name, one in columns.items() if one is not None))
        .join(TrainingExample, TrainingExample.id == Citation.training_example_id)
        .where(Citation.audit_id.in_(audit_ids))
        .order_by(Citation.audit_id, Citation.rank)
    )
    for row in session.execute(query).mappings():
        yield row["audit_id"], _citation({name: value for name, value in row.items() if name != "audit_id"})


def _citation(row: Mapping[str, Any]) -> CitationRecord:
    """A citation; what older releases did not store is empty."""
    listed = ("spans", "overlaps", "modules", "member_influence", "alike")
    found = CitationRecord(**(dict(row) | {name: row[name] or () for name in listed}))
    return found.model_copy(update={"carried_by": carried_by(found.modules, found.influence_score)})


def _examples(db: Database, condition: ColumnElement[bool]) -> list[ExampleDetail]:
    number = (
        select(func.count())
        .where(Citation.training_example_id == TrainingExample.id, of_what_was_said(Citation.audit_id))
        .correlate(TrainingExample)
        .scalar_subquery()
    )
    further = (TrainingExample.fields, TrainingExample.erased_at, TrainingExample.erased_by)
    query = select_examples(*further, number.label("citations"))
    query = query.where(condition).order_by(TrainingExample.id.desc())
    with db.reading() as session:
        return [ExampleDetail(**row) for row in session.execute(query).mappings()]
