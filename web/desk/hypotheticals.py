"""Edit and compare: another answer, or an acceptable one, is audited beside a flagged output; both attributions stand side by side."""

import difflib
import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from db.access.keys import Scope
from db.bundles import catalogue
from db.reading import reader
from db.remedies import hypotheticals
from web import body
from web.asking.forms import LONG_FORM_BYTES, Form, form_of
from web.drawing.evidence import mark_ranges, plain_segments, turn_views
from web.drawing.render import render
from web.drawing.shorten import OUTPUT_CHARACTERS, shortened
from web.errors import DESK_REFUSALS
from web.guard.caller import Caller
from web.guard.security import needs
from web.json_api.api import Id, Shared, notify_of
from web.json_body import documented_body, parsed
from web.services import Services
from wherefrom.errors import InvalidRequest
from wherefrom.records import (
    AuditDetail,
    Comparison,
    HypotheticalRecord,
    HypotheticalRequest,
    IntakeResult,
    compare,
)

api = APIRouter(prefix="/v1", tags=["measure"])
pages = APIRouter(include_in_schema=False, dependencies=[Depends(needs(Scope.READ))])

#: Bodies that the OpenAPI document describes.
BODIES: tuple[type[BaseModel], ...] = (HypotheticalRequest,)
_WORD = re.compile(r"\s+|\w+|[^\w\s]")


class Hypotheticals(BaseModel):
    """What was supposed in place of one output."""

    items: tuple[HypotheticalRecord, ...]


@api.post(
    "/audits/{audit_id}/hypotheticals",
    status_code=HTTPStatus.ACCEPTED,
    openapi_extra=documented_body(HypotheticalRequest),
    responses=DESK_REFUSALS,
)
async def suppose(
    request: Request,
    services: Shared,
    audit_id: Id,
    *,
    caller: Annotated[Caller, Depends(needs(Scope.MEASURE))],
) -> IntakeResult:
    """Audit another answer in place of a flagged one, or the flagged one against an acceptable answer.

    It is queued as an audit of its own and counts nowhere. The same again gets the same ids.
    """
    body.check_content_type(request.headers.get("content-type"))
    raw = await body.read_body(request, limit_bytes=services.settings.body_limit_bytes)

    def take() -> IntakeResult:
        return _suppose(services, audit_id, parsed(HypotheticalRequest, raw), caller=caller)

    async with services.lanes.store.slot():
        return await run_in_threadpool(take)


@api.get(
    "/audits/{audit_id}/hypotheticals",
    tags=["read"],
    dependencies=[Depends(needs(Scope.READ))],
    responses=DESK_REFUSALS,
)
def listed(services: Shared, audit_id: Id) -> Hypotheticals:
    """What was supposed in place of an audit's output, newest first."""
    return Hypotheticals(items=tuple(hypotheticals.hypotheticals_of(services.database, audit_id)))


@api.get(
    "/audits/{audit_id}/comparison/{other_audit_id}",
    tags=["read"],
    dependencies=[Depends(needs(Scope.READ))],
    responses=DESK_REFUSALS,
)
def comparison(services: Shared, audit_id: Id, other_audit_id: Id) -> Comparison:
    """The citations of two audits side by side: which stayed, which are gone, which came."""
    one, other = (reader.get_audit(services.database, number) for number in (audit_id, other_audit_id))
    return compare(one, other)


@pages.post("/audits/{audit_id}/hypotheticals")
def suppose_by_form(
    services: Shared,
    audit_id: Id,
    form: Annotated[Form, Depends(form_of(Scope.MEASURE, limit_bytes=LONG_FORM_BYTES))],
) -> Response:
    """Queue what a form supposes, and lead to the comparison."""
    texts = {name: form.text(name, most=LONG_FORM_BYTES) or None for name in ("completion", "preferred")}
    if not any(texts.values()):
        raise InvalidRequest("write another answer, or an acceptable one")
    found = _suppose(services, audit_id, HypotheticalRequest.model_validate(texts), caller=form.caller)
    where = f"/audits/{audit_id}/compare/{found.audit_id}"
    return RedirectResponse(where, status_code=HTTPStatus.SEE_OTHER)


@pages.get("/audits/{audit_id}/compare/{other_audit_id}")
def compared(request: Request, services: Shared, audit_id: Id, other_audit_id: Id) -> HTMLResponse:
    """Two audits side by side; the page follows the one that is not answered yet."""
    one, other = (reader.get_audit(services.database, number) for number in (audit_id, other_audit_id))
    first, second = _differences(one.completion, other.completion)
    _, turns = turn_views(one.turns)
    return render(
        "compare.html",
        request,
        sides=[_Side(one, first), _Side(other, second)],
        turns=turns[-1:] if one.turns == other.turns else (),
        comparison=compare(one, other),
        answered=one.audit.state.is_answered and other.audit.state.is_answered,
        unfinished=sum(side.audit.state.is_open for side in (one, other)),
        preferred=plain_segments(other.preferred or ""),
        same_output=one.audit.output_id == other.audit.output_id,
        explained={one.name: one.model for one in catalogue.list_bundles(services.database)},
    )


@dataclass(frozen=True)
class _Side:
    """One of the two audits, with the words marked that only it has."""

    detail: AuditDetail
    text: tuple[object, ...]


def _differences(one: str, other: str) -> tuple[tuple[object, ...], tuple[object, ...]]:
    """Both answers, shortened, with the words marked that the other one does not have."""
    first, second = (_WORD.findall(text[:OUTPUT_CHARACTERS]) for text in (one, other))
    steps = difflib.SequenceMatcher(None, first, second, autojunk=len(first) > 2000).get_opcodes()
    return (
        _marked(one, first, [(start, end) for kind, start, end, _, _ in steps if kind != "equal"]),
        _marked(other, second, [(start, end) for kind, _, _, start, end in steps if kind != "equal"]),
    )


def _marked(text: str, words: list[str], stretches: list[tuple[int, int]]) -> tuple[object, ...]:
    at = [0]
    for word in words:
        at.append(at[-1] + len(word))
    ranges = [(at[start], at[end]) for start, end in stretches if end > start]
    return shortened(mark_ranges(text, ranges), OUTPUT_CHARACTERS)


def _suppose(
    services: Services, audit_id: int, asked: HypotheticalRequest, *, caller: Caller
) -> IntakeResult:
    found = hypotheticals.suppose(services.database, audit_id, asked, producer=caller.producer)
    notify_of(services, {reader.get_audit(services.database, audit_id).audit.model})
    return found
