"""`POST /v1/groups`: several flagged outputs as one question, with an audit of its own."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

from db.access.keys import Scope
from db.storing import groups, intake
from db.storing.groups import AskedGroup
from web import body
from web.errors import DESK_REFUSALS, InvalidRecords, documented
from web.guard.caller import Caller
from web.guard.security import needs
from web.json_api.api import CHANNEL, notify_of
from web.json_api.openapi import GROUP_REQUEST
from web.services import Services, services_of
from wherefrom.errors import IdempotencyConflict
from wherefrom.records import IntakeResult, OutputGroupRequest
from wherefrom.records.explain import describe_problems, explain_details

#: Model of acceptable answers that name none; nothing depends on it.
_ANY_MODEL = "any"

router = APIRouter(prefix="/v1", tags=["flag"], dependencies=[Depends(needs(Scope.READ))])


@router.post(
    "/groups",
    status_code=HTTPStatus.ACCEPTED,
    openapi_extra=GROUP_REQUEST,
    responses=DESK_REFUSALS | documented(HTTPStatus.CONFLICT),
)
async def group(
    request: Request,
    services: Annotated[Services, Depends(services_of)],
    caller: Annotated[Caller, Depends(needs(Scope.INGEST))],
) -> IntakeResult:
    """Ask one question about several flagged outputs: what taught the model what they share?

    The body has `audits` (ids) or `records` (record v1, flagged by themselves first), or both; `against` with acceptable answers; and `name`. The same question again
    gets the same ids. The answer is an audit like any other, with the scores of each output beside each citation.
    """
    body.check_content_type(request.headers.get("content-type"))
    raw = await body.read_body(request, limit_bytes=services.settings.body_limit_bytes)

    def take() -> IntakeResult:
        return _ask(_parsed(body.parse_json(raw)), caller, services)

    async with services.lanes.store.slot():
        return await run_in_threadpool(take)


def _parsed(value: object) -> OutputGroupRequest:
    """The request; acceptable answers need no model.

    Raises:
        InvalidRecords: it has another shape; the first problems are listed.
    """
    if isinstance(value, dict) and isinstance(value.get("against"), list):
        answers = [{"model": _ANY_MODEL, **one} if isinstance(one, dict) else one for one in value["against"]]
        value = {**value, "against": answers}
    try:
        return OutputGroupRequest.model_validate(value)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False, include_context=False)
        problems = explain_details(details, skip=frozenset())
        raise InvalidRecords(describe_problems(error), problems) from error


def _ask(asked: OutputGroupRequest, caller: Caller, services: Services) -> IntakeResult:
    """Flag what was given, then ask; outputs that were flagged stay where the question is refused.

    Raises:
        IdempotencyConflict: a key was used before with other content.
        NotFound, InvalidRequest: the outputs cannot be one question.
    """
    flagged = intake.accept(services.database, asked.records, producer=caller.producer, channel=CHANNEL)
    taken = [one for one in flagged if one.status == "conflict"]
    if taken:
        raise IdempotencyConflict(
            f"the idempotency key {taken[0].idempotency_key!r} was used before with other content; no group was stored"
        )
    ids = (*asked.audits, *(one.audit_id for one in flagged if one.audit_id is not None))
    question = AskedGroup(
        audit_ids=ids, against=asked.against, name=asked.name, idempotency_key=asked.idempotency_key
    )
    answer = groups.ask_group(services.database, question, producer=caller.producer)
    if answer.status == "conflict":
        raise IdempotencyConflict(
            f"the idempotency key {answer.idempotency_key!r} was used before with another group; nothing was stored"
        )
    notify_of(services, groups.models_of(services.database, ids))
    return answer
