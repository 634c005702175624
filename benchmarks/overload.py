r"""Ten times more flagged outputs than the web service can store: what becomes of those that are let in, and of the others.

    python -m benchmarks.overload [--database-url URL] [--seconds 10] [--factor 10] [--connections kept|new] [--web-processes 1] [--json]

A real `python -m worker web` process on a free port. First its capacity: `SENDERS` senders, each sending one record after the other. Then
`factor` times that rate at random moments, whether answers come or not. Latency counts from the moment at which a request was due: it
includes the wait for a connection, the connecting, and the lateness of the generator.

The generator is one event loop that writes prepared bytes and reads no more of an answer than its status and length. It shares the
machine with the service. Its share of a core and its lateness are part of the result; while both are small, the figures are the service's.
"""

import argparse
import asyncio
import json
import os
import random
import socket
import subprocess
import sys
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

from benchmarks.program import command, run
from db import migrate

SENDERS = 8
START_S = 60.0
#: Connections that the generator holds at most; beyond it a request waits for one, and its wait counts.
MOST_OPEN = 2000
#: How long the last answers are waited for, seconds.
DRAIN_S = 15.0
#: How often the generator sends what is due, seconds.
TICK_S = 0.001
#: One request of so many asks for `/healthz`.
HEALTH_EVERY = 50
#: Stands for the status of a request whose connection ended without an answer.
LOST = 0

_HEALTH = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
_LENGTH = b"content-length: "


@dataclass
class Answers:
    """Seconds until every answer, by status."""

    seconds: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))

    def __len__(self) -> int:
        return sum(map(len, self.seconds.values()))

    def count(self, status: int) -> int:
        """Answers with this status."""
        return len(self.seconds[status])

    def quantile_ms(self, status: int, share: float) -> float | None:
        """A quantile of the latency of this status, milliseconds."""
        found = self.seconds[status]
        return round(1000 * float(np.quantile(found, share)), 1) if found else None


@dataclass(frozen=True)
class Request:
    """One request, and where its answer is noted."""

    content: bytes
    #: On the monotonic clock, seconds.
    due: float
    answers: Answers
    #: Gets its result with the answer; for a sender that waits for it.
    answered: asyncio.Future[None] | None = None

    def end(self, status: int) -> None:
        """Note the answer."""
        self.answers.seconds[status].append(time.monotonic() - self.due)
        if self.answered is not None and not self.answered.done():
            self.answered.set_result(None)


