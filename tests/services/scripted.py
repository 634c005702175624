"""A service for the client's tests: a real HTTP server that takes records like the real one, and fails when told to.

Each `Failure` put into `failures` answers one `POST /v1/flagged` before the server works again.
"""

import json
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from wherefrom.traceparent import TRACEPARENT, TRACEPARENTS


@dataclass(frozen=True)
class Failure:
    """One answer that is not 202."""

    status: int
    code: str | None = "scripted"
    message: str = "scripted failure"
    headers: dict[str, str] = field(default_factory=dict)
    #: Waits this long before it answers, seconds.
    delay_s: float = 0.0
    #: Stores the records all the same: the answer gets lost, not the request.
    stores: bool = False


class ScriptedService:
    """Serves on a free loopback port while it is entered."""

    def __init__(self, port: int = 0) -> None:
        self.stored: dict[str, dict[str, Any]] = {}
        self.batches: list[int] = []
        self.authorizations: list[str | None] = []
        #: Of each request with records: the headers `traceparent` and `Wherefrom-Traceparents`.
        self.traces: list[tuple[str | None, str | None]] = []
        self.failures: deque[Failure] = deque()
        #: What to do with a record: None takes it, a pair (status, code) refuses it.
        self.judge: Callable[[dict[str, Any]], tuple[int, str] | None] = lambda _record: None
        #: Answers to GET by path; called with the query's parameters.
        self.pages: dict[str, Callable[[dict[str, str]], Any]] = {}
        self.lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", port), _handler_of(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def port(self) -> int:
        return self._server.server_port

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def take(self, records: list[dict[str, Any]]) -> tuple[int, dict[str, Any]]:
        """Store records as the real service does: an invalid one refuses the whole request."""
        with self.lock:
            self.batches.append(len(records))
            for record in records:
                if (verdict := self.judge(record)) is not None:
                    return verdict[0], _error(verdict[1], f"refused {record['idempotency_key']}")
            return 202, {"results": [self._store(record) for record in records]}

    def _store(self, record: dict[str, Any]) -> dict[str, Any]:
        key = record["idempotency_key"]
        if key not in self.stored:
            self.stored[key] = record
            return {
                "status": "accepted",
                "idempotency_key": key,
                "audit_id": len(self.stored),
                "state": "pending",
            }
        if self.stored[key] == record:
            return {"status": "duplicate", "idempotency_key": key, "state": "pending"}
        return {
            "status": "conflict",
            "idempotency_key": key,
            "code": "idempotency_conflict",
            "reason": "other content",
        }


def _error(code: str | None, message: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message}} if code else {"detail": message}


def _handler_of(service: ScriptedService) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with service.lock:
                service.authorizations.append(self.headers.get("authorization"))
                service.traces.append((self.headers.get(TRACEPARENT), self.headers.get(TRACEPARENTS)))
                failure = service.failures.popleft() if service.failures else None
            if failure is None:
                self._answer(*service.take(body["records"]))
                return
            if failure.stores:
                service.take(body["records"])
            time.sleep(failure.delay_s)
            self._answer(failure.status, _error(failure.code, failure.message), failure.headers)

        def do_GET(self) -> None:
            address = urlsplit(self.path)
            page = service.pages.get(address.path)
            if page is None:
                self._answer(404, _error("not_found", f"unknown path: {address.path}"))
                return
            answer = page({name: values[0] for name, values in parse_qs(address.query).items()})
            self._answer(200, answer)

        def _answer(self, status: int, document: Any, headers: dict[str, str] | None = None) -> None:
            body = json.dumps(document).encode()
            try:
                self.send_response(status)
                for name, value in {"content-length": str(len(body)), **(headers or {})}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)
            except ConnectionError:  # the client gave up
                self.close_connection = True

        def log_message(self, *args: object) -> None:
            pass

    return Handler
