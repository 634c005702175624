"""Counts and times every request by its route template, and gives it an id that stands on every line that is logged for it; paths and texts never become labels or log fields."""

import re
import secrets
import time

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wherefrom.logs import get_logger
from wherefrom.metrics import Metrics

_log = get_logger(__name__)

#: Header of the request's id: a proxy's or a client's own, where it is a plain word, else a new one. The answer carries it too.
REQUEST_ID = "X-Request-ID"
_PLAIN = re.compile(r"[A-Za-z0-9._-]{1,64}")
#: Route label of requests that no route takes; their paths are a stranger's text.
UNMATCHED = "unmatched"


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
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            await self._serve(scope, receive, send, request_id)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
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
            _log.debug("http_request", route=route, method=method, status=status, seconds=round(seconds, 4))


def request_id_of(headers: Headers) -> str:
    """The id that a request brings, or a new one."""
    given = headers.get(REQUEST_ID, "")
    return given if _PLAIN.fullmatch(given) else secrets.token_hex(8)