class Connection(asyncio.Protocol):
    """A connection to the service. It carries one request at a time."""

    def __init__(self, pool: "Pool", first: Request) -> None:
        self._pool = pool
        self._request: Request | None = first
        self._received = bytearray()
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the request for which it was opened."""
        self._transport = transport  # type: ignore[assignment]  # uvloop's transports inherit from nothing of asyncio
        if self._request is not None:
            self.send(self._request)

    def send(self, request: Request) -> None:
        """Send a request."""
        self._request = request
        if self._transport is not None:
            self._transport.write(request.content)

    def data_received(self, data: bytes) -> None:
        """Note the answer when it is whole."""
        self._received += data
        head, ends, body = self._received.partition(b"\r\n\r\n")
        if not ends or len(body) < int(head.lower().partition(_LENGTH)[2].partition(b"\r\n")[0]):
            return
        keeps = self._pool.keeps and b"connection: close" not in head.lower()
        self._received.clear()
        self._end(int(head[9:12]))
        if keeps:
            self._pool.free(self)
        elif self._transport is not None:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        """An answer that has not come will not come."""
        del error
        self._end(LOST)
        self._pool.lost(self)

    def _end(self, status: int) -> None:
        request, self._request = self._request, None
        if request is not None:
            request.end(status)


class Pool:
    """Connections as the pool of an HTTP client holds them: kept while the service keeps them, or one for each request."""

    def __init__(self, port: int, *, keeps: bool) -> None:
        self.keeps = keeps
        self.opened = 0
        self._port = port
        self._open = 0
        self._idle: list[Connection] = []
        self._waiting: deque[Request] = deque()
        self._opening: set[asyncio.Task[None]] = set()

    def send(self, request: Request) -> None:
        """Send a request on an idle connection, on a new one, or as soon as one is idle."""
        if self._idle:
            self._idle.pop().send(request)
        elif self._open < MOST_OPEN:
            self._open += 1
            self.opened += 1
            task = asyncio.create_task(self._connect(request))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)
        else:
            self._waiting.append(request)

    def free(self, connection: Connection) -> None:
        """The connection can carry another request."""
        if self._waiting:
            connection.send(self._waiting.popleft())
        else:
            self._idle.append(connection)

    def lost(self, connection: Connection) -> None:
        """The connection has ended."""
        if connection in self._idle:
            self._idle.remove(connection)
        self._open -= 1
        if self._waiting:
            self.send(self._waiting.popleft())

    async def _connect(self, request: Request) -> None:
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: Connection(self, request), "127.0.0.1", self._port
            )
        except OSError:
            self._open -= 1
            request.end(LOST)


def _flagged(number: int) -> bytes:
    record = {"model": "none", "prompt": f"question {number}", "completion": "an answer of some length " * 20}
    body = json.dumps(record).encode()
    head = b"POST /v1/flagged HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % len(body) + body


async def closed_loop(port: int, seconds: float, *, keeps: bool) -> float:
    """Records stored per second by `SENDERS` senders that wait for each answer."""
    answers, end, pool = Answers(), time.monotonic() + seconds, Pool(port, keeps=keeps)

    async def sender(number: int) -> None:
        while time.monotonic() < end:
            answered = asyncio.get_running_loop().create_future()
            pool.send(Request(_flagged(number), time.monotonic(), answers, answered))
            await answered

    await asyncio.gather(*(sender(number) for number in range(SENDERS)))
    return answers.count(202) / seconds


@dataclass
class Load:
    """What came of an open loop."""

    answers: Answers = field(default_factory=Answers)
    health: Answers = field(default_factory=Answers)
    #: How long after its moment each request was handed to a connection, seconds.
    lateness: list[float] = field(default_factory=list)
    #: Share of a core that the generator took.
    core: float = 0.0
    connections: int = 0

    @property
    def unanswered(self) -> int:
        """Requests that had no answer when the wait for the last ones was over."""
        return len(self.lateness) - len(self.answers) - len(self.health)


async def open_loop(port: int, rate: float, seconds: float, *, keeps: bool) -> Load:
    """Send `rate` requests per second at random moments, and wait for the last answers."""
    load, pool, moments = Load(), Pool(port, keeps=keeps), random.Random(0)
    cpu_s, started = time.process_time(), time.monotonic()
    due = started
    while due < started + seconds:
        now = time.monotonic()
        while due <= now:
            _send_due(pool, load, due)
            load.lateness.append(now - due)
            due += moments.expovariate(rate)
        await asyncio.sleep(TICK_S)
    load.core = (time.process_time() - cpu_s) / (time.monotonic() - started)
    end = time.monotonic() + DRAIN_S
    while load.unanswered and time.monotonic() < end:  # noqa: ASYNC110 - each answer would have to look for the last one
        await asyncio.sleep(0.05)
    load.connections = pool.opened
    return load


def _send_due(pool: Pool, load: Load, due: float) -> None:
    number = len(load.lateness)
    if number % HEALTH_EVERY == 0:
        pool.send(Request(_HEALTH, due, load.health))
    else:
        pool.send(Request(_flagged(number), due, load.answers))


@contextmanager
def web_service(database_url: str, folder: Path, *, processes: int = 1) -> Iterator[int]:
    """A web service of so many processes over a migrated database; its port."""
    migrate.upgrade(database_url)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    settings = {
        "WHEREFROM_DATABASE_URL": database_url,
        "WHEREFROM_REDIS_URL": "redis://127.0.0.1:1/0",
        "WHEREFROM_STATE_DIR": str(folder / "state"),
        "WHEREFROM_PORT": str(port),
        "WHEREFROM_WEB_PROCESSES": str(processes),
        "WHEREFROM_LOG_LEVEL": "error",
    }
    program = [sys.executable, "-m", "worker", "web"]
    with subprocess.Popen(program, env=os.environ | settings, stderr=subprocess.DEVNULL) as process:
        try:
            _await(lambda: _listens(port), "the web service")
            if processes > 1:
                _await(lambda: _serve(folder / "state", processes), f"{processes} web processes")
            yield port
        finally:
            process.terminate()


def _await(ready: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + START_S
    while not ready():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what} did not start within {START_S:.0f} s")
        time.sleep(0.1)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _serve(state: Path, processes: int) -> bool:
    """Whether the files are there in which processes that share the port say that they serve."""
    return all((state / f"web-{number}.json").exists() for number in range(1, processes + 1))


def main() -> None:
    """Measure and report."""
    parser = command(__doc__)
    parser.add_argument(
        "--database-url", help="an empty database (default: a SQLite file that is deleted afterwards)"
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each part")
    parser.add_argument("--factor", type=float, default=10.0, help="load over capacity")
    parser.add_argument(
        "--connections",
        choices=["kept", "new"],
        default="kept",
        help="kept open as a client's pool does, or a new one for each request",
    )
    parser.add_argument(
        "--web-processes", type=int, default=1, help="processes that share the port (default: %(default)s)"
    )
    run(parser, measure, table=lambda result: [f"{name:<28}{value}" for name, value in result.items()])


def measure(arguments: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Capacity, then the overload."""
    url = arguments.database_url or f"sqlite:///{work / 'overload.db'}"
    keeps = arguments.connections == "kept"
    with web_service(url, work, processes=arguments.web_processes) as port:
        capacity = uvloop.run(closed_loop(port, arguments.seconds, keeps=keeps))
        rate = arguments.factor * capacity
        load = uvloop.run(open_loop(port, rate, arguments.seconds, keeps=keeps))
    return {
        "capacity_per_second": round(capacity, 1),
        "sent_per_second": round(rate, 1),
        "load_average": round(os.getloadavg()[0], 1),
    } | _figures(load)


def _figures(load: Load) -> dict[str, Any]:
    answers = load.answers
    others = {status: len(found) for status, found in answers.seconds.items() if status not in {202, 429}}
    return {
        "stored": answers.count(202),
        "refused": answers.count(429),
        "other_answers": others,
        "unanswered": load.unanswered,
        "stored_p50_ms": answers.quantile_ms(202, 0.5),
        "stored_p95_ms": answers.quantile_ms(202, 0.95),
        "stored_p99_ms": answers.quantile_ms(202, 0.99),
        "refused_p95_ms": answers.quantile_ms(429, 0.95),
        "healthz_p95_ms": load.health.quantile_ms(200, 0.95),
        "connections_opened": load.connections,
        "generator_core": round(load.core, 2),
        "generator_late_p99_ms": round(1000 * float(np.quantile(load.lateness, 0.99)), 1),
    }


if __name__ == "__main__":
    main()
