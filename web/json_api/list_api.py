"""The API of lists of audits as a whole under `/v1`: how many a filter finds, saved views, and what is done to all of them."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response
from pydantic import BaseModel, Field

from db.bundles import catalogue
from db.reading import listings, saved_views
from db.reviewing import bulk
from web.asking.reauditing import reaudit_under
from web.asking.review_forms import checked, needs_all, person_id_of
from web.errors import DESK_REFUSALS
from web.filters import LINK_NAMES, AuditQuery, FilterQuery
from web.guard.caller import Caller
from web.json_api.api import Id, Reader, Shared
from web.json_api.review_api import Name, Who, judge_of
from web.json_body import body_of, documented_body
from web.selecting import selected
from web.services import Services
from wherefrom.errors import InvalidRequest
from wherefrom.records import (
    BulkAction,
    BulkPreview,
    BulkResult,
    ListingFacts,
    SavedViewRecord,
    Text,
    Verdict,
    ViewDraft,
)

router = APIRouter(prefix="/v1", tags=["lists"], responses=DESK_REFUSALS)


_Under = Annotated[Text, Field(min_length=1, max_length=200)] | None


class BulkQuery(AuditQuery):
    """Which audits, and which bundle they may be audited under too."""

    under: _Under = Field(
        default=None,
        description="Name of a bundle; the preview then says how many outputs can be audited under it too.",
        examples=["support-8"],
    )
    reviewer: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="Whose verdicts are counted, where no API key is asked for; with one, the person behind it.",
        examples=["ann"],
    )


class BulkRequest(FilterQuery):
    """What is done to every audit of a filter."""

    action: BulkAction = Field(description="What to do.", examples=[BulkAction.REQUEUE])
    give: Verdict | None = Field(default=None, description="The verdict to give, for the action `verdict`.")
    comment: str = Field(default="", max_length=4000, description="Why, for the action `verdict`.")
    under: _Under = Field(
        default=None,
        description="Name of the bundle to audit the outputs under too, for the action `reaudit`.",
    )


#: Bodies that the OpenAPI document describes.
BODIES: tuple[type[BaseModel], ...] = (BulkRequest, ViewDraft)


class Views(BaseModel):
    """Saved views."""

    items: tuple[SavedViewRecord, ...]


@router.get("/listing")
def listing(services: Shared, caller: Reader, query: Annotated[AuditQuery, Query()]) -> ListingFacts:
    """How many audits pass all filters, and with `fdr` how many are supported. Of a large list it may be some minutes old; `as_of` says."""
    found = selected(services, query, caller)
    facts = listings.facts(services.database, found.filters, level=query.fdr)
    if facts is None:
        raise RuntimeError("a listing that is waited for was not worked out")
    return facts


@router.get("/bulk")
def preview(services: Shared, caller: Reader, query: Annotated[BulkQuery, Query()]) -> BulkPreview:
    """How many audits of a filter each bulk action would change."""
    found = selected(services, query, caller)
    under = None if query.under is None else catalogue.bundle_by_name(services.database, query.under).id
    me = person_id_of(caller)
    if query.reviewer is not None:
        me = judge_of(services, caller, query.reviewer).person.person_id
    return bulk.preview(services.database, found.filters, person_id=me, under=under)


@router.post("/bulk", openapi_extra=documented_body(BulkRequest))
def change(
    services: Shared,
    caller: Who,
    body: Annotated[BulkRequest, Depends(body_of(BulkRequest))],
    reviewer: Name = None,
) -> BulkResult:
    """Do something to every audit of a filter, not only to those of a page; one call takes a bounded number and says what is left.

    `reaudit` also needs the scope `measure`: it costs as much as so many new audits.
    """
    needs_all(caller)
    if body.action is BulkAction.REAUDIT:
        return _reaudit(services, caller, body)
    if body.action is BulkAction.REQUEUE:
        done = bulk.requeue(services.database, body.to_filter())
        services.notify(one.id for one in catalogue.list_bundles(services.database) if one.active)
        return done
    if body.action is BulkAction.TAKE_BACK:
        by = judge_of(services, caller, reviewer)
        return bulk.take_back_all(services.database, body.to_filter(), by=by)
    if body.give is None:
        raise InvalidRequest("`give` names the verdict; set it")
    by = judge_of(services, caller, reviewer)
    return bulk.judge_all(services.database, body.to_filter(), body.give, body.comment, by=by)


def _reaudit(services: Services, caller: Caller, body: BulkRequest) -> BulkResult:
    if body.under is None:
        raise InvalidRequest("`under` names the bundle; set it")
    return reaudit_under(services, caller, body.to_filter(), under=body.under)


@router.get("/views")
def views(services: Shared, caller: Reader, reviewer: Name = None) -> Views:
    """The saved views of whoever asks."""
    me = judge_of(services, caller, reviewer).person.person_id
    return Views(items=tuple(saved_views.views_of(services.database, me)))


@router.post("/views", status_code=HTTPStatus.CREATED, openapi_extra=documented_body(ViewDraft))
def save(
    services: Shared,
    caller: Reader,
    body: Annotated[ViewDraft, Depends(body_of(ViewDraft))],
    reviewer: Name = None,
) -> SavedViewRecord:
    """Keep a list of audits under a name; a view of that name is replaced."""
    unknown = sorted(set(body.parameters) - set(LINK_NAMES))
    if unknown:
        raise InvalidRequest(f"{unknown[0]!r} is not a parameter of the list; see /openapi.json")
    checked(AuditQuery, body.parameters)
    me = judge_of(services, caller, reviewer).person.person_id
    return saved_views.save_view(services.database, me, body)


@router.delete("/views/{view_id}", status_code=HTTPStatus.NO_CONTENT)
def forget(services: Shared, view_id: Id, caller: Reader, reviewer: Name = None) -> Response:
    """Forget a view of one's own."""
    me = judge_of(services, caller, reviewer).person.person_id
    saved_views.delete_view(services.database, view_id, me)
    return Response(status_code=HTTPStatus.NO_CONTENT)
