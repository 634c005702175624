"""A process sends its spans to the collector that OpenTelemetry's variables name."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
_PROGRAM = """
from wherefrom.spans import span
from worker.vitals.traces import start_traces
traces = start_traces("attribute")
with span("batch", bundle_id=7):
    pass
traces.close()
"""


class Collector(HTTPServer):
    """Keeps what is sent to it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.got: list[tuple[str, bytes]] = []

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        """Take it."""
        assert isinstance(self.server, Collector)
        self.server.got.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say nothing."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector on loopback."""
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def run(**variables: str) -> str:
    """Run a process that makes one span; what it logs."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"} | variables
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout + done.stderr


def test_spans_reach_the_collector(collector: Collector) -> None:
    """With the service's name, the role of the process and the attributes; what the operator named stays."""
    run(OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
    run(OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_SERVICE_NAME="audits-eu")
    (path, first), (_, second) = collector.got
    assert path == "/v1/traces"
    assert all(word in first for word in (b"batch", b"wherefrom.bundle_id", b"wherefrom.role", b"attribute"))
    assert b"audits-eu" in second
    assert b"audits-eu" not in first


def test_a_protocol_that_is_not_spoken_is_said(collector: Collector) -> None:
    """Nothing is sent, and the log says why."""
    told = run(OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_EXPORTER_OTLP_PROTOCOL="grpc")
    assert "traces_not_sent" in told
    assert collector.got == []
