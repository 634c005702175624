"""The page of one audit, what it links to, and what can be asked for on it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

from db.access.keys import Scope
from db.bundles import catalogue
from db.measuring import group_measurements, measurements
from db.reading import neighbours, reader
from db.remedies import fix_lists, fix_rows, hypotheticals
from db.remedies.fix_lists import NamedList
from db.reviewing import reviews
from web.asking import reviewed
from web.asking.forms import Form, form_of
from web.asking.measuring import check_measurable
from web.desk.computed import computed_facts
from web.desk.way import Way, way_of
from web.drawing import effects, evidence
from web.drawing.folding import folded
from web.drawing.lit import lit_output
from web.drawing.plots import score_plot
from web.drawing.render import render
from web.drawing.shorten import Part
from web.drawing.state_words import STATE_MEANINGS, WAITS_FOR_BUNDLE
from web.errors import code_meanings
from web.guard.caller import Caller
from web.guard.security import needs
from web.json_api.api import Id, Rank, Shared
from web.services import Services
from wherefrom.errors import InvalidRequest, UnknownModel
from wherefrom.records import (
    SIGN_NOT_DETERMINED,
    AuditDetail,
    AuditNeighbours,
    AuditSummary,
    BundleInfo,
    FixAction,
    GroupRequest,
    Method,
    QueueItem,
    QueueSummary,
    Tier,
    utc_now,
    weak_text,
)
from wherefrom.records.bounds import MAX_SOURCE

router = APIRouter(include_in_schema=False, dependencies=[Depends(needs(Scope.READ))])

#: Other audits with the same first citation that the page lists.
SAME_FIRST = 5


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
    database = services.database
    detail = reader.get_audit(database, audit_id)
    query = f"?{request.url.query}" if request.url.query else ""
    bundle = _bundle(services, detail)
    return render(
        "audit.html",
        request,
        detail=detail,
        audit=detail.audit,
        work=work,
        way=_no_way() if work else way_of(request, database, audit_id),
        supposed=hypotheticals.hypotheticals_of(database, audit_id) if caller.sees_all else [],
        can_suppose=caller.may(Scope.MEASURE) and bool(detail.completion) and detail.audit.members is None,
        same_first=_same_first(services, detail) if caller.sees_all else [],
        computed=computed_facts(detail, bundle),
        asked_of=bundle.model if bundle is not None and bundle.model != detail.audit.model else None,
        address=f"{str(request.base_url).rstrip('/')}/audits/{audit_id}",
        printed_at=utc_now(),
        can_measure=services.settings.recipe is not None and bool(detail.completion),
        fixing=_fixing(services, detail, caller),
        found=reviewed.found_view(
            reviews.reviews_of(database, audit_id), detail, caller=caller, page=request.url.path + query
        ),
        **_texts(detail),
        **_citations(detail),
        **_states(detail),
    )


@dataclass(frozen=True)
class Fixing:
    """What the page needs so that citations can be ticked into a fix list."""

    lists: Sequence[NamedList]
    #: Of each training example the lists that it is on: number, name, decision.
    on_lists: Mapping[int, Sequence[tuple[int, str, FixAction]]]
    actions: Sequence[FixAction] = tuple(FixAction)


def _fixing(services: Services, detail: AuditDetail, caller: Caller) -> Fixing | None:
    """None for those who may decide nothing, and where nothing is cited."""
    cited = [one.training_example_id for one in (*detail.citations, *detail.opponents)]
    if not cited or caller.person is None or not caller.sees_all:
        return None
    lists = fix_lists.named_lists(services.database)
    on_lists = fix_rows.actions_on(services.database, cited) if lists else {}
    return Fixing([one for one in lists if one.is_open], on_lists)


def _texts(detail: AuditDetail) -> dict[str, Any]:
    """What the page shows of the output."""
    completion = lit_output(detail.completion, detail.citations, detail.spans)
    preferred = evidence.plain_segments(detail.preferred or "")
    turns_skipped, turns = evidence.turn_views(detail.turns)
    shown: tuple[Sequence[Part], ...] = (completion, preferred, *(turn.content for turn in turns))
    return {
        "completion": completion,
        "lit": any(one.level for one in completion),
        "preferred": preferred,
        "turns": turns,
        "turns_skipped": turns_skipped,
        "shortened": bool(turns_skipped) or evidence.is_shortened(*shown),
        "erased": not detail.completion and not detail.turns and detail.audit.members is None,
    }


def _citations(detail: AuditDetail) -> dict[str, Any]:
    """What the page shows of the citations and of what was measured about them."""
    citations, opponents = evidence.citation_views(detail)
    ranks = [one.rank for one in (*detail.citations, *detail.opponents)]
    return {
        "citations": citations,
        "folds": folded(citations),
        "opponents": opponents,
        "shares": evidence.source_shares(detail.citations),
        "missing": missing_reasons(detail),
        "has_spans": any(view.marked for view in (*citations, *opponents)),
        "effects": effects.effects_by_rank(detail.measurements, ranks),
        "groups": [effects.group_view(one) for one in detail.group_measurements],
        "plot": score_plot(detail),
        "meanings": _MEANINGS,
        "tier_meanings": TIER_MEANINGS,
        "sign_not_determined": SIGN_NOT_DETERMINED,
        "weak_text": weak_text(detail.noise_best),
    }


def _states(detail: AuditDetail) -> dict[str, Any]:
    """Where the audit stands, in words."""
    waits = detail.audit.code == UnknownModel.code
    measured = (*detail.measurements, *detail.group_measurements)
    return {
        "unfinished": detail.audit.state.is_open or any(one.state.is_open for one in measured),
        "state_meaning": WAITS_FOR_BUNDLE if waits else STATE_MEANINGS[detail.audit.state],
        "code_meaning": code_meanings().get(detail.audit.code or ""),
    }


def _no_way() -> Way:
    """In a review queue, the queue says what comes next."""
    return Way(query="", words="", beside=AuditNeighbours())


def _same_first(services: Services, detail: AuditDetail) -> list[AuditSummary]:
    if not detail.citations:
        return []
    first = detail.citations[0].training_example_id
    return neighbours.same_first_citation(
        services.database, first, beside=detail.audit.audit_id, limit=SAME_FIRST
    )


def _bundle(services: Services, detail: AuditDetail) -> BundleInfo | None:
    name = detail.audit.bundle
    return None if name is None else catalogue.bundle_by_name(services.database, name)


@router.get("/audits/{audit_id}/text")
def audit_text(services: Shared, audit_id: Id) -> PlainTextResponse:
    """The whole text of a flagged output: its turns, then the answer."""
    detail = reader.get_audit(services.database, audit_id)
    turns = [f"[{turn.role.value}]\n{turn.content}" for turn in detail.turns]
    return PlainTextResponse("\n\n".join([*turns, f"[flagged answer]\n{detail.completion}"]))


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


def missing_reasons(detail: AuditDetail) -> list[tuple[str, str]]:
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

#: What each tier of evidence means.
TIER_MEANINGS = {
    Tier.RETRIEVED.value: "The projection found it; nothing exact was computed.",
    Tier.INFLUENCE.value: "Scored by the exact kernel. Nothing was measured yet.",
    Tier.MEASURED.value: "The model was updated with and without it, beside random controls.",
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
