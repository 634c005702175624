"""The list of audits, the views of it that people keep, and what is done to all that it finds."""

from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from db.access.keys import Scope
from db.bundles import catalogue
from db.reading import listings, reader, saved_views, suggestions, visits
from db.reviewing import bulk
from db.storing import search
from web.asking.forms import Form, form_of
from web.asking.reauditing import reaudit_under
from web.asking.review_forms import (
    filter_of,
    filter_query,
    filter_words,
    needs_all,
    person_id_of,
    plain_filters,
    reviewer_of,
)
from web.drawing.labels import label_of, with_labels
from web.drawing.render import render
from web.drawing.state_words import STATE_MEANINGS
from web.filters import LINK_NAMES, AuditPageQuery, given_filters, link_query
from web.guard.caller import Caller
from web.guard.security import needs
from web.json_api.api import Id, Shared
from web.selecting import AskedFor, listing_of, selected
from web.services import Services
from wherefrom.errors import InvalidRequest
from wherefrom.records import (
    AuditListing,
    AuditOrder,
    AuditState,
    Judged,
    SavedViewRecord,
    Severity,
    Supported,
    Verdict,
    ViewDraft,
    filter_help,
)
from wherefrom.statistics import DEFAULT_FDR

router = APIRouter(include_in_schema=False, dependencies=[Depends(needs(Scope.READ))])

Reader = Annotated[Caller, Depends(needs(Scope.READ))]
Sent = Annotated[Form, Depends(form_of(Scope.READ))]
Judging = Annotated[Form, Depends(form_of(Scope.REVIEW))]

#: Filters that search texts: while texts are being indexed, they may miss some.
_SEARCHES = frozenset({"text", "in_prompt", "in_output", "in_cited"})
#: What of the form stands in sight; the rest is folded away until it is used.
_IN_SIGHT = frozenset(
    {"state", "text", "flag_reason", "source", "model", "severity", "fdr", "sort", "unseen"}
)


@router.get("/")
def audits(request: Request, services: Shared, caller: Reader, asked: AskedFor) -> HTMLResponse:
    """The list of audits with its filters and a summary of the queue."""
    database, query = services.database, asked.query
    given = given_filters(request)
    page, facts, found = AuditListing(items=()), None, None
    if query is not None:
        found = selected(services, query, caller)
        facts = listings.facts(database, found.filters, level=query.fdr, wait=False)
        page = listing_of(services, query, found, facts)
        if caller.person is not None and query.cursor is None:
            visits.note_visit(database, caller.person.person_id)
    return render(
        "audits.html",
        request,
        status=HTTPStatus.OK if query is not None else HTTPStatus.UNPROCESSABLE_ENTITY,
        page=page,
        facts=facts,
        problems=asked.problems,
        given=given,
        right={name: value for name, value in given.items() if name not in asked.problems},
        folded=not any(name not in _IN_SIGHT for name in given),
        link=lambda **changes: link_query(given, **changes),
        selection="" if found is None else filter_query(found.filters),
        first_page=query is None or query.cursor is None,
        views=_views(services, caller, given),
        unindexed=search.unindexed(database) if _SEARCHES & given.keys() else 0,
        suggestions=suggestions.suggest(database),
        service_url=str(request.base_url).rstrip("/"),
        **_queue(services),
        **_choices(query),
    )


def _queue(services: Services) -> dict[str, Any]:
    """The strip above the list."""
    health = reader.queue_health(services.database)
    return {
        "health": health,
        "total": sum(health.states.values()),
        "unfinished": sum(count for state, count in health.states.items() if state.is_open),
        "more_unfinished": any(state.is_open for state in health.more_than),
        "states": list(AuditState),
        "state_meanings": STATE_MEANINGS,
        "bundles": catalogue.list_bundles(services.database),
    }


def _choices(query: AuditPageQuery | None) -> dict[str, Any]:
    """What the form offers to choose from."""
    rate = None if query is None else query.fdr
    return {
        "filter_help": filter_help,
        "label_of": label_of,
        "with_labels": with_labels,
        "severities": list(Severity)[::-1],
        "judged": list(Judged),
        "supported": list(Supported),
        "orders": list(AuditOrder),
        "order": AuditOrder.NEWEST if query is None else query.order,
        "rate": rate,
        "rates": sorted({0.01, 0.05, DEFAULT_FDR, 0.2} | ({rate} if rate else set())),
    }


