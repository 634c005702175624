"""The auditor's pages: plain links and forms, rendered here, complete without script.

Each route reads records, adds what `web.evidence` computes, and renders one template.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

from db import catalogue, group_measurements, measurements, reader, reviews
from db.keys import Scope
from web import card, effects, evidence, reviewed
from web.api import Id, Rank, Shared, listing
from web.caller import Caller
from web.errors import code_meanings
from web.filters import (
    LINK_NAMES,
    AuditPageQuery,
    CitedByPageQuery,
    SourcesPageQuery,
    link_query,
)
from web.forms import Form, form_of
from web.headers import CARD_CONTENT_SECURITY_POLICY
from web.health import readiness
from web.measuring import check_measurable
from web.render import render
from web.security import needs
from web.services import Services
from wherefrom.errors import InvalidRequest, NotFound, UnknownModel
from wherefrom.records import (
    SIGN_NOT_DETERMINED,
    AuditDetail,
    AuditState,
    AuditSummary,
    BundleInfo,
    GroupRequest,
    Judged,
    Method,
    Page,
    QueueItem,
    QueueSummary,
    Severity,
    Supported,
    filter_help,
    weak_text,
)
from wherefrom.records.bounds import MAX_SOURCE
from wherefrom.statistics import DEFAULT_FDR

router = APIRouter(include_in_schema=False, dependencies=[Depends(needs(Scope.READ))])

#: What each state means, in the words of the pages.
STATE_MEANINGS = {
    AuditState.PENDING: "Stored and waiting for a worker.",
    AuditState.RUNNING: "A worker is computing the citations.",
    AuditState.DONE: "The citations are stored.",
    AuditState.ABSTAINED: "The engine answered, but its citations are not supported.",
    AuditState.REJECTED: "The output cannot be audited. The reason says what to change.",
    AuditState.DEAD: "Every attempt failed. An operator must look at it.",
}
#: An audit whose model no bundle explains is `rejected` in the database, but not for good.
_WAITS_FOR_BUNDLE = "No bundle explains this model yet. When one is added, this audit runs by itself."


def given_filters(request: Request) -> dict[str, str]:
    """The filters as they stand in the address, so that links keep what was typed."""
    return {name: value for name in LINK_NAMES if (value := request.query_params.get(name, "").strip())}


@router.get("/")
def audits(request: Request, services: Shared, query: Annotated[AuditPageQuery, Query()]) -> HTMLResponse:
    """The list of audits with its filters and a summary of the queue."""
    page = listing(services, query)
    health = reader.queue_health(services.database)
    bundles = catalogue.list_bundles(services.database)
    given = given_filters(request)
    return render(
        "audits.html",
        request,
        page=page,
        health=health,
        total=sum(health.states.values()),
        unfinished=sum(count for state, count in health.states.items() if state.is_open),
        more_unfinished=any(state.is_open for state in health.more_than),
        given=given,
        filter_help=filter_help,
        link=lambda **changes: link_query(given, **changes),
        first_page=query.cursor is None,
        states=list(AuditState),
        state_meanings=STATE_MEANINGS,
        severities=list(Severity)[::-1],
        judged=list(Judged),
        supported=list(Supported),
        rates=_rates(query.fdr),
        suggestions=_suggestions(page, bundles),
        bundles=bundles,
        service_url=str(request.base_url).rstrip("/"),
    )


def _rates(asked: float | None) -> list[float]:
    """The false discovery rates that the form offers, the one in use among them."""
    return sorted({0.01, 0.05, DEFAULT_FDR, 0.2} | ({asked} if asked else set()))


def _suggestions(page: Page[AuditSummary], bundles: list[BundleInfo]) -> dict[str, list[str]]:
    """Values that the filters propose: those in view, which cost no query."""
    return {
        "model": sorted({bundle.model for bundle in bundles} | {one.model for one in page.items}),
        "flag_reason": sorted({one.flag_reason for one in page.items}),
        "source": sorted({one.top_source for one in page.items if one.top_source}),
        "bundle": sorted({bundle.name for bundle in bundles}),
        "channel": sorted({one.channel for one in page.items}),
        "assignee": [],
        "in_queue": [],
    }


@dataclass(frozen=True)
class Work:
    """An audit's place in a review queue, for the bar above it."""

    queue: QueueSummary
    item: QueueItem
    before: int | None
    following: int | None


@router.get("/audits/{audit_id}")
def audit(
    request: Request, services: Shared, audit_id: Id, caller: Annotated[Caller, Depends(needs(Scope.READ))]
) -> HTMLResponse:
    """One flagged output with its citations beside it."""
    return audit_page(request, services, audit_id, caller=caller)


