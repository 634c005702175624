"""The pages of review queues: the list, one queue, making one, putting audits in, and working one off."""

from http import HTTPStatus
from typing import Annotated, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from db.access import people
from db.access.keys import Scope
from db.reviewing import agreement, review_queues, review_work
from web.asking.forms import Form, form_of
from web.asking.review_forms import (
    back_to,
    draft_of,
    filter_of,
    filter_query,
    filter_words,
    needs_all,
    person_id_of,
    plain_filters,
    reviewer_of,
)
from web.desk.audit_pages import Work, audit_page
from web.desk.blind import blind_page
from web.drawing.plots import calibration_plot
from web.drawing.render import render
from web.filters import AuditPageQuery
from web.guard.caller import Caller
from web.guard.security import needs
from web.json_api.api import MAX_ID, Id, Shared
from web.selecting import selected
from wherefrom.errors import NotFound
from wherefrom.records import AuditFilter, ItemState, QueueItem, QueueOrder

router = APIRouter(prefix="/review", include_in_schema=False)

#: Audits of a page of a queue, and most audits that one press assigns.
ITEMS, MOST_ASSIGNED = 50, 10_000
#: Up to here a preview counts.
PREVIEWED = 100_000

Action = Literal["remove", "restore", "unassign", "give-back"]
Who = Annotated[Caller, Depends(needs(Scope.REVIEW))]
Sent = Annotated[Form, Depends(form_of(Scope.REVIEW))]


