"""Serves the web application with uvicorn, and sends the hints for what it takes in: `web` itself knows neither Celery nor hints."""

import asyncio
import queue
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
from worker.vitals.traces import start_traces
from worker.web_address import listen, url_of, web_file

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


def run_web(settings: Settings, *, number: int | None = None) -> None:
    """Serve until SIGTERM or SIGINT; open requests are answered first.

    Args:
        settings: Address, limits, database.
        number: Which of several processes this is that share the port (`worker.web_processes`); None: the port is its own.

    Raises:
        ConfigurationError: the address cannot be bound, or would be served without API keys.
    """
    refuse_keyless_production(settings)
    # uvicorn takes the signals while it serves, and raises them again when it has ended.
    stop = stop_on_signals()
    listener = listen(settings, shared=number is not None)
    port = listener.getsockname()[1]
    settings = settings.model_copy(update={"port": port})
    database, client, metrics, liveness = (
        open_database(settings),
        connect_redis(settings),
        Metrics(process=None if number is None else str(number)),
        web_file(settings, number),
    )
    hints = HintThread(
        HintSender(make_celery(settings), client, settings=settings, metrics=metrics, sender="web").notify
    )
    app = create_app(settings, database, metrics=metrics, notify=hints.notify)
    server = _server_of(app)
    _end_on(stop, server)
    url = url_of(settings)
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
        hints.close()
        listener.close()
        client.close()
        database.dispose()
        traces.close()  # last: a collector that is away is waited for
    log.info("web_stopped")


def _server_of(app: FastAPI) -> uvicorn.Server:
    return uvicorn.Server(
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


def _end_on(stop: threading.Event, server: uvicorn.Server) -> None:
    """End a server also by a signal that comes before it takes signals itself."""

    def wait() -> None:
        stop.wait()
        server.should_exit = True

    threading.Thread(target=wait, name="stop", daemon=True).start()


def _protocol(app: FastAPI) -> type[asyncio.Protocol] | Literal["auto"]:
    """The protocol that refuses early; without httptools, which not every platform has, the application refuses."""
    if find_spec("httptools") is None:
        return "auto"
    from web.guard.protocol import refusing  # noqa: PLC0415 - imports httptools

    return refusing(app.state.services.lanes)
