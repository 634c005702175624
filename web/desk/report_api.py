"""A report of one audit or of an incident as one HTML file: no script, nothing from elsewhere, to be attached to a ticket or printed."""

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from http import HTTPStatus
from itertools import islice
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, Response
from markupsafe import Markup
from pydantic import BeforeValidator, Field

from db.bundles import catalogue
from db.reading import exporting, listings, reader
from db.reviewing import reviews
from web.asking.review_forms import filter_words
from web.asking.reviewed import found_view
from web.desk.audit_pages import TIER_MEANINGS
from web.desk.report import ReportedAudit, incident_of, reported
from web.drawing.render import STATIC_DIR, render
from web.errors import documented
from web.filters import AuditQuery, no_empty
from web.guard.caller import Caller
from web.json_api.api import MAX_ID, READ_REFUSALS, Reader, Shared
from web.json_api.export_api import whole_audits
from web.selecting import selected
from web.services import Services
from wherefrom.errors import InvalidRequest, NotFound
from wherefrom.records import SIGN_NOT_DETERMINED, AuditDetail, utc_now, weak_text
from wherefrom.records.bounds import MAX_SHORT_CHARS

router = APIRouter(prefix="/v1", tags=["export"], responses=READ_REFUSALS)

#: Audits of one report.
MOST_REPORTED = 50


class ReportQuery(AuditQuery):
    """Which audits a report is about: their numbers, or a filter whose newest ones are taken; `cursor` and `limit` are not used."""

    audit: list[Annotated[int, Field(ge=1, le=MAX_ID)]] = Field(
        default=[], max_length=MOST_REPORTED, description="Numbers of audits, in place of a filter."
    )
    title: Annotated[Annotated[str, Field(max_length=MAX_SHORT_CHARS)] | None, BeforeValidator(no_empty)] = (
        Field(default=None, description="Title of the report.", examples=["Refund promises in January"])
    )


@cache
def style() -> Markup:
    """The style sheet of a report: that of the pages, and what differs on paper. It is ours, so it is not escaped."""
    sheets = (STATIC_DIR / name for name in ("wherefrom.css", "report.css"))
    return Markup("\n".join(one.read_text(encoding="utf-8") for one in sheets))  # noqa: S704 - no text of others


@cache
def content_policy() -> str:
    """What a browser may do with a report: show it in its own style, and nothing else."""
    digest = base64.b64encode(hashlib.sha256(style().encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


@router.get(
    "/report.html",
    response_class=Response,  # an HTMLResponse would document errors as HTML
    responses={
        200: {"description": "One file.", "content": {"text/html": {}}},
        **documented(HTTPStatus.NOT_FOUND),
    },
)
def report(
    request: Request, services: Shared, caller: Reader, query: Annotated[ReportQuery, Query()]
) -> HTMLResponse:
    """A report of audits for people: findings, plots, citations with their texts, verdicts, measured effects, and what a citation does not prove.

    One file with everything in it: no script, no outside resource. Of a filter, the newest 50 audits are shown, and the report says how many there are. The trail notes who took it.
    """
    details = _details(services, query, caller)
    found = selected(services, query, caller).filters
    exporting.note_export(services.database, "report", form="html", filters=found)
    facts = None if query.audit else listings.facts(services.database, found, level=query.fdr)
    at = utc_now()
    name = f"wherefrom-report-{at:%Y%m%dT%H%M%SZ}.html"
    policy = content_policy()
    return render(
        "report.html",
        request,
        headers={
            "Content-Security-Policy": f"{policy}; sandbox",
            "Content-Disposition": f'attachment; filename="{name}"',
        },
        title=query.title or _title(details),
        policy=policy,
        css=style(),
        base=str(request.base_url).rstrip("/"),
        at=at,
        by=caller.person.name if caller.person else caller.name,
        words=[] if query.audit else filter_words(found),
        facts=facts,
        incident=incident_of(details),
        audits=_reported(services, details, caller),
        tier_meanings=TIER_MEANINGS,
        sign_not_determined=SIGN_NOT_DETERMINED,
        weak_text=weak_text,
    )


def _details(services: Services, query: ReportQuery, caller: Caller) -> list[AuditDetail]:
    """The audits of a report.

    Raises:
        NotFound: one of the numbers is of no audit, or nothing passes the filter.
        InvalidRequest: numbers and a filter are given.
    """
    if not query.audit:
        found = list(islice(whole_audits(services, query, caller), MOST_REPORTED))
        if not found:
            raise NotFound("no audit passes these filters, so there is nothing to report")
        return found
    if query.to_filter().model_dump(exclude_none=True):
        raise InvalidRequest("give `audit` or filters, not both")
    wanted = list(dict.fromkeys(query.audit))
    found = reader.get_audits(services.database, wanted)
    if missing := set(wanted) - {one.audit.audit_id for one in found}:
        raise NotFound(f"audit {min(missing)} does not exist")
    return found


def _reported(services: Services, details: Sequence[AuditDetail], caller: Caller) -> list[ReportedAudit]:
    """The audits as the report shows them; the reviews of all are read at once, and each bundle once."""
    database = services.database
    given = reviews.reviews_of_each(database, [one.audit.audit_id for one in details])
    names = {one.audit.bundle for one in details if one.audit.bundle is not None}
    bundles = {name: catalogue.bundle_by_name(database, name) for name in names}
    return [
        reported(
            one,
            bundles.get(one.audit.bundle or ""),
            found_view(given[one.audit.audit_id], one, caller=caller, page=""),
        )
        for one in details
    ]


def _title(details: list[AuditDetail]) -> str:
    if len(details) == 1:
        return f"Audit #{details[0].audit.audit_id}: {details[0].audit.flag_reason}"
    return f"{len(details)} audits"
