"""Runs a Celery worker over one queue until it is told to stop, beside a watchdog that ends it when it has gone deaf."""

import os
import socket
import threading
from dataclasses import dataclass

from wherefrom.settings import Settings
from worker.app import Role, make_celery
from worker.signs import Sign
from worker.watchdog import Watchdog

#: Exit code of a worker that its watchdog ended.
EXIT_STALLED = 1


@dataclass(frozen=True)
class Queue:
    """What a worker serves and how it is called."""

    role: Role
    #: None: Celery's default queue, that of attribution.
    name: str | None
    #: Beginning of the worker's node name.
    node: str
    processes: int


def serve_queue(queue: Queue, settings: Settings, *, watchdog: Watchdog, sign: Sign) -> int:
    """Serve until SIGTERM, finish what is in work, and tidy up; the worker's exit code."""
    stop = threading.Event()
    sign.give()
    threading.Thread(
        target=watchdog.run,
        kwargs={"beat": sign.give, "stop": stop, "end": lambda: os._exit(EXIT_STALLED)},
        name="watchdog",
        daemon=True,
    ).start()
    worker = make_celery(settings, role=queue.role).Worker(
        hostname=f"{queue.node}-{os.getpid()}@{socket.gethostname()}",
        pool="prefork",
        concurrency=queue.processes,
        queues=None if queue.name is None else [queue.name],
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
    )
    try:
        worker.start()
    finally:
        stop.set()
        sign.remove()
    return int(worker.exitcode or 0)
