"""The HTTP API under `/v1`: flag outputs, read audits, training examples, sources, bundles and the queue.

Thin over `db.storing.intake` and `db.reading.reader`. Flagging answers after the commit: what got a 202 is in the database.
"""

from collections.abc import Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Path, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from db.access.keys import Scope
from db.bundles import catalogue
from db.measuring import group_measurements, measurements
from db.reading import reader, source_facts
from db.storing import intake
from web import body
from web.asking.measuring import check_measurable
from web.errors import documented
from web.filters import AuditQuery, PageQuery
from web.guard.budget import paying_outputs
from web.guard.caller import Caller
from web.guard.limited import check_sends
from web.guard.security import needs
from web.json_api import export
from web.json_api.openapi import FLAGGED_REQUEST, FLAGGED_RESPONSE_EXAMPLES
from web.selecting import listing
from web.services import Services, services_of
from wherefrom.errors import IdempotencyConflict, TransientError
from wherefrom.records import (
    AuditDetail,
    AuditListing,
    AuditState,
    BundleInfo,
    CitedBy,
    ExampleDetail,
    FlaggedRecord,
    GroupMeasurementRecord,
    GroupRequest,
    IntakeResult,
    MeasurementRecord,
    Method,
    Page,
    QueueHealth,
    SourceSummary,
)
from wherefrom.traceparent import TRACEPARENTS, read_listed

CHANNEL = "http"

#: Largest id that both databases hold.
MAX_ID = 2**63 - 1

READ_REFUSALS = documented(
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.UNPROCESSABLE_ENTITY,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.SERVICE_UNAVAILABLE,
)
_MISSING = documented(HTTPStatus.NOT_FOUND)

Shared = Annotated[Services, Depends(services_of)]
Reader = Annotated[Caller, Depends(needs(Scope.READ))]
Id = Annotated[int, Path(ge=1, le=MAX_ID)]
Rank = Annotated[
    int, Path(ge=-1000, le=1000, description="1, 2, ... for proponents; -1, -2, ... for opponents.")
]

ingest = APIRouter(prefix="/v1", tags=["flag"])
read = APIRouter(
    prefix="/v1", tags=["read"], dependencies=[Depends(needs(Scope.READ))], responses=READ_REFUSALS
)

measure = APIRouter(prefix="/v1", tags=["measure"])


class FlaggedAnswer(BaseModel):
    """What became of each record, in the order sent."""

    results: tuple[IntakeResult, ...]


class Examples(BaseModel):
    """Training examples with one id; one per corpus that holds it."""

    items: tuple[ExampleDetail, ...]


class Sources(BaseModel):
    """All data sources."""

    items: tuple[SourceSummary, ...]
    as_of: datetime | None = Field(
        default=None, description="When they were counted, in a large database; null: now."
    )


class Bundles(BaseModel):
    """All bundles that the service knows."""

    items: tuple[BundleInfo, ...]


@ingest.post(
    "/flagged",
    status_code=HTTPStatus.ACCEPTED,
    openapi_extra=FLAGGED_REQUEST,
    responses={
        202: {
            "description": "Stored.",
            "content": {"application/json": {"examples": FLAGGED_RESPONSE_EXAMPLES}},
        },
        **READ_REFUSALS,
        **documented(
            HTTPStatus.BAD_REQUEST,
            HTTPStatus.CONFLICT,
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        ),
    },
)
async def flag(
    request: Request,
    services: Shared,
    caller: Annotated[Caller, Depends(needs(Scope.INGEST))],
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=200)] = None,
) -> FlaggedAnswer:
    """Flag one output or many. The answer comes after they are stored.

    The same idempotency key with the same content gets the same ids again (`duplicate`), however often it is sent. With other content
    it is a `conflict`. A single record then gets 409. In a list, the result of that record is `conflict`, and the others are stored.
    A list with an invalid record is refused as a whole.
    """
    settings = services.settings
    body.check_content_type(request.headers.get("content-type"))
    raw = await body.read_body(request, limit_bytes=settings.body_limit_bytes)

    def take() -> FlaggedAnswer:
        value = body.parse_json(raw)
        records, alone = body.parse_records(
            value, max_records=settings.max_records_per_request, header_key=idempotency_key
        )
        traces = read_listed(request.headers.get(TRACEPARENTS), len(records))
        taken = _accept(records, alone=alone, caller=caller, services=services, traces=traces)
        return FlaggedAnswer(results=tuple(taken))

    async with services.lanes.store.slot():
        return await run_in_threadpool(take)


def _accept(
    records: Sequence[FlaggedRecord],
    *,
    alone: bool,
    caller: Caller,
    services: Services,
    traces: Sequence[str | None],
) -> Sequence[IntakeResult]:
    check_sends(caller, {record.model for record in records})
    with paying_outputs(services, caller, len(records)) as stored:
        results = intake.accept(
            services.database, records, producer=caller.producer, channel=CHANNEL, traces=traces
        )
        stored(sum(one.status == "accepted" for one in results))
    for result in results:
        services.metrics.count("intake_records_total", channel=CHANNEL, status=result.status)
    if alone and results[0].status == "conflict":
        raise IdempotencyConflict(
            f"the idempotency key {results[0].idempotency_key!r} was used before with other content; nothing was stored"
        )
    models = {
        record.model
        for record, result in zip(records, results, strict=True)
        if result.status == "accepted" and result.state is AuditState.PENDING
    }
    notify_of(services, models)
    return results


def notify_of(services: Services, models: set[str]) -> None:
    """Tell the workers of these models that there is work."""
    if not models:
        return
    try:
        bundle_ids = intake.active_bundle_ids(services.database, models)
    except (
        TransientError
    ):  # all is committed, so the caller is not told to send again; the sweeper sends the hints
        return
    services.notify(bundle_ids)


