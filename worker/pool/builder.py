"""The build worker: reads parts of corpora for builds over many machines, on a queue of its own."""

from db.queues.build_queue import BuildQueue
from db.session import open_database
from wherefrom.messages import BUILD_QUEUE
from wherefrom.settings import Settings
from worker.app import Role
from worker.pool.engine import engine_of_process
from worker.pool.serving import Queue, serve_queue
from worker.vitals.liveness import LivenessFile
from worker.vitals.watchdog import Watchdog

#: Name of its sign of life.
LIVENESS_NAME = "builder"


class BuilderWatchdog(Watchdog):
    """Gives the sign of life, and never ends the process: parts may wait because this machine has not their model, and `worker.pool.connection_check` finds one that is deaf."""

    def _is_idle_with_work(self) -> bool:
        return False


def run_builder(settings: Settings) -> int:
    """Run the build worker until it is told to stop; its exit code.

    After SIGTERM the part in work is finished. Who does not want to wait kills it: the lease runs out, and another worker reads the part.

    Raises:
        ConfigurationError: the setting `engine` names none.
    """
    engine_of_process(settings)
    with open_database(settings) as database:
        BuildQueue(database).check_writable()
        return serve_queue(
            Queue(Role.BUILD, BUILD_QUEUE, node="wherefrom-build", processes=settings.worker_processes),
            settings,
            watchdog=BuilderWatchdog(database, limit_s=settings.watchdog_seconds),
            liveness=LivenessFile(settings, LIVENESS_NAME),
        )
