"""Counts and times every request by its route template; ids and texts never become labels or log fields."""

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wherefrom.logs import get_logger
from wherefrom.metrics import Metrics

_log = get_logger(__name__)

#: Route label of requests that no route takes; their paths are a stranger's text.
UNMATCHED = "unmatched"


class Observe:
    """ASGI middleware: `http_requests_total`, `http_request_seconds` and one log line per request."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500
        start = time.monotonic()

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])
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
