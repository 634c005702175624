"""Runs a Celery worker over one queue until it is told to stop, watched from two sides; a watcher ends it when it has gone deaf."""

import os
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from celery import signals

from wherefrom.settings import Settings
from worker.app import Role, WherefromCelery, make_celery
from worker.broker.redis_link import connect_redis, redis_errors
from worker.pool.connection_check import ConnectionCheck, QueueConnection
from worker.vitals.liveness import LivenessFile, forget_left, leaving_file
from worker.vitals.watchdog import Watchdog

#: Exit code of a worker that a watcher ended.
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


def serve_queue(queue: Queue, settings: Settings, *, watchdog: Watchdog, liveness: LivenessFile) -> int:
    """Serve until SIGTERM, finish what is in work, and tidy up; the worker's exit code."""
    stop, leaving, in_order = threading.Event(), threading.Event(), threading.Event()
    celery = make_celery(settings, role=queue.role)
    forget_left(settings)
    sign = leaving_file(settings, celery.node)

    def _note(how: str, **_: Any) -> None:
        leaving.set()  # it asks for nothing from now on, and may work for long on what it has
        sign.beat()
        if how == "Warm":
            in_order.set()

    signals.worker_shutting_down.connect(_note)
    liveness.create()
    try:
        worker = _worker(queue, celery)
        connection_check = ConnectionCheck(lambda: connection_of(worker), _redis_ping(settings))
        _watch("watchdog", lambda: watchdog.run(beat=liveness.beat, stop=stop, end=_end))
        _watch("hearing", lambda: connection_check.run(stop=leaving, end=_end))
        worker.start()
    finally:
        stop.set()
        leaving.set()
        sign.remove()
        liveness.remove()
    # To Celery an end by SIGINT is a failure, to us it is what was asked for.
    return 0 if in_order.is_set() else int(worker.exitcode or 0)


def _worker(queue: Queue, celery: WherefromCelery) -> Any:
    return celery.Worker(
        hostname=f"{queue.node}-{os.getpid()}@{socket.gethostname()}",
        pool="prefork",
        concurrency=queue.processes,
        queues=None if queue.name is None else [queue.name],
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
    )


def connection_of(worker: Any) -> QueueConnection | None:
    """The channel over which a Celery worker takes its hints; None while it has none."""
    tasks = getattr(getattr(worker, "consumer", None), "task_consumer", None)
    channel: QueueConnection | None = getattr(tasks, "channel", None)
    return channel


def _redis_ping(settings: Settings) -> Callable[[], None]:
    """Asks Redis over a connection of its own."""
    client = connect_redis(settings)

    def ask() -> None:
        with redis_errors():
            client.ping()

    return ask


def _watch(name: str, run: Callable[[], None]) -> None:
    threading.Thread(target=run, name=name, daemon=True).start()


def _end() -> None:
    os._exit(EXIT_STALLED)
