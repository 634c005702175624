"""The long-running processes: each puts its parts together, runs until it is told to stop, and tidies up."""

import os
import secrets
import socket
import threading

from db.session import open_database
from wherefrom.errors import QueueUnavailable
from wherefrom.logs import get_logger
from wherefrom.metrics import Metrics
from wherefrom.settings import Settings
from worker.app import Role, make_celery
from worker.broker.hints import HintSender, MeasureHintSender
from worker.broker.redis_link import connect_redis
from worker.erasure.erasing import Eraser
from worker.flagged_stream.intake import Intake
from worker.loop import run_loop
from worker.pool.engine import engine_of_process
from worker.pool.owners import owner_name
from worker.pool.serving import Queue, serve_queue
from worker.pool.verify import refuse_unusable_bundles
from worker.sweeper.notifying import Notifier
from worker.sweeper.sealing import RoundThread, Sealer
from worker.sweeper.sweep import Sweeper
from worker.vitals.counter_store import CounterStore
from worker.vitals.liveness import LOADING_S, LivenessFile, loading_file, refusal_file
from worker.vitals.presence import Presence
from worker.vitals.traces import start_traces
from worker.vitals.watchdog import Watchdog

log = get_logger(__name__)


def run_intake(settings: Settings, stop: threading.Event) -> None:
    """Take entries from the stream until `stop` is set."""
    client, database, metrics, liveness = (
        connect_redis(settings),
        open_database(settings),
        Metrics(),
        LivenessFile(settings, "intake"),
    )
    hints = HintSender(make_celery(settings), client, settings=settings, metrics=metrics, sender="intake")
    consumer = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    intake = Intake(client, database, settings=settings, metrics=metrics, hints=hints, consumer=consumer)
    log.info("intake_started", consumer=consumer, database=database.url_masked)

    def _beat() -> None:
        liveness.beat(**intake.situation())

    liveness.create()
    traces = start_traces("intake")
    counting = CounterStore(metrics, database).start()
    presence = Presence(database, role="intake", name=owner_name()).start()
    try:
        run_loop(intake.step, name="intake", stop=stop, beat=_beat, pause_s=0)
        intake.leave()
    except QueueUnavailable as error:
        log.info("consumer_left_behind", consumer=consumer, reason=str(error))
    finally:
        liveness.remove()
        presence.close()
        counting.close()
        client.close()
        database.dispose()
        traces.close()  # last: a collector that is away is waited for
    log.info("intake_stopped")


def run_sweeper(settings: Settings, stop: threading.Event) -> None:
    """Sweep until `stop` is set."""
    client, database, metrics, liveness = (
        connect_redis(settings),
        open_database(settings),
        Metrics(),
        LivenessFile(settings, "sweeper"),
    )
    celery = make_celery(settings)
    hints = HintSender(celery, client, settings=settings, metrics=metrics, sender="sweeper")
    measure_hints = MeasureHintSender(celery, client, settings=settings, metrics=metrics, sender="sweeper")
    sweeper = Sweeper(database, hints, measure_hints=measure_hints, settings=settings, metrics=metrics)
    eraser = Eraser(database, client, settings)

    def step() -> None:
        sweeper.step()
        eraser.step()

    log.info("sweeper_started", every_s=settings.sweep_seconds)
    liveness.create()
    counting = CounterStore(metrics, database).start()
    presence = Presence(database, role="sweep", name=owner_name()).start()
    notifier = Notifier.of(database, settings=settings, metrics=metrics)
    if notifier is not None:
        notifier.start()
    sealer = Sealer(database, settings, metrics=metrics)
    sealing = RoundThread(sealer, name="sealer").start()
    try:
        run_loop(step, name="sweeper", stop=stop, beat=liveness.beat, pause_s=settings.sweep_seconds)
    finally:
        liveness.remove()
        if notifier is not None:
            notifier.close()
        sealing.close()
        sealer.close()
        presence.close()
        counting.close()
        client.close()
        database.dispose()
    log.info("sweeper_stopped")


def run_worker(settings: Settings) -> int:
    """Run a Celery worker until it is told to stop; its exit code. SIGTERM: it finishes its batches first.

    Raises:
        ConfigurationError: the setting `engine` names none.
        DatabaseUnavailable: the active bundles cannot be read.
    """
    with open_database(settings) as database:
        refuse_unusable_bundles(database, engine_of_process(settings), settings)
        limit_s = settings.watchdog_seconds
        watchdog = Watchdog(
            database,
            limit_s=limit_s,
            is_excused=lambda bundle_id: (
                refusal_file(settings, bundle_id).is_fresh(limit_s)
                or loading_file(settings, bundle_id).is_fresh(LOADING_S)
            ),
        )
        return serve_queue(
            Queue(Role.ATTRIBUTE, None, node="wherefrom", processes=settings.worker_processes),
            settings,
            watchdog=watchdog,
            liveness=LivenessFile(settings, "worker"),
        )
