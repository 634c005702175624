"""The pages of what-ifs: asking for one, reading it, and having the whole list measured."""

from dataclasses import dataclass
from http import HTTPStatus
from math import sqrt
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from db.access.keys import Scope
from db.remedies import fix_lists, what_ifs
from web.asking.forms import Form, form_of
from web.asking.measuring import MOST_MEASURED, measure_list
from web.asking.review_forms import filter_of, filter_words
from web.drawing.render import render
from web.guard.security import needs
from web.json_api.api import Id, Shared
from wherefrom.records import (
    CHECKED,
    GROUP_WARNING,
    MAX_OUTPUTS,
    AuditFilter,
    WhatIfOutput,
)
from wherefrom.statistics import adjusted

router = APIRouter(include_in_schema=False, dependencies=[Depends(needs(Scope.READ))])

#: Outputs that a press asks about unless another number is given, and from which q an output counts as moved.
OUTPUTS, MOVED = 200, 0.05


@dataclass(frozen=True)
class Summary:
    """What a what-if says of all its outputs together."""

    scored: int
    #: Outputs whose prediction can be told from nothing, one by one.
    differing: int
    #: Outputs that the list made more likely, beyond random lists, at a false discovery rate of `MOVED`.
    moved: int
    #: Mean predicted effect and its 95 % interval over the outputs; None without a scale or with fewer than two.
    mean_nats: float | None
    low_nats: float | None
    high_nats: float | None


def summary_of(outputs: list[WhatIfOutput]) -> Summary:
    """The outputs that are scored, summed up."""
    chances = [one.chance for one in outputs if one.chance is not None]
    nats = [one.effect_nats for one in outputs if one.effect_nats is not None]
    mean = low = high = None
    if len(nats) > 1:
        mean = sum(nats) / len(nats)
        error = sqrt(sum((one - mean) ** 2 for one in nats) / (len(nats) - 1) / len(nats))
        low, high = mean - 1.96 * error, mean + 1.96 * error
    return Summary(
        scored=sum(one.score is not None for one in outputs),
        differing=sum(bool(one.differs) for one in outputs),
        moved=sum(q <= MOVED for q in adjusted(chances)),
        mean_nats=mean,
        low_nats=low,
        high_nats=high,
    )


@router.post("/fix-lists/{list_id}/what-ifs")
def ask(services: Shared, list_id: Id, form: Annotated[Form, Depends(form_of(Scope.MEASURE))]) -> Response:
    """Ask what leaving a list out would do to the newest outputs of a filter, and open the first answer."""
    most = min(form.number("most") or OUTPUTS, MAX_OUTPUTS)
    found = what_ifs.ask(services.database, list_id, filter_of(form), most=max(most, 1), by=form.caller.name)
    services.notify([what_ifs.bundle_of(services.database, one.what_if_id) for one in found])
    return RedirectResponse(f"/what-ifs/{found[0].what_if_id}", status_code=HTTPStatus.SEE_OTHER)


@router.get("/what-ifs/{what_if_id}")
def what_if(request: Request, services: Shared, what_if_id: Id) -> HTMLResponse:
    """One what-if: how far it is, what it says, and how far that can be trusted."""
    found = what_ifs.get_what_if(services.database, what_if_id)
    outputs = what_ifs.outputs_of(services.database, what_if_id)
    context: dict[str, Any] = {
        "what_if": found,
        "fix_list": fix_lists.get_list(services.database, found.list_id),
        "outputs": outputs,
        "summary": summary_of(outputs),
        "words": filter_words(AuditFilter.model_validate(found.filter)),
        "warning": GROUP_WARNING,
        "checked": CHECKED,
        "moved_at": MOVED,
        "can_measure": services.settings.recipe is not None,
        "most_measured": MOST_MEASURED,
        "measured": request.query_params.get("measured", ""),
    }
    return render("what_if.html", request, **context)


@router.post("/what-ifs/{what_if_id}/measure")
def measure(
    services: Shared, what_if_id: Id, form: Annotated[Form, Depends(form_of(Scope.MEASURE))]
) -> Response:
    """Have the effect of the whole list on ticked outputs measured: trainings without it, beside matched controls, shared by all of them."""
    ticked = form.ticked("audit")
    found = measure_list(services, what_if_id, ticked, caller=form.caller)
    return RedirectResponse(f"/what-ifs/{what_if_id}?measured={len(found)}", status_code=HTTPStatus.SEE_OTHER)
