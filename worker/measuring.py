"""The measuring worker: one process that trains models again, on a queue of its own so that audits never wait for it."""

import os
import socket
import threading

from db import measurements
from wherefrom.messages import MEASURE_QUEUE
from wherefrom.records import MeasurementState
from wherefrom.settings import Settings
from worker.app import Role, make_celery
from worker.runtime import open_database
from worker.signs import Sign
from worker.watchdog import Watchdog

#: Name of its sign of life.
SIGN = "measurer"
#: Exit code of a measurer that its watchdog ended.
EXIT_STALLED = 1


class MeasuringWatchdog(Watchdog):
    """Ends a measurer that is alive and deaf: something could be measured, and nothing is, for too long."""

    def _is_idle_with_work(self) -> bool:
        if not measurements.pending_measurements(self._database):
            return False
        return not measurements.measurement_counts(self._database)[MeasurementState.RUNNING]


def run_measurer(settings: Settings) -> int:
    """Run the measuring worker until it is told to stop; its exit code.

    After SIGTERM the measurement in work is finished. Who does not want to wait kills it: the lease runs out, the measurement is
    claimed again, and the trainings that are finished are kept.

    Raises:
        MeasuringUnavailable: no recipe is set; nothing was started.
    """
    settings.recipe_file()
    database, sign, stop = open_database(settings), Sign(settings, SIGN), threading.Event()
    sign.give()
    watchdog = MeasuringWatchdog(database, limit_s=settings.watchdog_seconds)
    threading.Thread(
        target=watchdog.run,
        kwargs={"beat": sign.give, "stop": stop, "end": lambda: os._exit(EXIT_STALLED)},
        name="watchdog",
        daemon=True,
    ).start()
    worker = make_celery(settings, role=Role.MEASURE).Worker(
        hostname=f"wherefrom-measure-{os.getpid()}@{socket.gethostname()}",
        pool="prefork",
        concurrency=1,
        queues=[MEASURE_QUEUE],
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
        database.dispose()
    return int(worker.exitcode or 0)
