"""The trail, for programs and on a page: who did what, and who read which text."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import HTMLResponse
from pydantic import ConfigDict, ValidationInfo, field_validator

from db.access.keys import Scope
from db.audit_trail import trail_chain, trail_reader
from db.audit_trail.trail import TrailKind
from db.counts import COUNTED_WORK
from web.drawing.render import render
from web.filters import PageQuery, moment_of, no_empty
from web.guard.security import needs
from web.json_api.api import READ_REFUSALS, Shared
from wherefrom.records import Page, TrailFilter, TrailRecord

api = APIRouter(
    prefix="/v1", tags=["read"], dependencies=[Depends(needs(Scope.READ))], responses=READ_REFUSALS
)
pages = APIRouter(include_in_schema=False, dependencies=[Depends(needs(Scope.READ))])

_NAMES = tuple(TrailFilter.model_fields)


class TrailQuery(TrailFilter, PageQuery):
    """The filters of the trail as parameters; days count whole, and empty values are not set."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator(*_NAMES, mode="before")
    @classmethod
    def _given(cls, value: object, info: ValidationInfo) -> object:
        if info.field_name in {"since", "until"}:
            return moment_of(value, last=info.field_name == "until")
        return no_empty(value)

    def to_filter(self) -> TrailFilter:
        """The filters alone."""
        return TrailFilter(**{name: getattr(self, name) for name in _NAMES})


class TrailPageQuery(TrailQuery):
    """The same for the page: parameters that links pick up elsewhere are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


@api.get("/trail")
def trail(services: Shared, query: Annotated[TrailQuery, Query()]) -> Page[TrailRecord]:
    """Events of the trail, the newest first. They hold ids, codes and digests, no texts."""
    size = query.size(services.settings.max_page_size)
    return trail_reader.list_events(services.database, query.to_filter(), cursor=query.cursor, limit=size)


@pages.get("/trail")
def trail_page(request: Request, services: Shared, query: Annotated[TrailPageQuery, Query()]) -> HTMLResponse:
    """The trail with its filters."""
    events, unsealed = trail_chain.count_events(services.database, most=COUNTED_WORK)
    given = {name: value for name in _NAMES if (value := request.query_params.get(name, "").strip())}
    size = query.size(services.settings.max_page_size)
    return render(
        "trail.html",
        request,
        page=trail_reader.list_events(services.database, query.to_filter(), cursor=query.cursor, limit=size),
        given=given,
        kinds=sorted(TrailKind),
        sealed=events,
        unsealed=unsealed,
        counted=COUNTED_WORK,
        first_page=query.cursor is None,
    )
