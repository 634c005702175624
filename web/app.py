"""Builds the web application: routes, middleware, error answers, static files. Opens nothing by itself."""

from functools import cache, partial

from fastapi import APIRouter, FastAPI
from fastapi.staticfiles import StaticFiles
from fastapi.telemetry import TelemetryConfig
from starlette.responses import Response
from starlette.types import Scope

from db.access.keys import UseNotes
from db.session import Database
from web.desk import (
    audit_list,
    audit_pages,
    comparisons,
    erasing_pages,
    finding_pages,
    fix_pages,
    hypotheticals,
    key_pages,
    pages,
    report_api,
    review_pages,
    sign_in,
    source_pages,
    today_pages,
    trail_pages,
    verdict_pages,
    what_if_pages,
)
from web.drawing.render import STATIC_DIR
from web.errors import install_error_handlers
from web.guard.admission import Admission, Lanes
from web.guard.noted_reads import NotedReads
from web.guard.proxied import read_proxy
from web.guard.security import Gate
from web.guard.sessions import read_signer
from web.json_api import (
    api,
    blame_api,
    erasing_api,
    export_api,
    finding_api,
    fix_api,
    groups,
    list_api,
    queue_api,
    review_api,
)
from web.json_api.openapi import install_openapi
from web.services import Notify, QueueProbe, Services, notify_nobody
from web.wellness import health
from web.wellness.health import RedisProbe
from web.wellness.observe import Observe
from wherefrom.access import refuse_keyless_production
from wherefrom.journal import Journal, journal_folder
from wherefrom.metrics import Metrics
from wherefrom.settings import Settings
from wherefrom.version import __version__

_TAGS = [
    {"name": "flag", "description": "Send outputs for review."},
    {"name": "read", "description": "Audits, citations, training examples, sources, bundles and the queue."},
    {"name": "export", "description": "Whole selections as files, and reports."},
    {"name": "measure", "description": "Measure the effect of a citation instead of predicting it."},
    {
        "name": "lists",
        "description": "How many audits a filter finds, saved views, and what is done to all of them.",
    },
    {"name": "review", "description": "Review queues, verdicts and comments of people."},
    {"name": "findings", "description": "Outputs that say the same kind of thing, under one name."},
    {
        "name": "fix",
        "description": "Fix lists: what is to change in the training data, and what that would do.",
    },
    {"name": "erase", "description": "Erasure, legal hold and retention."},
    {"name": "health", "description": "For load balancers, orchestrators and Prometheus."},
]


_ROUTERS = (
    health.router,
    api.ingest,
    groups.router,
    blame_api.router,
    export_api.api,
    report_api.router,
    api.read,
    api.measure,
    review_api.router,
    queue_api.router,
    finding_api.router,
    fix_api.router,
    list_api.router,
    audit_list.router,
    export_api.pages,
    pages.router,
    today_pages.api,
    today_pages.pages,
    audit_pages.router,
    source_pages.router,
    hypotheticals.api,
    hypotheticals.pages,
    comparisons.api,
    comparisons.pages,
    review_pages.router,
    verdict_pages.router,
    finding_pages.router,
    fix_pages.router,
    what_if_pages.router,
    sign_in.router,
    erasing_api.router,
    erasing_pages.router,
    trail_pages.api,
    trail_pages.pages,
    key_pages.router,
)
#: Bodies that the OpenAPI document describes.
_BODIES = (
    *review_api.BODIES,
    *queue_api.BODIES,
    *fix_api.BODIES,
    *finding_api.BODIES,
    *hypotheticals.BODIES,
    *list_api.BODIES,
    *erasing_api.BODIES,
)


#: FastAPI's own spans and logs tell paths and queries, and with them what people search for; ours are those of `web.wellness.observe`.
_OWN_SPANS: TelemetryConfig = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "operation_spans": False,
    "auto_configure": False,
}


class _KeptFiles(StaticFiles):
    """Static files that browsers keep: links to them carry their hash, so they never change under one address."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """The file, or an error answer."""
        response = await super().get_response(path, scope)
        if b"v=" in scope.get("query_string", b""):
            response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        return response


@cache
def _routes() -> APIRouter:
    """All routes, put together once per process: what an application includes, FastAPI builds for it anew when it is first asked, in 0.4 s of CPU."""
    found = APIRouter()
    for router in _ROUTERS:
        found.include_router(router)
    return found


def create_app(
    settings: Settings,
    database: Database,
    *,
    metrics: Metrics,
    notify: Notify = notify_nobody,
    queue: QueueProbe | None = None,
) -> FastAPI:
    """The application, ready for an ASGI server.

    Args:
        settings: Decides on host names, keys and limits; `settings.host` must be the address that is bound.
        database: Where flagged outputs go and audits are read; the caller disposes of it.
        metrics: Registry that `/metrics` shows.
        notify: Told which bundles got new pending audits, after the commit. It must be quick and must not raise.
        queue: What `/readyz` asks about Redis; by default the Redis of the settings.

    Raises:
        ConfigurationError: the settings would serve others without API keys.
    """
    refuse_keyless_production(settings)
    app = FastAPI(
        title="wherefrom",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_tags=_TAGS,
        telemetry=_OWN_SPANS,
    )
    lanes = Lanes.of(settings, metrics, most_writes=database.most_writers)
    app.state.services = services = Services(
        settings=settings,
        database=database,
        metrics=metrics,
        queue=queue or RedisProbe(settings),
        lanes=lanes,
        proxy=read_proxy(settings),
        signer=cache(partial(read_signer, settings)),
        notify=notify,
        journal=None if settings.trail_reads == "off" else Journal(journal_folder(settings)),
        key_uses=UseNotes(on_failure=lambda: metrics.count("api_key_uses_unnoted_total")),
    )
    install_error_handlers(app)
    install_openapi(app, bodies=_BODIES)
    app.router.routes.extend(_routes().routes)
    app.mount("/static", _KeptFiles(directory=STATIC_DIR), name="static")
    # The last one added runs first: who does not fit is refused at once, the others are counted, then refused or let in.
    app.add_middleware(NotedReads, services=services)
    app.add_middleware(Gate, settings=settings)
    app.add_middleware(Observe, metrics=metrics)
    app.add_middleware(Admission, lanes=lanes)
    return app
