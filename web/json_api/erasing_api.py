"""The API of erasure, legal hold and retention under `/v1`, for the scope `admin`. What is asked for here is carried out by the sweeper."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel

from db.access.keys import Scope
from db.erasure import erasures, holds, retention
from web.errors import DESK_REFUSALS, documented
from web.guard.caller import Caller
from web.guard.security import needs
from web.json_api.api import Id, Shared
from web.json_body import body_of, documented_body
from wherefrom.records import (
    ErasureDraft,
    ErasureRecord,
    HoldDraft,
    HoldRecord,
    LiftRequest,
    RetentionDraft,
    RetentionRecord,
)

Admin = Annotated[Caller, Depends(needs(Scope.ADMIN))]
router = APIRouter(
    prefix="/v1",
    tags=["erase"],
    dependencies=[Depends(needs(Scope.ADMIN))],
    responses=DESK_REFUSALS | documented(HTTPStatus.CONFLICT),
)

#: Bodies that the OpenAPI document describes.
BODIES: tuple[type[BaseModel], ...] = (ErasureDraft, HoldDraft, LiftRequest, RetentionDraft)


class Erasures(BaseModel):
    """Erasures, the newest first."""

    items: tuple[ErasureRecord, ...]


class Holds(BaseModel):
    """Legal holds, the newest first."""

    items: tuple[HoldRecord, ...]


class RetentionRules(BaseModel):
    """Retention rules, the newest first."""

    items: tuple[RetentionRecord, ...]


@router.get("/erasures")
def list_erasures(services: Shared) -> Erasures:
    """The newest erasures, with what became of them."""
    return Erasures(items=tuple(erasures.listed(services.database)))


@router.post("/erasures", status_code=HTTPStatus.ACCEPTED, openapi_extra=documented_body(ErasureDraft))
def erase(
    services: Shared, caller: Admin, body: Annotated[ErasureDraft, Depends(body_of(ErasureDraft))]
) -> ErasureRecord:
    """Ask for an erasure of outputs; the sweeper carries it out within seconds. Held outputs refuse the whole request (409)."""
    asked = erasures.ask(services.database, body, by=caller.actor)
    return erasures.get(services.database, asked)


@router.get("/erasures/{erasure_id}")
def one_erasure(services: Shared, erasure_id: Id) -> ErasureRecord:
    """One erasure; `done_at` says when it was carried out."""
    return erasures.get(services.database, erasure_id)


@router.get("/holds")
def list_holds(services: Shared) -> Holds:
    """The legal holds, with those that were lifted."""
    return Holds(items=tuple(holds.listed(services.database, lifted=True)))


@router.post("/holds", status_code=HTTPStatus.CREATED, openapi_extra=documented_body(HoldDraft))
def place(
    services: Shared, caller: Admin, body: Annotated[HoldDraft, Depends(body_of(HoldDraft))]
) -> HoldRecord:
    """Hold outputs: nothing erases them, nor training examples that they cite, until the hold is lifted."""
    return holds.place(services.database, body, by=caller.actor)


@router.post("/holds/{hold_id}/lift", openapi_extra=documented_body(LiftRequest))
def lift(
    services: Shared,
    hold_id: Id,
    *,
    caller: Admin,
    body: Annotated[LiftRequest, Depends(body_of(LiftRequest))],
) -> HoldRecord:
    """Lift a hold."""
    return holds.lift(services.database, hold_id, reason=body.reason, by=caller.actor)


@router.get("/retention-rules")
def list_rules(services: Shared) -> RetentionRules:
    """The retention rules, with those that were ended."""
    return RetentionRules(items=tuple(retention.listed(services.database, ended=True)))


@router.post(
    "/retention-rules", status_code=HTTPStatus.CREATED, openapi_extra=documented_body(RetentionDraft)
)
def add_rule(
    services: Shared, caller: Admin, body: Annotated[RetentionDraft, Depends(body_of(RetentionDraft))]
) -> RetentionRecord:
    """Add a rule: the sweeper erases texts of a class some days after they were received."""
    return retention.add(services.database, body, by=caller.actor)


@router.post("/retention-rules/{rule_id}/end")
def end_rule(services: Shared, rule_id: Id) -> RetentionRecord:
    """End a rule; what it erased stays erased."""
    return retention.end(services.database, rule_id)