class ItemsQuery(BaseModel):
    """Which items of a queue to show, and behind which one."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    state: ItemState = ItemState.OPEN
    after: int | None = Field(default=None, ge=1)


def see_other(where: str) -> Response:
    """Lead a browser to a page after a form was taken."""
    return RedirectResponse(where, status_code=HTTPStatus.SEE_OTHER)


@router.get("")
def queues(request: Request, services: Shared, caller: Who) -> HTMLResponse:
    """The queues that the reader may see, with what waits for them."""
    found = review_queues.list_queues(
        services.database, person_id=person_id_of(caller), sees_all=caller.sees_all
    )
    return render(
        "review.html", request, queues=found, filter_words=filter_words, counted=review_queues.COUNTED_ITEMS
    )


@router.get("/new")
def new(
    request: Request, services: Shared, caller: Who, query: Annotated[AuditPageQuery, Query()]
) -> HTMLResponse:
    """The form for a new queue; the filters in the address become its rule."""
    needs_all(caller)
    return _new_page(request, services, selected(services, query, caller).filters)


def _new_page(request: Request, services: Shared, filters: AuditFilter) -> HTMLResponse:
    return render(
        "review_new.html",
        request,
        given=plain_filters(filters),
        words=filter_words(filters),
        matching=review_queues.preview(services.database, filters, most=PREVIEWED),
        most=PREVIEWED,
        orders=list(QueueOrder),
    )


@router.post("/new")
def create(services: Shared, form: Sent) -> Response:
    """Make a queue, and let in what matches its rule now."""
    needs_all(form.caller)
    me = person_id_of(form.caller)
    queue_id = review_queues.create_queue(services.database, draft_of(form), created_by=me)
    review_queues.fill(services.database, queue_id)
    return see_other(f"/review/{queue_id}")


@router.get("/put")
def put(
    request: Request, services: Shared, caller: Who, query: Annotated[AuditPageQuery, Query()]
) -> HTMLResponse:
    """How many audits a filter finds, and the form that puts all of them into a queue."""
    needs_all(caller)
    filters = selected(services, query, caller).filters
    open_queues = [one for one in review_queues.list_queues(services.database) if one.closed_at is None]
    return render(
        "review_put.html",
        request,
        given=plain_filters(filters),
        words=filter_words(filters),
        back=f"/{filter_query(filters)}",
        matching=review_queues.preview(services.database, filters, most=PREVIEWED),
        most=PREVIEWED,
        queues=open_queues,
        people=people.list_people(services.database),
    )


@router.post("/put")
def put_in(services: Shared, form: Sent) -> Response:
    """Put every audit of a filter into a queue, and assign those that are new to it."""
    needs_all(form.caller)
    queue_id = form.number("queue") or 0
    added = review_queues.put_in(
        services.database,
        queue_id,
        filter_of(form),
        by=person_id_of(form.caller),
        assign_to=form.number("person"),
    )
    told = urlencode({"matched": added.matched, "added": added.added, "assigned": added.assigned})
    return see_other(f"/review/{queue_id}?{told}")


@router.get("/agreement")
def people_and_confidence(
    request: Request,
    services: Shared,
    caller: Who,
    queue: Annotated[int | None, Query(ge=1, le=MAX_ID)] = None,
) -> HTMLResponse:
    """What was stated against what people found blind, and how far people agree, in all or in one queue."""
    needs_all(caller)
    found = agreement.compare(services.database)
    return render(
        "agreement.html",
        request,
        comparison=found,
        plot=calibration_plot(found.by_confidence, found.measured),
        pairs=agreement.pairs(services.database, queue),
        queue=None if queue is None else review_queues.get_queue(services.database, queue),
    )


@router.get("/{queue_id}")
def queue(
    request: Request, services: Shared, queue_id: Id, *, caller: Who, query: Annotated[ItemsQuery, Query()]
) -> HTMLResponse:
    """One queue: its rule, its people and how far they are, and its audits in its order."""
    found = review_queues.get_queue(
        services.database, queue_id, person_id=person_id_of(caller), sees_all=caller.sees_all
    )
    items: list[QueueItem] = []
    if caller.sees_all:
        after = None if query.after is None else review_work.position(services.database, query.after)
        items = review_work.list_items(
            services.database, queue_id, state=query.state, after=after, limit=ITEMS + 1
        )
    return render(
        "review_queue.html",
        request,
        queue=found,
        words=filter_words(found.rule),
        rule_link=filter_query(found.rule) if found.rule else "",
        progress=review_work.progress(services.database, queue_id),
        items=items[:ITEMS],
        more=len(items) > ITEMS,
        state=query.state,
        first_page=query.after is None,
        people=people.list_people(services.database) if caller.sees_all else [],
        counted=review_queues.COUNTED_ITEMS,
        told={name: request.query_params.get(name, "") for name in ("matched", "added", "assigned")},
        ended="end" in request.query_params,
    )


@router.get("/{queue_id}/items/{item_id}")
def item(request: Request, services: Shared, queue_id: Id, item_id: Id, *, caller: Who) -> HTMLResponse:
    """One audit of a queue, with the way to the one before and the next."""
    database = services.database
    found = review_queues.get_queue(
        database, queue_id, person_id=person_id_of(caller), sees_all=caller.sees_all
    )
    here = review_work.get_item(database, queue_id, item_id)
    if not caller.sees_all and not review_work.may_see(
        database, item_id, reviewer_of(caller).person.person_id
    ):
        raise NotFound(f"review queue {queue_id} has no item {item_id}")
    before, following = review_work.neighbours(database, item_id)
    work = Work(found, here, before=before, following=following)
    if found.blind:
        return blind_page(request, services, work, caller=caller)
    return audit_page(request, services, here.audit.audit_id, caller=caller, work=work)


@router.post("/{queue_id}/next")
def take_next(services: Shared, queue_id: Id, form: Sent) -> Response:
    """Take the next audit of a queue, and open it."""
    me = reviewer_of(form.caller).person.person_id
    review_queues.get_queue(services.database, queue_id, person_id=me, sees_all=form.caller.sees_all)
    item_id = review_work.take_next(services.database, queue_id, me, members_only=not form.caller.sees_all)
    return see_other(
        f"/review/{queue_id}?end=1" if item_id is None else f"/review/{queue_id}/items/{item_id}"
    )


@router.post("/{queue_id}/fill")
def fill(services: Shared, queue_id: Id, form: Sent) -> Response:
    """Apply the rule of a queue now."""
    needs_all(form.caller)
    added = review_queues.fill(services.database, queue_id)
    return see_other(f"/review/{queue_id}?added={added}")


@router.post("/{queue_id}/close")
def close(services: Shared, queue_id: Id, form: Sent) -> Response:
    """Let nothing more enter a queue."""
    needs_all(form.caller)
    review_queues.close_queue(services.database, queue_id, by=person_id_of(form.caller))
    return see_other(f"/review/{queue_id}")


@router.post("/{queue_id}/members")
def add_member(services: Shared, queue_id: Id, form: Sent) -> Response:
    """Let somebody take audits of a queue by themselves."""
    needs_all(form.caller)
    review_queues.get_queue(services.database, queue_id)
    person_id = people.get_person(services.database, form.number("person") or 0).person_id
    review_queues.add_member(services.database, queue_id, person_id, by=person_id_of(form.caller))
    return see_other(f"/review/{queue_id}#people")


@router.post("/{queue_id}/assign")
def assign(services: Shared, queue_id: Id, form: Sent) -> Response:
    """Assign ticked audits, or the next ones of the queue, to somebody."""
    needs_all(form.caller)
    database, by = services.database, person_id_of(form.caller)
    person_id = people.get_person(database, form.number("person") or 0).person_id
    ticked = form.ticked("item")[:ITEMS]
    if ticked:
        mine = [review_work.get_item(database, queue_id, one).item_id for one in ticked]
        assigned = review_work.assign(database, mine, person_id, by=by)
    else:
        most = min(form.number("most") or 0, MOST_ASSIGNED)
        assigned = review_work.assign_open(database, queue_id, person_id, most=most, by=by)
    return see_other(f"/review/{queue_id}?assigned={assigned}")


@router.post("/{queue_id}/items/{item_id}/{action}")
def change(services: Shared, queue_id: Id, item_id: Id, *, action: Action, form: Sent) -> Response:
    """Take an audit out of a queue, put it back, or give it back."""
    database, by = services.database, person_id_of(form.caller)
    review_work.get_item(database, queue_id, item_id)
    if action == "give-back":
        review_work.unassign(database, item_id, reviewer_of(form.caller).person.person_id, by=by)
        return see_other(f"/review/{queue_id}")
    needs_all(form.caller)
    if action == "unassign":
        review_work.unassign(database, item_id, form.number("person") or 0, by=by)
    elif action == "restore":
        review_work.restore(database, item_id, by=by)
    else:
        review_work.remove(database, item_id, by=by)
    return see_other(back_to(form, f"/review/{queue_id}"))