def _views(services: Services, caller: Caller, given: dict[str, str]) -> list[tuple[SavedViewRecord, bool]]:
    """The reader's views, and whether each is the list in sight."""
    if caller.person is None:
        return []
    kept = saved_views.views_of(services.database, caller.person.person_id)
    return [(one, one.parameters == given) for one in kept]


@router.get("/views/{view_id}")
def view(services: Shared, view_id: Id) -> Response:
    """Lead to the list that a view keeps; its address can be shared."""
    parameters = saved_views.get_view(services.database, view_id).parameters
    return RedirectResponse(f"/{link_query(parameters)}", status_code=HTTPStatus.SEE_OTHER)


@router.post("/views")
def save(services: Shared, form: Sent) -> Response:
    """Keep the list in sight under a name."""
    given = {name: form.text(name, most=500) for name in LINK_NAMES if form.has(name)}
    name = form.text("view_name")
    if not name:
        raise InvalidRequest("give the view a name")
    me = reviewer_of(form.caller).person.person_id
    saved_views.save_view(services.database, me, ViewDraft(name=name, parameters=given))
    return RedirectResponse(f"/{link_query(given)}", status_code=HTTPStatus.SEE_OTHER)


@router.post("/views/{view_id}/delete")
def forget(services: Shared, view_id: Id, form: Sent) -> Response:
    """Forget a view."""
    saved_views.delete_view(services.database, view_id, reviewer_of(form.caller).person.person_id)
    return RedirectResponse("/", status_code=HTTPStatus.SEE_OTHER)


@router.get("/bulk")
def all_of_them(request: Request, services: Shared, caller: Reader, asked: AskedFor) -> HTMLResponse:
    """What can be done to every audit that a filter finds, and to how many."""
    if asked.query is None:
        raise InvalidRequest("; ".join(f"`{name}`: {what}" for name, what in asked.problems.items()))
    filters = selected(services, asked.query, caller).filters
    known = catalogue.list_bundles(services.database)
    under = next((one for one in known if one.name == request.query_params.get("under")), None)
    return render(
        "bulk.html",
        request,
        preview=bulk.preview(
            services.database, filters, person_id=person_id_of(caller), under=under.id if under else None
        ),
        bundles=known,
        under=under,
        words=filter_words(filters),
        given=plain_filters(filters),
        query=filter_query(filters),
        most=bulk.MOST,
        most_judged=bulk.MOST_JUDGED,
        verdicts=list(Verdict),
        told={name: request.query_params.get(name, "") for name in ("did", "changed", "left")},
    )


@router.post("/bulk/requeue")
def requeue(services: Shared, form: Judging) -> Response:
    """Send every audit of a filter that can be tried again back to the queue."""
    needs_all(form.caller)
    filters = filter_of(form)
    done = bulk.requeue(services.database, filters)
    services.notify(one.id for one in catalogue.list_bundles(services.database) if one.active)
    return _told(filters, did="requeue", changed=done.changed, left=done.left)


@router.post("/bulk/reaudit")
def reaudit(services: Shared, form: Judging) -> Response:
    """Audit every output of a filter under another bundle too."""
    needs_all(form.caller)
    filters, under = filter_of(form), form.text("under")
    if not under:
        raise InvalidRequest("choose a bundle")
    done = reaudit_under(services, form.caller, filters, under=under)
    return _told(filters, did="reaudit", changed=done.changed, left=done.left, under=under)


@router.post("/bulk/verdict")
def judge(services: Shared, form: Judging) -> Response:
    """Give one verdict on every answered audit of a filter that the reader has not judged."""
    needs_all(form.caller)
    filters, given = filter_of(form), form.text("give")
    if given not in set(Verdict):
        raise InvalidRequest("choose a verdict")
    comment, by = form.text("comment", most=4000), reviewer_of(form.caller)
    done = bulk.judge_all(services.database, filters, Verdict(given), comment, by=by)
    return _told(filters, did="verdict", changed=done.changed, left=done.left)


@router.post("/bulk/take-back")
def take_back(services: Shared, form: Judging) -> Response:
    """Take back the reader's verdicts on all audits of a filter as a whole."""
    needs_all(form.caller)
    filters = filter_of(form)
    done = bulk.take_back_all(services.database, filters, by=reviewer_of(form.caller))
    return _told(filters, did="take-back", changed=done.changed, left=done.left)


def _told(filters: Any, **told: object) -> Response:
    return RedirectResponse(
        f"/bulk?{urlencode(plain_filters(filters) | told)}", status_code=HTTPStatus.SEE_OTHER
    )
