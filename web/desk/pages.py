"""The auditor's pages: plain links and forms, rendered here, complete without script.

Each route reads records, adds what `web.drawing.evidence` computes, and renders one template.
"""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import HTMLResponse

from db.access.keys import Scope
from db.bundles import catalogue
from db.notices import outbox
from db.reading import reader
from web.drawing import card
from web.drawing.render import render
from web.drawing.state_words import STATE_MEANINGS
from web.guard.headers import CARD_CONTENT_SECURITY_POLICY
from web.guard.security import needs
from web.json_api.api import Shared
from web.wellness.health import readiness
from wherefrom.errors import NotFound
from wherefrom.records import AuditState, DeliveryState

router = APIRouter(include_in_schema=False, dependencies=[Depends(needs(Scope.READ))])

#: Notices that the page of the queue shows.
NOTICES = 10


@router.get("/bundles")
def bundles(request: Request, services: Shared) -> HTMLResponse:
    """The bundles that explain the models, each with its card."""
    found = sorted(catalogue.list_bundles(services.database), key=lambda one: (not one.active, -one.id))
    return render(
        "bundles.html", request, bundles=found, not_learned=card.not_learned, calibrated=card.calibrated
    )


@router.get("/bundles/{name}")
def bundle(request: Request, services: Shared, name: Annotated[str, Path(max_length=200)]) -> HTMLResponse:
    """The card of one bundle: everything that was measured of it."""
    if "\x00" in name:
        raise NotFound("this bundle does not exist")
    found = catalogue.bundle_by_name(services.database, name)
    return render(
        "bundle.html",
        request,
        headers={"Content-Security-Policy": CARD_CONTENT_SECURITY_POLICY},
        bundle=found,
        not_learned=card.not_learned,
        calibrated=card.calibrated,
        sections=card.card_sections(found.card),
        plots=card.card_plots(found.card),
    )


@router.get("/queue")
def queue(request: Request, services: Shared) -> HTMLResponse:
    """Is the work getting done: audits by state, ages, and what the service needs."""
    health = reader.queue_health(services.database)
    return render(
        "queue.html",
        request,
        health=health,
        total=sum(health.states.values()),
        unfinished=sum(count for state, count in health.states.items() if state.is_open),
        more_unfinished=any(state.is_open for state in health.more_than),
        states=list(AuditState),
        state_meanings=STATE_MEANINGS,
        readiness=readiness(services),
        lease_seconds=services.settings.lease_seconds,
        notices=outbox.list_deliveries(services.database, limit=NOTICES),
        given_up=outbox.counts(services.database)[DeliveryState.DEAD],
    )
