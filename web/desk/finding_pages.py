"""The pages of findings: all of them, one with its outputs, and the forms that rename, merge, split and ask."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from db.access.keys import Scope
from db.bundles import catalogue
from db.grouping import finding_changes, findings
from db.reading import reader
from db.remedies import fix_rows
from web.asking.forms import Form, form_of
from web.asking.review_forms import checked, needs_all, reviewer_of
from web.desk.fix_pages import open_lists
from web.desk.review_pages import see_other
from web.drawing.render import render
from web.guard.security import needs
from web.json_api.api import Id, Shared
from web.json_api.finding_api import FindingQuery, ask_as_one
from wherefrom.errors import InvalidRequest
from wherefrom.records import AuditFilter, FindingMerge, FindingRename, FindingSplit, FixAction

router = APIRouter(prefix="/findings", include_in_schema=False, dependencies=[Depends(needs(Scope.READ))])

#: Findings of a page, outputs of a page of one, and other findings that the form for a merge offers.
LISTED, OUTPUTS, OFFERED = 50, 20, 100

Sent = Annotated[Form, Depends(form_of(Scope.REVIEW))]
Asked = Annotated[Form, Depends(form_of(Scope.MEASURE))]


class PageOfFindings(FindingQuery):
    """The same for pages: parameters that links pick up elsewhere are ignored."""

    model_config = FindingQuery.model_config | {"extra": "ignore"}


@router.get("")
def listed(request: Request, services: Shared, query: Annotated[PageOfFindings, Query()]) -> HTMLResponse:
    """What the flagged outputs come to: those that say the same kind of thing are one line."""
    page = findings.list_findings(
        services.database, bundle=query.wanted, cursor=query.cursor, limit=query.size(LISTED)
    )
    return render(
        "findings.html",
        request,
        page=page,
        bundle=query.wanted,
        bundles=[one.name for one in catalogue.list_bundles(services.database)],
        first_page=query.cursor is None,
        without=findings.without_vectors(services.database),
        looked_at=findings.LOOKED_FOR,
        largest=max((one.outputs for one in page.items), default=1),
    )


@router.get("/{finding_id}")
def one(
    request: Request, services: Shared, finding_id: Id, query: Annotated[PageOfFindings, Query()]
) -> Response:
    """One finding: its sources and culprits, its outputs, and what people did to it."""
    database = services.database
    detail = findings.get_finding(database, finding_id)
    finding = detail.finding
    if finding.finding_id != finding_id:
        return RedirectResponse(f"/findings/{finding.finding_id}")
    size = query.size(OUTPUTS)
    page = reader.list_audits(database, AuditFilter(finding=finding_id), cursor=query.cursor, limit=size)
    others = findings.list_findings(database, bundle=finding.bundle, limit=OFFERED).items
    examples = [one.training_example_id for one in detail.culprits.items]
    return render(
        "finding.html",
        request,
        detail=detail,
        finding=finding,
        page=page,
        first_page=query.cursor is None,
        others=[one for one in others if one.finding_id != finding_id],
        on_lists=fix_rows.actions_on(database, examples),
        lists=open_lists(services),
        actions=list(FixAction),
    )


@router.post("/{finding_id}/title")
def rename(services: Shared, finding_id: Id, form: Sent) -> Response:
    """Give a finding a title, or its telling words back."""
    needs_all(form.caller)
    title = checked(FindingRename, {"title": form.text("title")}).title
    return _shown(
        finding_changes.rename(services.database, finding_id, title, by=reviewer_of(form.caller)), "history"
    )


@router.post("/{finding_id}/merge")
def merge(services: Shared, finding_id: Id, form: Sent) -> Response:
    """Let a finding go into another one."""
    needs_all(form.caller)
    into = checked(FindingMerge, {"into": form.number("into")}).into
    return _shown(
        finding_changes.merge(services.database, finding_id, into, by=reviewer_of(form.caller)), "history"
    )


@router.post("/{finding_id}/take-out")
def take_out(services: Shared, finding_id: Id, form: Sent) -> Response:
    """Let a finding that went into another one stand by itself again."""
    needs_all(form.caller)
    return _shown(
        finding_changes.take_out(services.database, finding_id, by=reviewer_of(form.caller)), "history"
    )


@router.post("/{finding_id}/split")
def split(services: Shared, finding_id: Id, form: Sent) -> Response:
    """Let ticked outputs leave for a finding of their own."""
    needs_all(form.caller)
    ticked = form.ticked("audit")
    if not ticked:
        raise InvalidRequest("tick at least one output")
    wanted = checked(FindingSplit, {"audit_ids": ticked, "title": form.text("title")})
    return _shown(finding_changes.split(services.database, finding_id, wanted, by=reviewer_of(form.caller)))


@router.post("/{finding_id}/ask")
def ask(services: Shared, finding_id: Id, form: Asked) -> Response:
    """Ask one question about the outputs of a finding."""
    return see_other(f"/audits/{ask_as_one(services, finding_id, form.caller).audit_id}")


def _shown(finding_id: int, anchor: str = "") -> Response:
    return see_other(f"/findings/{finding_id}" + (f"#{anchor}" if anchor else ""))
