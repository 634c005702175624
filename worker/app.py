"""The Celery application: hints only, JSON only, no results, prefork pool of spawned processes.

Why each setting is as it is: docs/adr/0002 and 0003. A pool process gets this application pickled, rebuilds it
(`__reduce_keys__` carries the settings along) and makes its `Runtime` when it has started.
"""

import secrets
import threading
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

from celery import Celery, signals

from db.session import open_database
from tasks.celery_tasks import AttributeTask, BuildTask, MeasureTask
from wherefrom.logs import configure_logging
from wherefrom.messages import ATTRIBUTE_QUEUE, ATTRIBUTE_TASK, BUILD_TASK, MEASURE_TASK
from wherefrom.metrics import Metrics
from wherefrom.settings import Settings
from worker.broker.hints import BuildHintSender, HintSender, MeasureHintSender
from worker.broker.redis_link import broker_of, connect_redis
from worker.pool.engine import engine_of_process
from worker.pool.owners import owner_name
from worker.pool.process_runtime import ProcessRuntime
from worker.pool.runtime import Runtime
from worker.vitals.counter_store import CounterStore
from worker.vitals.liveness import LOADING_S, leaving_file
from worker.vitals.presence import Presence
from worker.vitals.traces import Traces, start_traces

if TYPE_CHECKING:
    from worker.pool.builder_runtime import BuilderRuntime
    from worker.pool.measurer_runtime import MeasurerRuntime

R = TypeVar("R", bound=ProcessRuntime)

#: Longest time from the start of a pool process until it says that it is up; one that takes longer is killed and started again. Celery's 4 s are
#: less than a spawned Python needs for its imports on a busy machine (measured: 1.5 s idle, 11 s at a load of four per core), and a machine whose pool
#: processes are killed while they start stays busy.
ALIVE_S = 120.0


class Role(StrEnum):
    """What the pool processes of a worker are for; it decides which runtime they make."""

    ATTRIBUTE = "attribute"
    MEASURE = "measure"
    BUILD = "build"