@read.get("/audits")
def audits(services: Shared, caller: Reader, query: Annotated[AuditQuery, Query()]) -> AuditListing:
    """Audits that pass all filters, newest first unless `sort` says otherwise. With `fdr`, each says whether it is supported within the whole listing."""
    return listing(services, query, caller)


@read.get(
    "/audits.jsonl",
    response_class=StreamingResponse,
    responses={200: {"description": "One audit per line.", "content": {"application/x-ndjson": {}}}},
)
def audits_jsonl(
    services: Shared, caller: Reader, query: Annotated[AuditQuery, Query()]
) -> StreamingResponse:
    """Every audit that passes the filters, one JSON object per line, newest first; `cursor` and `limit` are not used."""
    return export.jsonl(services, query, caller)


@read.get(
    "/audits.csv",
    response_class=StreamingResponse,
    responses={200: {"description": "A table with a header line.", "content": {"text/csv": {}}}},
)
def audits_csv(services: Shared, caller: Reader, query: Annotated[AuditQuery, Query()]) -> StreamingResponse:
    """Every audit that passes the filters as CSV. A `'` precedes everything that a spreadsheet would run as a formula."""
    return export.csv(services, query, caller)


@read.get("/audits/{audit_id}", responses=_MISSING)
def audit(services: Shared, audit_id: Id) -> AuditDetail:
    """One audit with the flagged output, its citations and its opponents."""
    return reader.get_audit(services.database, audit_id)


@measure.post(
    "/audits/{audit_id}/citations/{rank}/measure",
    status_code=HTTPStatus.ACCEPTED,
    responses={**READ_REFUSALS, **_MISSING},
)
def measure_citation(
    services: Shared,
    audit_id: Id,
    rank: Rank,
    *,
    caller: Annotated[Caller, Depends(needs(Scope.MEASURE))],
    method: Annotated[Method, Query(description="How to measure; all but `refit` are weak.")] = Method.REFIT,
) -> MeasurementRecord:
    """Request the measured effect of one citation: the model is retrained without it, beside controls.

    Answers at once with the measurement; it takes minutes to hours on a separate queue. A repeated request returns the same
    measurement; a dead one is queued again, and `last_code` and `last_reason` say why it failed. Where the recipe does not suit, nothing is queued.
    """
    expected = check_measurable(services, audit_id)
    found = measurements.request_measurement(
        services.database, audit_id=audit_id, rank=rank, method=method, requested_by=caller.name
    )
    return found.model_copy(update={"expected": expected}) if method is Method.REFIT else found


@measure.post(
    "/audits/{audit_id}/measure",
    status_code=HTTPStatus.ACCEPTED,
    responses={**READ_REFUSALS, **_MISSING, **documented(HTTPStatus.BAD_REQUEST)},
)
def measure_group(
    services: Shared,
    audit_id: Id,
    request: GroupRequest,
    *,
    caller: Annotated[Caller, Depends(needs(Scope.MEASURE))],
) -> GroupMeasurementRecord:
    """Request the measured effect of a group of training examples on an output: a list of ids, or all of one source.

    The model is retrained without all of them, beside groups that are like them. Answers at once, as the measurement of a citation does.
    """
    expected = check_measurable(services, audit_id)
    found = group_measurements.request_group(
        services.database, audit_id=audit_id, request=request, requested_by=caller.name
    )
    return found.model_copy(update={"expected": expected})


@read.get("/group-measurements/{measurement_id}", responses=_MISSING)
def group_measurement(services: Shared, measurement_id: Id) -> GroupMeasurementRecord:
    """One measurement of a group: its state and, when it is done, its effect with interval, controls and cost."""
    return group_measurements.get_group_measurement(services.database, measurement_id)


@read.get("/measurements/{measurement_id}", responses=_MISSING)
def measurement(services: Shared, measurement_id: Id) -> MeasurementRecord:
    """One measurement: its state and, when it is done, its effect with interval, controls and cost."""
    return measurements.get_measurement(services.database, measurement_id)


@read.get("/examples")
def examples(services: Shared, example_id: Annotated[str, Query(min_length=1, max_length=500)]) -> Examples:
    """Training examples by their id in the corpus; an empty list if none is stored."""
    if "\x00" in example_id:
        return Examples(items=())
    return Examples(items=tuple(reader.find_example(services.database, example_id)))


@read.get("/examples/{training_example_id}", responses=_MISSING)
def example(services: Shared, training_example_id: Id) -> ExampleDetail:
    """One training example with its text and how often it is cited."""
    return reader.get_example(services.database, training_example_id)


@read.get("/examples/{training_example_id}/cited-by", responses=_MISSING)
def cited_by(
    services: Shared, training_example_id: Id, query: Annotated[PageQuery, Query()]
) -> Page[CitedBy]:
    """The flagged outputs that cite this training example, strongest first."""
    size = query.size(services.settings.max_page_size)
    reader.get_example(
        services.database, training_example_id
    )  # an unknown example is not found, not cited by nobody
    return reader.cited_by(services.database, training_example_id, cursor=query.cursor, limit=size)


@read.get("/sources")
def sources(services: Shared) -> Sources:
    """How often the examples of each data source are cited."""
    found = source_facts.facts(services.database)
    return Sources(items=tuple(found.summaries), as_of=found.as_of)


@read.get("/bundles")
def bundles(services: Shared) -> Bundles:
    """All bundles with their cards, the active ones included."""
    return Bundles(items=tuple(catalogue.list_bundles(services.database)))


@read.get("/queue")
def queue(services: Shared) -> QueueHealth:
    """Audits by state, the age of the oldest pending one, and leases that ran out."""
    return reader.queue_health(services.database)
