"""Two bundles over the outputs that were audited under both: the page and the API. No SQL."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import HTMLResponse
from pydantic import Field

from db.access.keys import Scope
from db.bundles import catalogue
from db.comparison import comparisons
from web.asking.review_forms import checked
from web.drawing.render import render
from web.errors import documented
from web.filters import PageQuery
from web.guard.security import needs
from web.json_api.api import READ_REFUSALS, Shared
from wherefrom.records import BundleComparison, BundleInfo, ComparedOutput, Page, Supported, Text
from wherefrom.records.comparing import MOST_SOURCES

api = APIRouter(
    prefix="/v1",
    tags=["read"],
    responses={**READ_REFUSALS, **documented(HTTPStatus.NOT_FOUND)},
    dependencies=[Depends(needs(Scope.READ))],
)
pages = APIRouter(include_in_schema=False, dependencies=[Depends(needs(Scope.READ))])

_Name = Annotated[Text, Field(min_length=1, max_length=200)]
#: Sources that the page shows, and below which q one stands out.
SOURCES_SHOWN, STANDS_OUT = 25, 0.05


class BundlesQuery(PageQuery):
    """Which two bundles, and where to read on."""

    bundle: _Name = Field(description="Name of the first bundle.", examples=["support-7"])
    other: _Name = Field(description="Name of the bundle that it is compared with.", examples=["support-8"])


@api.get("/bundle-comparison")
def comparison(services: Shared, query: Annotated[BundlesQuery, Query()]) -> BundleComparison:
    """What changed between two bundles over all outputs that both have answered for.

    A large comparison is worked out in the background. `progress` says how far it is, `as_of` how old the summary.
    """
    return comparisons.compare_bundles(services.database, query.bundle, query.other)


@api.get("/bundle-comparison/outputs")
def compared_outputs(services: Shared, query: Annotated[BundlesQuery, Query()]) -> Page[ComparedOutput]:
    """The outputs that were compared, those whose citations moved most first."""
    size = query.size(services.settings.max_page_size)
    return comparisons.compared_outputs(
        services.database, query.bundle, query.other, cursor=query.cursor, limit=size
    )


@pages.get("/compare")
def compare(request: Request, services: Shared) -> HTMLResponse:
    """What changed between two bundles; without two names, the form to choose them."""
    known = catalogue.list_bundles(services.database)
    given = {name: request.query_params.get(name, "") for name in ("bundle", "other", "cursor", "limit")}
    found, outputs = None, Page[ComparedOutput](items=())
    if given["bundle"] and given["other"]:
        query = checked(BundlesQuery, given)
        found, outputs = comparison(services, query), compared_outputs(services, query)
    return render(
        "bundle_comparison.html",
        request,
        bundles=known,
        chosen=_chosen(given, known),
        found=found,
        outputs=outputs,
        first_page=not given["cursor"],
        shown=SOURCES_SHOWN,
        most_sources=MOST_SOURCES,
        stands_out=STANDS_OUT,
        support_words=_SUPPORT_WORDS,
    )


def _chosen(given: dict[str, str], known: list[BundleInfo]) -> dict[str, str]:
    """What the form shows as chosen: what was given, else the two newest bundles."""
    newest = [one.name for one in known[:2]]
    usual = dict(zip(("other", "bundle"), newest, strict=False))
    return {name: given[name] or usual.get(name, "") for name in ("bundle", "other")}


_SUPPORT_WORDS = {
    Supported.SUPPORTED: "supported",
    Supported.UNSUPPORTED: "abstained",
    Supported.UNCALIBRATED: "not calibrated",
    Supported.WEAK: "weak",
}
