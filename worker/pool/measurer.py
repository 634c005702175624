"""The measuring worker: one process that trains models again, on a queue of its own so that audits never wait for it."""

from db.measuring import measurements
from db.queues.measurement_queue import MeasurementQueue
from db.session import open_database
from wherefrom.messages import MEASURE_QUEUE
from wherefrom.records import MeasurementState
from wherefrom.settings import Settings
from worker.app import Role
from worker.pool.engine import engine_of_process
from worker.pool.measuring_check import check_active_bundles
from worker.pool.serving import Queue, serve_queue
from worker.vitals.liveness import LivenessFile
from worker.vitals.watchdog import Watchdog

#: Name of its sign of life.
LIVENESS_NAME = "measurer"


class MeasurerWatchdog(Watchdog):
    """Ends a measurer that is alive and deaf: something could be measured, and nothing is, for too long."""

    def _is_idle_with_work(self) -> bool:
        if not MeasurementQueue(self._database).pending_counts(at_most=1):
            return False
        return not measurements.measurement_counts(self._database)[MeasurementState.RUNNING]


def run_measurer(settings: Settings) -> int:
    """Run the measuring worker until it is told to stop; its exit code.

    After SIGTERM the measurement in work is finished. Who does not want to wait kills it: the lease runs out, the measurement is
    claimed again, and the trainings that are finished are kept.

    Raises:
        MeasuringUnavailable: no recipe is set; nothing was started.
        ConfigurationError: the setting `engine` names none.
    """
    settings.recipe_file()
    engine_of_process(settings)
    with open_database(settings) as database:
        check_active_bundles(database, settings)
        return serve_queue(
            Queue(Role.MEASURE, MEASURE_QUEUE, node="wherefrom-measure", processes=1),
            settings,
            watchdog=MeasurerWatchdog(database, limit_s=settings.watchdog_seconds),
            liveness=LivenessFile(settings, LIVENESS_NAME),
        )