def audit_page(
    request: Request, services: Services, audit_id: int, *, caller: Caller, work: Work | None = None
) -> HTMLResponse:
    """The page of one audit, alone or as the one at hand of a review queue."""
    detail = reader.get_audit(services.database, audit_id)
    citations, opponents = evidence.citation_views(detail)
    everything = (*detail.citations, *detail.opponents)
    completion = evidence.flagged_segments(detail.completion, detail.spans)
    preferred = evidence.plain_segments(detail.preferred or "")
    turns_skipped, turns = evidence.turn_views(detail.turns)
    shown = (completion, preferred, *(turn.content for turn in turns))
    return render(
        "audit.html",
        request,
        detail=detail,
        audit=detail.audit,
        completion=completion,
        preferred=preferred,
        turns=turns,
        turns_skipped=turns_skipped,
        shortened=bool(turns_skipped) or _is_shortened(*shown),
        citations=citations,
        opponents=opponents,
        shares=evidence.source_shares(detail.citations),
        missing=_missing(detail),
        has_spans=any(view.marked for view in (*citations, *opponents)),
        effects=effects.effects_by_rank(detail.measurements, [one.rank for one in everything]),
        groups=[effects.group_view(one) for one in detail.group_measurements],
        can_measure=services.settings.recipe is not None and bool(detail.completion),
        unfinished=detail.audit.state.is_open
        or any(one.state.is_open for one in (*detail.measurements, *detail.group_measurements)),
        erased=not detail.completion and not detail.turns,
        state_meaning=_WAITS_FOR_BUNDLE
        if detail.audit.code == UnknownModel.code
        else STATE_MEANINGS[detail.audit.state],
        code_meaning=code_meanings().get(detail.audit.code or ""),
        meanings=_MEANINGS,
        sign_not_determined=SIGN_NOT_DETERMINED,
        weak_text=weak_text(detail.noise_best),
        work=work,
        found=reviewed.found_view(
            reviews.reviews_of(services.database, audit_id), detail, caller=caller, page=request.url.path
        ),
    )


@router.get("/audits/{audit_id}/text")
def audit_text(services: Shared, audit_id: Id) -> PlainTextResponse:
    """The whole text of a flagged output: its turns, then the answer."""
    detail = reader.get_audit(services.database, audit_id)
    turns = [f"[{turn.role.value}]\n{turn.content}" for turn in detail.turns]
    return PlainTextResponse("\n\n".join([*turns, f"[flagged answer]\n{detail.completion}"]))


def _is_shortened(*texts: Sequence[evidence.Segment]) -> bool:
    return any(segment.left_out for text in texts for segment in text)


@router.post("/audits/{audit_id}/citations/{rank}/measure", dependencies=[Depends(needs(Scope.READ))])
def measure(
    services: Shared, audit_id: Id, rank: Rank, form: Annotated[Form, Depends(form_of(Scope.MEASURE))]
) -> Response:
    """Ask for a measured effect, and go back to the citation."""
    check_measurable(services, audit_id)
    measurements.request_measurement(
        services.database, audit_id=audit_id, rank=rank, method=Method.REFIT, requested_by=form.caller.name
    )
    return RedirectResponse(f"/audits/{audit_id}#citation-{rank}", status_code=HTTPStatus.SEE_OTHER)


@router.post("/audits/{audit_id}/measure", dependencies=[Depends(needs(Scope.READ))])
def measure_source(
    services: Shared, audit_id: Id, form: Annotated[Form, Depends(form_of(Scope.MEASURE))]
) -> Response:
    """Ask for the measured effect of all training examples of one source, and go back to the audit."""
    source = form.text("source", most=MAX_SOURCE)
    if not source:
        raise InvalidRequest("choose a source")
    check_measurable(services, audit_id)
    group_measurements.request_group(
        services.database,
        audit_id=audit_id,
        request=GroupRequest(source=source),
        requested_by=form.caller.name,
    )
    return RedirectResponse(f"/audits/{audit_id}#groups", status_code=HTTPStatus.SEE_OTHER)


def _missing(detail: AuditDetail) -> list[tuple[str, str]]:
    """What an answered audit does not say, each with the reason; nothing of a group, which has no such figures by design."""
    if detail.audit.members is not None:
        return []
    everything = (*detail.citations, *detail.opponents)
    said = {
        "effect": any(one.effect_nats is not None for one in everything),
        "confidence": any(one.confidence is not None for one in everything),
        "conformal": detail.audit.conformal_p is not None,
        "spans": any(one.spans for one in everything),
    }
    return [(name, reason) for name, reason in _WHY_MISSING.items() if not said[name]]


_WHY_MISSING = {
    "effect": "No predicted effect: this bundle has no bank of retrained models on which to fit a scale "
    "(`wherefrom bank`, then `wherefrom calibrate --bank`).",
    "confidence": "No confidence: this bundle was not calibrated on outputs with known causes (`wherefrom calibrate --known`).",
    "conformal": "No conformal p: this bundle has no scores of control outputs. It cannot say whether the best citation "
    "is better than chance, and it never abstains (`wherefrom calibrate --controls`).",
    "spans": "No marked text: the engine that answered stored none.",
}

