"""Serves the web application with uvicorn, and sends the hints for what it takes in: `web` itself knows neither Celery nor hints."""

import asyncio
import queue
import socket
import threading
from collections.abc import Callable, Iterable
from functools import partial
from importlib.util import find_spec
from typing import Literal

import uvicorn
from fastapi import FastAPI

from db.session import open_database
from web.app import create_app
from wherefrom.access import refuse_keyless_production
from wherefrom.errors import ConfigurationError
from wherefrom.journal import journal_folder
from wherefrom.logs import get_logger
from wherefrom.metrics import Metrics
from wherefrom.settings import Settings
from worker.app import make_celery
from worker.broker.hints import HintSender
from worker.broker.redis_link import connect_redis
from worker.loop import guarded, stop_on_signals
from worker.sweeper.journal_mover import JournalMover
from worker.sweeper.sealing import RoundThread
from worker.vitals.counter_store import CounterStore
from worker.vitals.liveness import LivenessFile
from worker.vitals.traces import start_traces

log = get_logger(__name__)

#: Seconds that open requests get at the end.
GRACE_S = 10


class HintThread:
    """Sends hints from a thread of its own, so that no answer waits for a Redis that is away."""

    def __init__(self, send: Callable[[Iterable[int]], None]) -> None:
        self._send = send
        self._asked: queue.SimpleQueue[tuple[int, ...] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="hints", daemon=True)
        self._thread.start()

    def notify(self, bundle_ids: Iterable[int]) -> None:
        """Ask for hints for these bundles; returns at once."""
        self._asked.put(tuple(bundle_ids))

    def close(self) -> None:
        """End the thread; hints not sent by then are the sweeper's."""
        self._asked.put(None)
        self._thread.join(timeout=1.0)

    def _run(self) -> None:
        while (bundle_ids := self._asked.get()) is not None:
            guarded(partial(self._send, bundle_ids), name="hints", otherwise=None)


def run_web(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; open requests are answered first.

    Raises:
        ConfigurationError: the address cannot be bound, or would be served without API keys.
    """
    refuse_keyless_production(settings)
    stop_on_signals()  # uvicorn takes the signals while it serves, and raises them again when it has ended
    listener = _listen(settings)
    port = listener.getsockname()[1]
    settings = settings.model_copy(update={"port": port})
    database, client, metrics, liveness = (
        open_database(settings),
        connect_redis(settings),
        Metrics(),
        LivenessFile(settings, "web"),
    )
    hints = HintThread(
        HintSender(make_celery(settings), client, settings=settings, metrics=metrics, sender="web").notify
    )
    app = create_app(settings, database, metrics=metrics, notify=hints.notify)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            http=_protocol(app),
            log_config=None,
            access_log=False,
            server_header=False,
            # What proxies say of a request is only looked at, never believed.
            proxy_headers=False,
            timeout_graceful_shutdown=GRACE_S,
        )
    )
    url = f"http://{_shown_host(settings.host)}:{port}"
    liveness.create(url=url)
    traces = start_traces("web")
    counting = CounterStore(metrics, database).start()
    mover = JournalMover(database, journal_folder(settings), metrics=metrics)
    moving = RoundThread(mover, name="journal-mover").start()
    log.info("web_started", url=url)
    try:
        server.run(sockets=[listener])
    finally:
        liveness.remove()
        app.state.services.close()
        moving.close()
        counting.close()
        traces.close()
        hints.close()
        listener.close()
        client.close()
        database.dispose()
    log.info("web_stopped")


def _protocol(app: FastAPI) -> type[asyncio.Protocol] | Literal["auto"]:
    """The protocol that refuses early; without httptools, which not every platform has, the application refuses."""
    if find_spec("httptools") is None:
        return "auto"
    from web.guard.protocol import refusing  # noqa: PLC0415 - imports httptools

    return refusing(app.state.services.lanes)


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family)
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on {settings.host} port {settings.port}: {error.strerror}; set WHEREFROM_HOST or WHEREFROM_PORT"
        ) from error


def _shown_host(host: str) -> str:
    """The host of an address that a browser on this machine can open."""
    if host in {"0.0.0.0", "::", ""}:  # noqa: S104 - shown, not bound
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host
