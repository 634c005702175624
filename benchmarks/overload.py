r"""Ten times more flagged outputs than the web service can store: what becomes of those that are let in, and of the others.

    python -m benchmarks.overload [--database-url URL] [--seconds 10] [--factor 10] [--json]

A real `python -m worker web` process on a free port. First its capacity: as many senders as it has slots, each sending one record after
the other. Then `factor` times that rate, sent by the clock whether answers come or not. Latency is that of the sender, connection
included. The senders share the machine with the service, so the capacity is that of this machine under its own load.
"""

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.program import command, run
from db import migrate

SENDERS = 8
START_S = 60.0
#: Connections that the generator holds at most; beyond it a request counts as not sent.
MOST_OPEN = 600


@dataclass
class Answers:
    """Seconds of every answer by status; 0 stands for none."""

    seconds: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))

    def count(self, status: int) -> int:
        """Answers with this status."""
        return len(self.seconds[status])

    def quantile_ms(self, status: int, share: float) -> float | None:
        """A quantile of the latency of this status, milliseconds."""
        return 1000 * float(np.quantile(self.seconds[status], share)) if self.seconds[status] else None


async def ask(port: int, answers: Answers, *, number: int, path: str = "/v1/flagged") -> None:
    """Send one request on a connection of its own, and note its answer."""
    record = {"model": "none", "prompt": f"question {number}", "completion": "an answer of some length " * 20}
    body = b"" if path != "/v1/flagged" else json.dumps(record).encode()
    verb = b"POST" if body else b"GET"
    head = b"%b %b HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    started = time.monotonic()
    status = 0
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head % (verb, path.encode(), len(body)) + body)
        status = int((await reader.readline()).split()[1])
        await reader.read()
        writer.close()
    except (OSError, IndexError, ValueError):
        status = 0
    answers.seconds[status].append(time.monotonic() - started)


async def closed_loop(port: int, seconds: float) -> float:
    """Records stored per second by `SENDERS` senders that wait for each answer."""
    answers, end = Answers(), time.monotonic() + seconds

    async def sender(first: int) -> None:
        number = first
        while time.monotonic() < end:
            await ask(port, answers, number=number)
            number += 1

    await asyncio.gather(*(sender(1_000_000 * one) for one in range(SENDERS)))
    return answers.count(202) / seconds


async def open_loop(port: int, rate: float, seconds: float) -> tuple[Answers, Answers, int]:
    """Answers to `rate` records per second, those of `/healthz` meanwhile, and how many could not be sent."""
    answers, health = Answers(), Answers()
    open_requests: set[asyncio.Task[None]] = set()
    unsent = 0
    started = time.monotonic()
    for number in range(int(rate * seconds)):
        delay = started + number / rate - time.monotonic()
        if delay > 0:
            await asyncio.sleep(delay)
        if len(open_requests) >= MOST_OPEN:
            unsent += 1
            await asyncio.sleep(0)
            continue
        is_health = number % 100 == 0
        asked = (
            ask(port, health, number=0, path="/healthz") if is_health else ask(port, answers, number=number)
        )
        task = asyncio.create_task(asked)
        open_requests.add(task)
        task.add_done_callback(open_requests.discard)
    await asyncio.gather(*open_requests)
    return answers, health, unsent


@contextmanager
def web_service(database_url: str, folder: Path) -> Iterator[int]:
    """A web process over a migrated database; its port."""
    migrate.upgrade(database_url)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    settings = {
        "WHEREFROM_DATABASE_URL": database_url,
        "WHEREFROM_REDIS_URL": "redis://127.0.0.1:1/0",
        "WHEREFROM_STATE_DIR": str(folder / "state"),
        "WHEREFROM_PORT": str(port),
        "WHEREFROM_LOG_LEVEL": "error",
    }
    command = [sys.executable, "-m", "worker", "web"]
    with subprocess.Popen(command, env=os.environ | settings, stderr=subprocess.DEVNULL) as process:
        try:
            _await_port(port)
            yield port
        finally:
            process.terminate()


def _await_port(port: int) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise SystemExit(f"the web service did not start within {START_S:.0f} s")


def main() -> None:
    """Measure and report."""
    parser = command(__doc__)
    parser.add_argument(
        "--database-url", help="an empty database (default: a SQLite file that is deleted afterwards)"
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each part")
    parser.add_argument("--factor", type=float, default=10.0, help="load over capacity")
    run(parser, measure, table=lambda result: [f"{name:<28}{value}" for name, value in result.items()])


def measure(arguments: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Capacity, then the overload."""
    url = arguments.database_url or f"sqlite:///{work / 'overload.db'}"
    with web_service(url, work) as port:
        capacity = asyncio.run(closed_loop(port, arguments.seconds))
        answers, health, unsent = asyncio.run(open_loop(port, arguments.factor * capacity, arguments.seconds))
    figures = _result(answers, health, unsent)
    return {"capacity_per_second": round(capacity, 1), "factor": arguments.factor} | figures


def _result(answers: Answers, health: Answers, unsent: int) -> dict[str, Any]:
    others = {status: len(found) for status, found in answers.seconds.items() if status not in {202, 429}}
    return {
        "stored": answers.count(202),
        "refused": answers.count(429),
        "other_answers": others,
        "not_sent": unsent,
        "stored_p50_ms": answers.quantile_ms(202, 0.5),
        "stored_p95_ms": answers.quantile_ms(202, 0.95),
        "refused_p95_ms": answers.quantile_ms(429, 0.95),
        "healthz_p95_ms": health.quantile_ms(200, 0.95),
    }


if __name__ == "__main__":
    main()
