"""Counts and times every request by its route template, and gives it an id that stands on every line that is logged for it; paths and texts never become labels, log fields or attributes of spans."""

import re
import secrets
import time
from contextlib import AbstractContextManager, nullcontext
from http import HTTPStatus

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wherefrom.logs import get_logger
from wherefrom.metrics import Metrics
from wherefrom.spans import Kind, OpenSpan, span
from wherefrom.traceparent import TRACEPARENT, read_traceparent

_log = get_logger(__name__)

#: Header of the request's id: a proxy's or a client's own, where it is a plain word, else a new one. The answer carries it too.
REQUEST_ID = "X-Request-ID"
_PLAIN = re.compile(r"[A-Za-z0-9._-]{1,64}")
#: Route label of requests that no route takes; their paths are a stranger's text.
UNMATCHED = "unmatched"
#: How the paths begin whose requests get no spans.
_UNTRACED = ("/healthz", "/readyz", "/metrics", "/static/")


class Observe:
    """ASGI middleware: `http_requests_total`, `http_request_seconds`, the request's id and one log line per request."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = request_id_of(Headers(scope=scope))
        with (
            structlog.contextvars.bound_contextvars(request_id=request_id),
            _request_span(scope) as traced,
        ):
            await self._serve(scope, receive, send, request_id=request_id, traced=traced)

    async def _serve(
        self, scope: Scope, receive: Receive, send: Send, *, request_id: str, traced: OpenSpan
    ) -> None:
        status = 500
        start = time.monotonic()

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])
                MutableHeaders(scope=message)[REQUEST_ID] = request_id
            await send(message)

        try:
            await self._app(scope, receive, watch)
        finally:
            seconds = time.monotonic() - start
            route = getattr(scope.get("route"), "path", UNMATCHED)
            method = scope["method"] if route != UNMATCHED else "ANY"
            self._metrics.count("http_requests_total", route=route, method=method, status=str(status))
            self._metrics.observe("http_request_seconds", seconds, route=route)
            traced.call(f"{method} {route}")
            traced.set(route=route, method=method, status=status)
            if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                traced.fail(str(status))
            _log.debug("http_request", route=route, method=method, status=status, seconds=round(seconds, 4))


def _request_span(scope: Scope) -> AbstractContextManager[OpenSpan]:
    """The span of a request, named when its route is known. What asks every few seconds whether we are alive has none."""
    if scope["path"].startswith(_UNTRACED):
        return nullcontext(OpenSpan(None, None))
    return span("request", parent=_trace_of(Headers(scope=scope)), kind=Kind.SERVER)


def _trace_of(headers: Headers) -> str | None:
    """The traceparent that a request brings; None where it has none, none that is valid, or several."""
    given = headers.getlist(TRACEPARENT)
    return read_traceparent(given[0]) if len(given) == 1 else None


def request_id_of(headers: Headers) -> str:
    """The id that a request brings, or a new one."""
    given = headers.get(REQUEST_ID, "")
    return given if _PLAIN.fullmatch(given) else secrets.token_hex(8)
