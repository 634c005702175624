"""The page of erasure, legal hold and retention, for administrators."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.responses import Response

from db.access.keys import Scope
from db.erasure import erasures, holds, retention
from web.asking.forms import Form, form_of
from web.asking.review_forms import Shape, checked
from web.drawing.labels import label_of
from web.drawing.render import render
from web.guard.security import needs
from web.json_api.api import Id, Shared
from wherefrom.errors import InvalidRequest
from wherefrom.records import ErasureDraft, HoldDraft, OutputClass, RetentionDraft, Severity
from wherefrom.records.erasing import MAX_ERASURE_REASON, MAX_NAMED_AUDITS

router = APIRouter(include_in_schema=False, dependencies=[Depends(needs(Scope.ADMIN))])
Sent = Annotated[Form, Depends(form_of(Scope.ADMIN))]

#: Conditions of a class that the forms offer.
_OFFERED = ("producer", "flag_reason", "severity", "model", "label")
#: Longest field of a form here, characters: the numbers of the audits.
_LONGEST_FIELD = 20_000


@router.get("/erasing")
def erasing(request: Request, services: Shared) -> HTMLResponse:
    """What was erased, what is held, and how long texts are kept."""
    database = services.database
    return render(
        "erasing.html",
        request,
        erasures=erasures.listed(database),
        holds=holds.listed(database, lifted=True),
        rules=retention.listed(database, ended=True),
        severities=list(Severity),
        most_reason=MAX_ERASURE_REASON,
    )


@router.post("/erasing/outputs")
def erase(request: Request, services: Shared, form: Sent) -> Response:
    """Ask for an erasure; the first press says how many texts it means."""
    draft = _draft(ErasureDraft, form)
    if not form.has("sure"):
        meant = erasures.count_meant(services.database, draft)
        words = [(label_of(name, "/erasing"), value) for name, value in _named(form).items()]
        return render("erasing_sure.html", request, draft=draft, meant=meant, words=words, given=_sent(form))
    erasures.ask(services.database, draft, by=form.caller.actor)
    return _back()


@router.post("/erasing/holds")
def place(services: Shared, form: Sent) -> Response:
    """Place a hold."""
    holds.place(services.database, _draft(HoldDraft, form), by=form.caller.actor)
    return _back()


@router.post("/erasing/holds/{hold_id}/lift")
def lift(services: Shared, hold_id: Id, form: Sent) -> Response:
    """Lift a hold."""
    reason = form.text("reason", most=MAX_ERASURE_REASON)
    if not reason:
        raise InvalidRequest("say why the hold is lifted")
    holds.lift(services.database, hold_id, reason=reason, by=form.caller.actor)
    return _back()


@router.post("/erasing/rules")
def add_rule(services: Shared, form: Sent) -> Response:
    """Add a retention rule."""
    given = {"name": form.text("name"), "days": form.number("days"), "outputs": _class(form) or OutputClass()}
    retention.add(services.database, checked(RetentionDraft, given), by=form.caller.actor)
    return _back()


@router.post("/erasing/rules/{rule_id}/end")
def end_rule(services: Shared, rule_id: Id, form: Sent) -> Response:
    """End a retention rule."""
    del form  # it was sent from our page, by an administrator
    retention.end(services.database, rule_id)
    return _back()


def _back() -> Response:
    return RedirectResponse("/erasing", status_code=HTTPStatus.SEE_OTHER)


def _draft(kind: type[Shape], form: Form) -> Shape:
    """Audits by their numbers, or a class; and why."""
    given = {
        "audit_ids": tuple(form.numbers("audit_ids", most=MAX_NAMED_AUDITS)),
        "outputs": _class(form),
        "reason": form.text("reason", most=MAX_ERASURE_REASON),
    }
    return checked(kind, given)


def _sent(form: Form) -> dict[str, str]:
    """The fields of the form, to be sent again."""
    sent = {name: form.text(name, most=_LONGEST_FIELD) for name in ("audit_ids", "reason")}
    return _named(form) | {name: value for name, value in sent.items() if value}


def _class(form: Form) -> OutputClass | None:
    named = _named(form)
    return checked(OutputClass, named) if named else None


def _named(form: Form) -> dict[str, str]:
    """The conditions of a class that were filled in."""
    return {name: value for name in _OFFERED if (value := form.text(name, most=401))}
