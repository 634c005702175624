"""How many requests are in work at once, and what becomes of the others: a short wait in a bounded line, then 429.

Without it, every request that came in would wait in the same line, each a little longer than the one before, until all of them had
been given up by their senders. Kinds of requests have lanes of their own, so that slow lists do not hold up flagging. Liveness and static files have none.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus

from starlette.types import ASGIApp, Receive, Scope, Send

from web.errors import BUSY_MESSAGE, BUSY_RETRY_AFTER_S, ErrorBody, ErrorDetail, answers_program
from web.guard.headers import SECURITY_HEADERS
from wherefrom.errors import TooBusy
from wherefrom.metrics import Metrics
from wherefrom.settings import Settings

#: Bodies that may arrive at once; each may be as large as the limit, so they bound the memory.
UPLOADS = 64
#: How long a list or a page waits for its turn, seconds; people wait longer than producers.
READ_WAIT_S = 2.0
#: Streams of whole listings, which take minutes.
EXPORTS = 4
#: Readiness and metrics, which ask the database.
PROBES = 2

_FREE_PATHS = ("/healthz", "/static/")
_PROBE_PATHS = frozenset({"/readyz", "/metrics"})
_EXPORT_PATHS = frozenset({"/v1/audits.jsonl", "/v1/audits.csv"})


class LaneName(StrEnum):
    """Kinds of requests."""

    #: A body of `POST /v1/flagged` arrives.
    UPLOAD = "upload"
    #: What arrived is checked and stored.
    STORE = "store"
    READ = "read"
    EXPORT = "export"
    PROBE = "probe"


class Lane:
    """A number of slots, and a line before them that is bounded in length and time. Belongs to one event loop."""

    def __init__(self, name: LaneName, *, slots: int, depth: int, wait_s: float, metrics: Metrics) -> None:
        """Prepare.

        Args:
            name: For the metric.
            slots: Requests in work at once.
            depth: Requests that may wait; one more is refused at once.
            wait_s: Longest wait, seconds; then the request is refused.
            metrics: Counts the refused ones.
        """
        self._name = name
        self._free = asyncio.Semaphore(slots)
        self._depth = depth
        self._wait_s = wait_s
        self._waiting = 0
        self._metrics = metrics

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Hold a slot for the time of the block.

        Raises:
            TooBusy: there was none in time; nothing was done.
        """
        if self._free.locked():
            await self._wait()
        else:
            await self._free.acquire()
        try:
            yield
        finally:
            self._free.release()

    @property
    def is_full(self) -> bool:
        """Every slot is taken, and so is every place in the line."""
        return self._free.locked() and self._waiting >= self._depth

    def refuse(self) -> None:
        """Count one request that is not let in."""
        self._metrics.count("http_refused_total", lane=self._name.value)

    async def _wait(self) -> None:
        if self.is_full:
            raise self._refusal()
        self._waiting += 1
        try:
            async with asyncio.timeout(self._wait_s):
                await self._free.acquire()
        except TimeoutError as error:
            raise self._refusal() from error
        finally:
            self._waiting -= 1

    def _refusal(self) -> TooBusy:
        self.refuse()
        return TooBusy(f"lane {self._name.value}: every slot is taken")


@dataclass(frozen=True)
class Lanes:
    """The lanes of one application."""

    upload: Lane
    store: Lane
    read: Lane
    export: Lane
    probe: Lane

    @classmethod
    def of(cls, settings: Settings, metrics: Metrics, *, most_writes: int | None = None) -> "Lanes":
        """The lanes that the settings ask for.

        Args:
            settings: Slots, depth and waits.
            metrics: Counts the refused requests.
            most_writes: Writers that the database has use for at once; None for as many as the settings say.
        """
        depth, wait_s = settings.max_waiting_requests, settings.max_wait_seconds
        return cls(
            upload=Lane(LaneName.UPLOAD, slots=UPLOADS, depth=0, wait_s=0.0, metrics=metrics),
            store=Lane(
                LaneName.STORE,
                slots=min(settings.max_concurrent_writes, most_writes or settings.max_concurrent_writes),
                depth=depth,
                wait_s=wait_s,
                metrics=metrics,
            ),
            read=Lane(
                LaneName.READ,
                slots=settings.max_concurrent_reads,
                depth=depth,
                wait_s=READ_WAIT_S,
                metrics=metrics,
            ),
            export=Lane(LaneName.EXPORT, slots=EXPORTS, depth=EXPORTS, wait_s=READ_WAIT_S, metrics=metrics),
            probe=Lane(LaneName.PROBE, slots=PROBES, depth=depth, wait_s=READ_WAIT_S, metrics=metrics),
        )

    def of_request(self, method: str, path: str) -> Lane | None:
        """The lane of a request; None where it never waits."""
        if path.startswith(_FREE_PATHS):
            return None
        if method == "POST" and path == "/v1/flagged":
            return self.upload
        if path in _PROBE_PATHS:
            return self.probe
        return self.export if path in _EXPORT_PATHS else self.read


class Admission:
    """ASGI middleware: lets a request in when its lane has a slot, and answers 429 with `Retry-After` otherwise.

    It stands before all others, and refuses with an answer that was made once. In the web process `web.guard.protocol` refuses most flagged
    outputs before a request gets here.
    """

    def __init__(self, app: ASGIApp, *, lanes: Lanes) -> None:
        self._app = app
        self._lanes = lanes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        lane = self._lanes.of_request(scope["method"], scope["path"]) if scope["type"] == "http" else None
        if lane is None:
            await self._app(scope, receive, send)
            return
        if lane is self._lanes.upload and self._lanes.store.is_full:
            self._lanes.store.refuse()  # its body need not be read to know that
            await _refuse(scope, send)
            return
        try:
            async with lane.slot():
                await self._app(scope, receive, send)
        except TooBusy:
            await _refuse(scope, send)


_JSON = ErrorBody(error=ErrorDetail(code=TooBusy.code, message=BUSY_MESSAGE))
#: Content type and body of a refusal: for programs (True) and for people.
REFUSAL_BODIES = {
    True: (b"application/json", _JSON.model_dump_json(exclude_none=True).encode()),
    False: (b"text/plain; charset=utf-8", BUSY_MESSAGE.encode()),
}
#: What every refusal carries besides.
REFUSAL_HEADERS = [
    *((name.lower().encode(), value.encode()) for name, value in SECURITY_HEADERS.items()),
    (b"retry-after", str(BUSY_RETRY_AFTER_S).encode()),
]


async def _refuse(scope: Scope, send: Send) -> None:
    kind, body = REFUSAL_BODIES[answers_program(scope["path"])]
    headers = [
        *REFUSAL_HEADERS,
        (b"content-type", kind),
        (b"content-length", str(len(body)).encode()),
        # What is left of a body that nobody reads would stand before the next request.
        (b"connection", b"close"),
    ]
    status = HTTPStatus.TOO_MANY_REQUESTS.value
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
