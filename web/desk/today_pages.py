"""Today: how the work goes, who does it, what is stuck and why, and what is new; one page and one answer of the API.

The page follows the work by asking for itself every few seconds (`desk.js`), not over server-sent events: those would hold a connection and a thread
for each open page, and a page that was left open behind a proxy would miss that its stream had ended.
"""

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse

from db.access.keys import Scope
from db.reading import today as reading
from db.reading.stuck import LOOKED_AT
from web.asking.review_forms import person_id_of
from web.drawing.render import render
from web.drawing.throughput_plot import throughput_plot
from web.errors import code_meanings
from web.guard.security import needs
from web.json_api.api import READ_REFUSALS, Reader, Shared
from web.services import Services
from wherefrom.records import StuckKind, Today
from wherefrom.records.today import RATE_MINUTES
from wherefrom.remedies import in_words

api = APIRouter(
    prefix="/v1", tags=["read"], responses=READ_REFUSALS, dependencies=[Depends(needs(Scope.READ))]
)
pages = APIRouter(include_in_schema=False, dependencies=[Depends(needs(Scope.READ))])


@api.get("/today")
def today(services: Shared, caller: Reader) -> Today:
    """How the work goes: states, ages, throughput of the last hour, processes, what is stuck and why, and what is new since the caller's last visit."""
    return _read(services, person_id_of(caller))


@pages.get("/today")
def page(request: Request, services: Shared, caller: Reader) -> HTMLResponse:
    """The same as a page that follows the work."""
    found = _read(services, person_id_of(caller))
    return render(
        "today.html",
        request,
        today=found,
        health=found.queue,
        plot=throughput_plot(found.minutes),
        rate_minutes=RATE_MINUTES,
        looked_at=LOOKED_AT,
        work_words=_WORK_WORDS,
        work_links=_WORK_LINKS,
        role_words=_ROLE_WORDS,
    )


def _read(services: Services, person_id: int | None) -> Today:
    return in_words(reading.today(services.database, person_id=person_id), code_meanings())


_ROLE_WORDS = {
    "attribute": "worker",
    "measure": "measurer",
    "build": "build worker",
    "sweep": "sweeper",
    "intake": "intake of the stream",
}
_WORK_WORDS = {
    StuckKind.MEASUREMENT: "measured effects",
    StuckKind.GROUP_MEASUREMENT: "measured effects of groups",
    StuckKind.WHAT_IF: "what-ifs",
    StuckKind.COMPARISON: "comparisons of bundles",
    StuckKind.NOTICE: "notices",
}
#: Where each kind is read; a number follows where there is one.
_WORK_LINKS = {
    StuckKind.MEASUREMENT: "/audits/",
    StuckKind.GROUP_MEASUREMENT: "/audits/",
    StuckKind.WHAT_IF: "/what-ifs/",
    StuckKind.COMPARISON: "/compare",
    StuckKind.NOTICE: "/queue",
}