_MEANINGS = (
    ("Score", evidence.ORDER_MEANING),
    ("Influence", evidence.INFLUENCE_MEANING),
    ("Word overlap", evidence.BM25_MEANING),
    ("Similarity", evidence.SIMILARITY_MEANING),
    ("Encoder", evidence.ENCODER_MEANING),
    ("Projection", evidence.RETRIEVAL_MEANING),
    ("Full tier", evidence.EKFAC_MEANING),
    ("Effect", evidence.EFFECT_MEANING),
    ("Confidence", evidence.CONFIDENCE_MEANING),
    ("Parts of the model", evidence.PARTS_MEANING),
)


@router.get("/examples/{training_example_id}")
def example(
    request: Request, services: Shared, training_example_id: Id, query: Annotated[CitedByPageQuery, Query()]
) -> HTMLResponse:
    """One training example with the flagged outputs that cite it."""
    detail = reader.get_example(services.database, training_example_id)
    size = query.size(services.settings.max_page_size)
    page = reader.cited_by(services.database, training_example_id, cursor=query.cursor, limit=size)
    prompt, completion = map(evidence.plain_segments, (detail.prompt, detail.completion))
    return render(
        "example.html",
        request,
        detail=detail,
        prompt=prompt,
        completion=completion,
        shortened=_is_shortened(prompt, completion),
        page=page,
        first_page=query.cursor is None,
    )


@router.get("/examples/{training_example_id}/text")
def example_text(services: Shared, training_example_id: Id) -> PlainTextResponse:
    """The whole text of a training example."""
    detail = reader.get_example(services.database, training_example_id)
    return PlainTextResponse("\n\n".join(one for one in (detail.prompt, detail.completion) if one))


@router.get("/examples")
def find_example(
    request: Request, services: Shared, example_id: Annotated[str, Query(max_length=500)] = ""
) -> Response:
    """Find a training example by the id of its corpus; one hit leads straight to its page."""
    wanted = example_id.strip()
    usable = bool(wanted) and "\x00" not in wanted
    found = list(reader.find_example(services.database, wanted)) if usable else []
    if len(found) == 1:
        return RedirectResponse(f"/examples/{found[0].training_example_id}", status_code=HTTPStatus.SEE_OTHER)
    return render("find_example.html", request, wanted=wanted, found=found)


@router.get("/sources")
def sources(request: Request, services: Shared, query: Annotated[SourcesPageQuery, Query()]) -> HTMLResponse:
    """Which data sources are cited most, relative to their size."""
    views = list(evidence.source_views(list(reader.sources(services.database))))
    if query.sort == "source":
        views.sort(key=lambda view: view.record.source)
    elif query.sort != "lift":
        views.sort(key=lambda view: (-getattr(view.record, query.sort), view.record.source))
    top_lift = max((view.lift or 0.0 for view in views), default=0.0)
    return render("sources.html", request, views=views, sort=query.sort, top_lift=top_lift)


@router.get("/bundles")
def bundles(request: Request, services: Shared) -> HTMLResponse:
    """The bundles that explain the models, each with its card."""
    found = sorted(catalogue.list_bundles(services.database), key=lambda one: (not one.active, -one.id))
    return render(
        "bundles.html", request, bundles=found, not_learned=card.not_learned, calibrated=card.calibrated
    )


@router.get("/bundles/{name}")
def bundle(request: Request, services: Shared, name: Annotated[str, Path(max_length=200)]) -> HTMLResponse:
    """The card of one bundle: everything that was measured of it."""
    if "\x00" in name:
        raise NotFound("this bundle does not exist")
    found = catalogue.bundle_by_name(services.database, name)
    return render(
        "bundle.html",
        request,
        headers={"Content-Security-Policy": CARD_CONTENT_SECURITY_POLICY},
        bundle=found,
        not_learned=card.not_learned,
        calibrated=card.calibrated,
        sections=card.card_sections(found.card),
        plots=card.card_plots(found.card),
    )


@router.get("/queue")
def queue(request: Request, services: Shared) -> HTMLResponse:
    """Is the work getting done: audits by state, ages, and what the service needs."""
    health = reader.queue_health(services.database)
    return render(
        "queue.html",
        request,
        health=health,
        total=sum(health.states.values()),
        unfinished=sum(count for state, count in health.states.items() if state.is_open),
        more_unfinished=any(state.is_open for state in health.more_than),
        states=list(AuditState),
        state_meanings=STATE_MEANINGS,
        readiness=readiness(services),
        lease_seconds=services.settings.lease_seconds,
    )
