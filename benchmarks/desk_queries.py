"""What `benchmarks/desk.py` asks a database: what each page asks, and what the sweeper does behind it, by name."""

from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from sqlalchemy import select, update

from benchmarks import desk_data
from benchmarks.desk_further import FINDINGS, THIRD_NAME
from db.audit_trail import trail_chain, trail_reader
from db.bundles import catalogue
from db.clock import db_now
from db.comparison import comparisons
from db.counts import COUNTED_WORK
from db.grouping import finding_names, finding_work, findings
from db.models import Audit, Person
from db.reading import (
    blame,
    culprits,
    exporting,
    listings,
    neighbours,
    reader,
    source_facts,
    suggestions,
    support,
    today,
)
from db.reading.selection import ANSWERED
from db.remedies import fix_lists, fix_rows
from db.reviewing import agreement, bulk, review_queues, review_work, reviews
from db.session import Database
from wherefrom.records import AuditFilter, AuditOrder, AuditState, Judged, Severity, Supported, TrailFilter

Query = Callable[[Database], object]

#: The two bundles that are compared, and the query that `end_lately` comes before.
COMPARED, TODAY = ("bundle-2", THIRD_NAME), "page: Today"
#: Audits that end in the hour before Today is asked for, and audits that an export reads at once.
LAST_HOUR, EXPORTED = 5_000, 25


def _list(*, order: AuditOrder = AuditOrder.NEWEST, **filters: Any) -> Query:
    wanted = AuditFilter.model_validate(filters)

    def ask(db: Database) -> object:
        limit = listings.support_limit(db, wanted)
        return reader.list_audits(db, wanted, order=order, limit=50, supported=limit)

    return ask


def _deep(*, order: AuditOrder = AuditOrder.NEWEST, **filters: Any) -> Query:
    """The page in the middle, by a cursor that is made from the row there."""

    def ask(db: Database) -> object:
        return reader.list_audits(
            db, AuditFilter.model_validate(filters), order=order, cursor=_cursor(db, order), limit=50
        )

    return ask


_cursors: dict[tuple[str, AuditOrder], str | None] = {}


def _cursor(db: Database, order: AuditOrder) -> str | None:
    """The cursor of a page far inside; found once, before anything is timed."""
    key = (db.url_masked, order)
    if key not in _cursors:
        cursor = None
        for _ in range(20):
            cursor = reader.list_audits(db, AuditFilter(), order=order, cursor=cursor, limit=500).next_cursor
        _cursors[key] = cursor
    return _cursors[key]


def _example(db: Database, example_id: str) -> int:
    return reader.find_example(db, example_id)[0].training_example_id


def _lists(audits: int) -> dict[str, Query]:
    """Lists of audits."""
    since = desk_data.time_of(audits - 1_440)
    return {
        "list: newest": _list(),
        "list: page 201": _deep(),
        "list: oldest first": _list(order=AuditOrder.OLDEST),
        "list: most severe first": _list(order=AuditOrder.SEVERITY),
        "list: highest score first": _list(order=AuditOrder.SCORE),
        "list: best supported first": _list(order=AuditOrder.SUPPORT),
        "list: answered last, page 201": _deep(order=AuditOrder.ANSWERED),
        "list: one day": _list(since=since),
        "list: dead": _list(state=AuditState.DEAD),
        "list: a frequent reason": _list(flag_reason="refund_promise"),
        "list: a rare reason": _list(flag_reason=desk_data.RARE_REASON),
        "list: an unknown reason": _list(flag_reason="nobody"),
        "list: one of two models": _list(model="support-2"),
        "list: critical": _list(severity=Severity.CRITICAL),
        "list: cites a frequent source": _list(source="vendor_batch_00"),
        "list: cites a rare source": _list(source=desk_data.RARE_SOURCE),
        "list: first citation from a source": _list(top_source="vendor_batch_07"),
        "list: in a queue": _list(in_queue="refunds"),
        "list: confirmed": _list(verdict=Judged.CONFIRMED),
        "list: nobody judged": _list(verdict=Judged.NONE),
        "list: confidence from .99": _list(confidence_min=0.99),
        "list: score from .5 to .6": _list(score_min=0.5, score_max=0.6),
        "list: effect from .05 nats": _list(effect_min=0.05),
        "list: supported": _list(support=Supported.SUPPORTED),
        "list: six filters": _list(
            state=AuditState.DONE,
            flag_reason="tone",
            severity=Severity.HIGH,
            source="vendor_batch_01",
            model="support-1",
            score_min=0.2,
        ),
        "list: in a finding": _list(finding=1),
        "list: in a small finding": _list(finding=FINDINGS + 1),
    }


def _searches() -> dict[str, Query]:
    """Texts that are searched for, and the question which outputs cite an example."""
    rarely, often = "ex-0000001", "ex-0000003"
    return {
        "search: no hit": _list(text="nobodysaysthis"),
        "search: few hits": _list(text=desk_data.RARE_WORD),
        "search: few hits in cited texts": _list(in_cited=desk_data.RARE_CITED_WORD),
        "search: many hits": _list(text=desk_data.FREQUENT_WORD),
        "search: many hits, page 201": _deep(text=desk_data.FREQUENT_WORD),
        "search: two words": _list(text="refund word7"),
        "search: beginning of a word": _list(in_output="word12"),
        "reverse: an example rarely cited": lambda db: reader.cited_by(db, _example(db, rarely)),
        "reverse: an example often cited": lambda db: reader.cited_by(db, _example(db, often)),
        "reverse: as a filter": _list(example=often),
        "search: many hits in training texts": lambda db: blame.search_examples(db, desk_data.FREQUENT_WORD),
        "search: two words in training texts": lambda db: blame.search_examples(db, "refund word7"),
    }


