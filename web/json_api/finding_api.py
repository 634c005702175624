"""The API of findings under `/v1`: outputs that say the same kind of thing, and what people do to them."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field

from db.access.keys import Scope
from db.grouping import finding_changes, findings
from db.storing import groups
from web.asking.review_forms import needs_all
from web.errors import DESK_REFUSALS
from web.filters import PageQuery
from web.guard.caller import Caller
from web.guard.security import needs
from web.json_api.api import Id, Shared, notify_of
from web.json_api.review_api import Name, Who, judge_of
from web.json_body import body_of, documented_body
from web.services import Services
from wherefrom.records import (
    FindingDetail,
    FindingMerge,
    FindingRename,
    FindingSplit,
    FindingSummary,
    IntakeResult,
    Page,
)
from wherefrom.records.bounds import MAX_SHORT_CHARS

router = APIRouter(
    prefix="/v1", tags=["findings"], responses=DESK_REFUSALS, dependencies=[Depends(needs(Scope.READ))]
)

#: Bodies that the OpenAPI document describes.
BODIES: tuple[type[BaseModel], ...] = (FindingRename, FindingMerge, FindingSplit)


class FindingQuery(PageQuery):
    """Which findings, and where to read on."""

    bundle: str | None = Field(
        default=None, max_length=MAX_SHORT_CHARS, description="Only findings under the bundle of this name."
    )

    @property
    def wanted(self) -> str | None:
        """The bundle's name as the database can hold it."""
        return (self.bundle or "").strip().replace("\x00", "") or None


@router.get("/findings")
def listed(services: Shared, query: Annotated[FindingQuery, Query()]) -> Page[FindingSummary]:
    """Outputs that say the same kind of thing, those with the most outputs first. What went into another finding stands there."""
    size = query.size(services.settings.max_page_size)
    return findings.list_findings(services.database, bundle=query.wanted, cursor=query.cursor, limit=size)


@router.get("/findings/{finding_id}")
def one(services: Shared, finding_id: Id) -> FindingDetail:
    """One finding with its culprits, related findings and history; the number of one that went into another leads there."""
    return findings.get_finding(services.database, finding_id)


@router.post("/findings/{finding_id}/title", openapi_extra=documented_body(FindingRename))
def rename(
    services: Shared,
    finding_id: Id,
    *,
    caller: Who,
    body: Annotated[FindingRename, Depends(body_of(FindingRename))],
    reviewer: Name = None,
) -> FindingSummary:
    """Give a finding a title, or its telling words back."""
    needs_all(caller)
    by = judge_of(services, caller, reviewer)
    finding_changes.rename(services.database, finding_id, body.title, by=by)
    return _summary(services, finding_id)


@router.post("/findings/{finding_id}/merge", openapi_extra=documented_body(FindingMerge))
def merge(
    services: Shared,
    finding_id: Id,
    *,
    caller: Who,
    body: Annotated[FindingMerge, Depends(body_of(FindingMerge))],
    reviewer: Name = None,
) -> FindingSummary:
    """Let a finding go into another one of the same bundle; answers with that one. Taking it out again undoes it."""
    needs_all(caller)
    by = judge_of(services, caller, reviewer)
    return _summary(services, finding_changes.merge(services.database, finding_id, body.into, by=by))


@router.post("/findings/{finding_id}/take-out")
def take_out(services: Shared, finding_id: Id, *, caller: Who, reviewer: Name = None) -> FindingSummary:
    """Let a finding that went into another one stand by itself again."""
    needs_all(caller)
    by = judge_of(services, caller, reviewer)
    return _summary(services, finding_changes.take_out(services.database, finding_id, by=by))


@router.post(
    "/findings/{finding_id}/split",
    status_code=HTTPStatus.CREATED,
    openapi_extra=documented_body(FindingSplit),
)
def split(
    services: Shared,
    finding_id: Id,
    *,
    caller: Who,
    body: Annotated[FindingSplit, Depends(body_of(FindingSplit))],
    reviewer: Name = None,
) -> FindingSummary:
    """Let outputs leave a finding for a new one, which is the answer. Merging it back undoes it."""
    needs_all(caller)
    by = judge_of(services, caller, reviewer)
    return _summary(services, finding_changes.split(services.database, finding_id, body, by=by))


@router.post("/findings/{finding_id}/ask", status_code=HTTPStatus.ACCEPTED)
def ask(
    services: Shared, finding_id: Id, *, caller: Annotated[Caller, Depends(needs(Scope.MEASURE))]
) -> IntakeResult:
    """Ask one question about the newest 256 outputs of a finding: what taught the model what they share? Answers with its audit."""
    return ask_as_one(services, finding_id, caller)


def ask_as_one(services: Services, finding_id: int, caller: Caller) -> IntakeResult:
    """Ask, and tell the workers."""
    answer = finding_changes.ask_as_one(services.database, finding_id, producer=caller.producer)
    if answer.audit_id is not None:
        notify_of(services, groups.models_of(services.database, [answer.audit_id]))
    return answer


def _summary(services: Services, finding_id: int) -> FindingSummary:
    return findings.get_finding(services.database, finding_id).finding