class WherefromCelery(Celery):  # type: ignore[misc]  # Celery ships no types
    """A Celery application that knows the settings, its role and the tasks."""

    amqp_cls = "worker.broker.transport:Amqp"

    def __init__(
        self,
        *args: Any,
        settings: Settings,
        role: Role = Role.ATTRIBUTE,
        node: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.settings = settings
        self.role = role
        #: Name of this worker in the leases of its pool processes, which get it from the main process.
        self.node = node or secrets.token_hex(4)
        #: Stores what this pool process counts; None in every other process.
        self.counting: CounterStore | None = None
        #: Gives its signs of life; None likewise.
        self.presence: Presence | None = None
        #: Sends its spans; None likewise.
        self.traces: Traces | None = None
        super().__init__(*args, **kwargs)

    def on_init(self) -> None:
        """Register the tasks; called by Celery at the end of its constructor."""
        self.conf.update(celery_configuration(self.settings, self.role))
        for task in (AttributeTask(), MeasureTask(), BuildTask()):
            task.Request = "worker.pool.lost_process:WatchedRequest"  # looked up in the main process, which alone needs it
            self.register_task(task)
        # Not weak: nobody else holds these. The identifiers keep a second application from being served twice.
        signals.setup_logging.connect(self._set_up_logging, weak=False, dispatch_uid="wherefrom-logging")
        signals.worker_process_init.connect(self._start_runtime, weak=False, dispatch_uid="wherefrom-runtime")
        signals.worker_process_shutdown.connect(
            self._end_runtime, weak=False, dispatch_uid="wherefrom-runtime-end"
        )

    def _set_up_logging(self, **_: Any) -> None:
        """A receiver of this signal also keeps Celery from setting up logging itself."""
        configure_logging(self.settings)

    def _start_runtime(self, **_: Any) -> None:
        """Runs in each pool process when it has started."""
        _STARTS[self.role](self)

    def _end_runtime(self, **_: Any) -> None:
        """Runs in each pool process before it ends in order."""
        if self.presence is not None:
            self.presence.close()
        if self.counting is not None:
            self.counting.close()
        if self.traces is not None:
            self.traces.close()

    def __reduce_keys__(self) -> dict[str, Any]:
        return {**super().__reduce_keys__(), "settings": self.settings, "role": self.role, "node": self.node}


def make_celery(settings: Settings, *, role: Role = Role.ATTRIBUTE) -> WherefromCelery:
    """The application for sending hints and for running workers; connects when first used."""
    return WherefromCelery("wherefrom", settings=settings, role=role, set_as_current=False)


def celery_configuration(settings: Settings, role: Role = Role.ATTRIBUTE) -> dict[str, Any]:
    """Celery's settings."""
    broker_url, broker_options = broker_of(settings)
    limit_s = {
        Role.ATTRIBUTE: settings.batch_time_limit_seconds,
        Role.MEASURE: settings.measure_time_limit_seconds,
        Role.BUILD: settings.build_time_limit_seconds,
    }[role]
    return {
        "broker_url": broker_url,
        "broker_transport": "worker.broker.transport:Transport",
        "broker_transport_options": broker_options,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        # A hint is worth nothing: acknowledged before it runs, never given back, its result kept nowhere.
        "task_acks_late": False,
        "task_reject_on_worker_lost": False,
        "task_ignore_result": True,
        "result_backend": None,
        "task_default_queue": ATTRIBUTE_QUEUE,
        # Pickle can run code: anything but JSON is refused before it is read.
        "accept_content": ["json"],
        "task_serializer": "json",
        "event_serializer": "json",
        "worker_prefetch_multiplier": 1,
        # fork would share CUDA, threads and database connections with the parent.
        "worker_pool_start_method": "spawn",
        "worker_proc_alive_timeout": ALIVE_S,
        # The limit of the work itself starts when the model is loaded (tasks.time_limit); this one also ends a process that hangs while it loads.
        "task_time_limit": limit_s + LOADING_S,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "worker_send_task_events": False,
        "worker_enable_remote_control": False,
    }


def start_runtime(app: WherefromCelery) -> Runtime:
    """Make this process's runtime and hand it to the task."""
    runtime = _start(app, ATTRIBUTE_TASK, sender=HintSender, made=Runtime)
    threading.Thread(target=runtime.preload, name="wherefrom-preload", daemon=True).start()
    return runtime


def start_measurer_runtime(app: WherefromCelery) -> "MeasurerRuntime":
    """Make this process's runtime for measuring and hand it to the task."""
    from worker.pool.measurer_runtime import MeasurerRuntime  # noqa: PLC0415 - for the measurer alone

    return _start(app, MEASURE_TASK, sender=MeasureHintSender, made=MeasurerRuntime)


def start_builder_runtime(app: WherefromCelery) -> "BuilderRuntime":
    """Make this process's runtime for builds over many machines and hand it to the task."""
    from worker.pool.builder_runtime import BuilderRuntime  # noqa: PLC0415 - for build workers alone

    return _start(app, BUILD_TASK, sender=BuildHintSender, made=BuilderRuntime)


_STARTS: dict[Role, Callable[[WherefromCelery], ProcessRuntime]] = {
    Role.ATTRIBUTE: start_runtime,
    Role.MEASURE: start_measurer_runtime,
    Role.BUILD: start_builder_runtime,
}


def _start(app: WherefromCelery, task: str, *, sender: Callable[..., Any], made: Callable[..., R]) -> R:
    """A runtime of this kind with hints, metrics, database and engine of its own, and the counting beside it."""
    settings, metrics, database = app.settings, Metrics(), open_database(app.settings)
    owner = owner_name(app.node)
    runtime = made(
        settings,
        database=database,
        hints=sender(app, connect_redis(settings), settings=settings, metrics=metrics, sender="task"),
        metrics=metrics,
        engine=engine_of_process(settings),
        owner=owner,
        leaving=leaving_file(settings, app.node),
    )
    app.tasks[task].runtime = runtime
    app.traces = start_traces(app.role.value)
    app.counting = CounterStore(metrics, database).start()
    app.presence = Presence(database, role=app.role.value, name=owner, bundles=runtime.loaded_bundles).start()
    return runtime