def _pages(audits: int) -> dict[str, Query]:
    """What pages ask beyond a list."""
    one, tone = audits // 2, AuditFilter(flag_reason="tone")
    rare = AuditFilter(flag_reason=desk_data.RARE_REASON)
    return {
        "page: one audit": lambda db: reader.get_audit(db, one),
        "page: the audits beside one": lambda db: neighbours.beside_audit(db, AuditFilter(), one),
        "page: same first citation": lambda db: neighbours.same_first_citation(db, 4, beside=one, limit=10),
        "page: reviews of one audit": lambda db: reviews.reviews_of(db, one),
        "page: one example": lambda db: reader.get_example(db, 4),
        "page: rows beside an example": lambda db: neighbours.beside_example(db, 4),
        "page: the strip of states": reader.queue_health,
        "page: suggestions": suggestions.suggest,
        "page: bundles": catalogue.list_bundles,
        "page: count of all": lambda db: listings.facts(db, AuditFilter(), wait=False),
        "page: count of a reason": lambda db: listings.facts(db, tone, wait=False),
        "page: support of all": lambda db: listings.facts(db, AuditFilter(), level=0.1, wait=False),
        "page: preview of a bulk action": lambda db: bulk.preview(db, tone, person_id=1),
        "page: sources": source_facts.known,
        "page: one source": lambda db: source_facts.known_detail(db, "vendor_batch_03"),
        "page: culprits of all": lambda db: culprits.culprits(db, AuditFilter()),
        "page: culprits of a reason": lambda db: culprits.culprits(db, tone),
        "page: culprits of a rare reason": lambda db: culprits.culprits(db, rare),
        "page: findings": findings.list_findings,
        "page: a finding": lambda db: findings.get_finding(db, 1),
        "page: a small finding": lambda db: findings.get_finding(db, FINDINGS + 1),
        "page: queues": review_queues.list_queues,
        "page: one queue": lambda db: (
            review_queues.get_queue(db, 1),
            review_work.list_items(db, 1),
            review_work.progress(db, 1),
        ),
        "page: agreement": lambda db: (agreement.compare(db), agreement.pairs(db)),
        "page: fix lists": fix_lists.list_lists,
        "page: a fix list": lambda db: (
            fix_lists.get_list(db, 1),
            fix_rows.rows_of(db, 1, counted=fix_rows.COUNTED_OUTPUTS),
        ),
        "page: the trail": lambda db: (
            trail_chain.count_events(db, most=COUNTED_WORK),
            trail_reader.list_events(db, TrailFilter()),
        ),
        "page: two bundles": lambda db: comparisons.compare_bundles(db, *COMPARED),
        "page: outputs of two bundles": lambda db: comparisons.compared_outputs(db, *COMPARED),
    }


def _exports(audits: int) -> dict[str, Query]:
    """What an export reads at once."""
    ids = list(range(audits // 2, audits // 2 + EXPORTED))
    rare = AuditFilter(flag_reason=desk_data.RARE_REASON)
    return {
        "export: 25 whole audits": lambda db: reader.get_audits(db, ids),
        "export: first 500 examples of all": _examples(AuditFilter()),
        "export: first 500 examples of a reason": _examples(AuditFilter(flag_reason="tone")),
        "export: examples of a rare reason": _examples(rare),
    }


def _examples(filters: AuditFilter) -> Query:
    def ask(db: Database) -> object:
        return list(islice(exporting.cited_examples(db, listings.look_up(db, filters)), 500))

    return ask


def _jobs() -> dict[str, Query]:
    """What the sweeper does behind the pages."""
    return {
        "job: a part of the support of all": lambda db: next(support.judging(db, AuditFilter(), 0.1)),
        "job: what is new to group": lambda db: finding_work.read_round(db, 1),
        "job: words of a finding": lambda db: finding_names.name_finding(db, 1),
    }


def queries(audits: int) -> dict[str, Query]:
    """What is measured, by name; Today comes last, behind `end_lately`."""
    return {
        **_lists(audits),
        **_searches(),
        **_pages(audits),
        **_exports(audits),
        **_jobs(),
        TODAY: lambda db: today.today(db, person_id=1),
    }


def end_lately(db: Database) -> None:
    """Let the newest answers have come in the last hour, as where much is going on, and one reader's last visit be a day ago."""
    newest = select(Audit.id).where(Audit.state.in_(ANSWERED)).order_by(Audit.id.desc()).limit(LAST_HOUR)
    with db.writing() as session:
        now: datetime = session.execute(select(db_now())).scalar_one()
        for place, audit_id in enumerate(session.scalars(newest).all()):
            ended = now - timedelta(seconds=3500 * place / LAST_HOUR)
            session.execute(update(Audit).where(Audit.id == audit_id).values(finished_at=ended))
        session.execute(update(Person).values(seen_at=now - timedelta(days=1)))
