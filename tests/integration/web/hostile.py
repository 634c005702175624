"""A corpus of attacks, and a desk on which every field that somebody can write holds one."""

from db.access import people
from db.measuring import measurements
from db.notices import outbox
from db.queues.audit_queue import AuditQueue, Finished
from db.queues.measurement_queue import MeasurementQueue
from db.queues.queue import Failure
from db.queues.what_if_queue import WhatIfQueue
from db.reading import saved_views
from db.remedies import fix_lists, fix_rows, hypotheticals, what_ifs
from db.reviewing import review_queues, reviews
from db.reviewing.reviews import Reviewer
from db.session import Database
from db.storing import intake
from tests.integration.web import story
from tests.integration.web.sequel import with_evidence
from wherefrom.errors import NO_SUPPORT
from wherefrom.records import (
    AuditFilter,
    AuditState,
    FixAction,
    FixChange,
    FixListDraft,
    FlaggedRecord,
    HypotheticalRequest,
    Message,
    Method,
    Notice,
    NoticeKind,
    QueueDraft,
    ReviewDraft,
    Role,
    Severity,
    TrainingExample,
    Verdict,
    Via,
    ViewDraft,
)

#: Each sets `owned` if a browser obeys it.
CORPUS = (
    "<script>owned=1</script>",
    "<img src=x onerror=owned=1>",
    "<svg/onload=owned=1>",
    "\"'><details open ontoggle=owned=1>",
    "' autofocus onfocus=owned=1 x='",
    "</textarea></title></style></script><script>owned=1</script>",
    "<iframe srcdoc='<script>top.owned=1</script>'></iframe>",
    "<base href=//evil.example/><link rel=stylesheet href=//evil.example/x>",
    "<math><mtext><table><mglyph><style><!--</style><img title='--><img src=x onerror=owned=1>'>",
    "javascript:owned=1",
    "{{7*7}}{% raw %}${7*7}",
    "<a href=javascript:owned=1 id=main data-live data-go=a>x</a>",
    "\u202e\u2066<b>\u2069\u200b",
)
#: Where a field takes much, all of it stands there.
LONG = " ".join(CORPUS)
#: What fits a name: it leaves attributes and elements, and has no slash, so that it may stand in a path.
SHORT = "\"'><img src=x onerror=owned=1><svg onload=owned=1><script>owned=1{{7*7}}"


def fill(db: Database) -> list[str]:
    """Put the attacks wherever somebody can write; the pages that show them."""
    bundle_id = _bundle(db)
    audit_id = _audit(db, bundle_id, reason=SHORT)
    _audit(db, bundle_id, reason=CORPUS[0], is_supported=False)
    eve = people.choose_local(db, SHORT)
    by = Reviewer(eve.ref, Via.LOCAL)
    for draft in (
        ReviewDraft(verdict=Verdict.CONFIRMED, comment=LONG),
        ReviewDraft(rank=1, verdict=Verdict.UNRELATED, comment=LONG, quote=CORPUS[1]),
    ):
        reviews.judge(db, audit_id, draft, by=by)
    queue_id, blind_id = (
        review_queues.create_queue(
            db,
            QueueDraft(name=f"{SHORT}{blind}", rule=AuditFilter(flag_reason=SHORT), blind=blind),
            created_by=eve.person_id,
        )
        for blind in (False, True)
    )
    review_queues.fill_all(db)
    list_id = fix_lists.create_list(db, FixListDraft(name=SHORT, note=LONG[:1000]), by=by)
    change = FixChange(source=SHORT, action=FixAction.FIX, reason=LONG[:1000])
    fix_rows.change_rows(db, list_id, change, by=by)
    saved_views.save_view(db, eve.person_id, ViewDraft(name=SHORT, parameters={"text": SHORT}))
    what_if_id = _what_if(db, list_id, bundle_id)
    _measurement(db, audit_id, bundle_id)
    supposed = hypotheticals.suppose(
        db, audit_id, HypotheticalRequest(completion=f"{LONG} supposed"), producer=SHORT
    )
    _notice(db)
    return [
        f"/audits/{audit_id + 1}",
        f"/audits/{audit_id}/compare/{supposed.audit_id}",
        f"/review/{queue_id}",
        f"/review/{queue_id}/items/1",
        f"/review/{blind_id}/items/2",
        f"/fix-lists/{list_id}",
        f"/what-ifs/{what_if_id}",
    ]


def _bundle(db: Database) -> int:
    return story.add_bundle(db, _corpus(), name=SHORT, model=SHORT)


def _corpus() -> list[TrainingExample]:
    return [
        story.example(row, SHORT, f"{LONG} {row}", f"{LONG} {row}").model_copy(
            update={"example_id": f"{SHORT}{row}", "fields": {SHORT: [LONG], "deep": {SHORT: LONG}}}
        )
        for row in range(4)
    ]


def _audit(db: Database, bundle_id: int, *, reason: str, is_supported: bool = True) -> int:
    """An answered audit of the hostile model."""
    record = FlaggedRecord(
        idempotency_key=f"{SHORT}{reason}"[:200],
        messages=(Message(role=Role.SYSTEM, content=LONG), Message(role=Role.USER, content=LONG)),
        completion=LONG,
        model=SHORT,
        reason=reason,
        severity=Severity.CRITICAL,
        labels={SHORT: LONG[:200], "b": SHORT},
        preferred=LONG,
    )
    (stored,) = intake.accept(db, [record], producer="local", channel="http")
    claim = AuditQueue(db).claim(bundle_id, limit=1, owner="w", lease_s=60)
    assert claim is not None
    answer = with_evidence(story.attribution(record, _corpus(), opponents=1))
    first = answer.citations[0].model_copy(update={"effect_basis": SHORT})
    answer = answer.model_copy(update={"citations": (first, *answer.citations[1:4])})
    done = Finished(claim.audits[0], answer, 1)
    if not is_supported:
        done = Finished(claim.audits[0], answer, 1, state=AuditState.ABSTAINED, code=NO_SUPPORT, reason=LONG)
    AuditQueue(db).finish([done])
    assert stored.audit_id is not None
    return stored.audit_id


def _what_if(db: Database, list_id: int, bundle_id: int) -> int:
    """One that could not be answered."""
    asked = what_ifs.ask(db, list_id, AuditFilter(flag_reason=SHORT), most=10, by=SHORT)[0]
    claimed = WhatIfQueue(db).claim(bundle_id, owner="w", lease_s=60)
    assert claimed is not None
    WhatIfQueue(db).fail(claimed.lease, Failure("internal_error", LONG), max_attempts=1)
    return asked.what_if_id


def _measurement(db: Database, audit_id: int, bundle_id: int) -> None:
    """One that failed."""
    measurements.request_measurement(db, audit_id=audit_id, rank=1, method=Method.REFIT, requested_by=SHORT)
    claimed = MeasurementQueue(db).claim(bundle_id, owner="w", lease_s=60)
    assert claimed is not None
    MeasurementQueue(db).fail(claimed.lease, Failure("internal_error", LONG), max_attempts=1)


def _notice(db: Database) -> None:
    with db.writing() as session:
        outbox.announce(session, Notice(kind=NoticeKind.SOURCE_BLAMED, subject=SHORT))
