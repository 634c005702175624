"""What the main process of a worker does when a pool process dies at work: it knows how, so it says so and frees the audits.

Without it nothing would be lost: the leases run out and the sweeper takes them back. But that takes a lease's time, and nobody
would learn that it was a signal, an exit code or the time limit.
"""

import re
import threading
from typing import Any

from billiard.einfo import ExceptionWithTraceback
from billiard.exceptions import WorkerLostError
from celery.worker.request import Request

from db.queues.audit_queue import AuditQueue
from db.queues.build_queue import BuildQueue
from db.queues.group_queue import GroupQueue
from db.queues.measurement_queue import MeasurementQueue
from db.session import open_database
from wherefrom.backoff import backoff_seconds
from wherefrom.errors import TransientError
from wherefrom.logs import get_logger
from wherefrom.settings import Settings
from worker.pool.owners import owner_prefix

log = get_logger(__name__)

#: How billiard says what became of a process: "Worker exited prematurely: signal 9 (SIGKILL) Job: 3."
_STATUS = re.compile(r"prematurely: (?P<status>.+?)(?: Job: \d+)?\.$")


class WatchedRequest(Request):  # type: ignore[misc]  # Celery ships no types
    """One hint in work, as the main process sees it; reports the death of the process that works on it."""

    def on_timeout(self, soft: bool, timeout: float) -> None:  # noqa: FBT001 - Celery calls it by position
        """The time limit is over; after the hard one the pool kills the process."""
        if not soft:
            self._report(f"its process was ended after the time limit of {timeout:g} s")
        super().on_timeout(soft, timeout)

    def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> Any:
        """The task raised, or its process is gone."""
        error = exc_info.exception
        if isinstance(error, ExceptionWithTraceback):
            error = error.exc
        if (cause := exit_reason(error)) is not None:
            self._report(cause)
        return super().on_failure(exc_info, *args, **kwargs)

    def _report(self, cause: str) -> None:
        """In a thread: the main process must not wait for the database."""
        owner = owner_prefix(self.worker_pid, self._app.node)
        threading.Thread(
            target=release_lost,
            args=(self._app.settings, owner),
            kwargs={"cause": cause},
            name="wherefrom-lost",
            daemon=True,
        ).start()


def exit_reason(error: BaseException) -> str | None:
    """What became of the process whose task failed with this error; None where it lives."""
    if isinstance(error, SystemExit):
        return f"its process ended with exit code {error.code if isinstance(error.code, int) else 1}"
    if not isinstance(error, WorkerLostError):
        return None
    found = _STATUS.search(str(error))
    if found is not None and "SIGALRM" in found["status"]:  # tasks.time_limit
        return "its process was ended after the time limit of the work in hand"
    status = "an unknown status" if found is None else found["status"].replace("exitcode", "exit code")
    return f"its process ended with {status}"


def release_lost(settings: Settings, owner: str, *, cause: str) -> None:
    """Free what a dead process held. A database that is away leaves it to the sweeper.

    Args:
        settings: Database, attempts and waits.
        owner: How the names of its owners begin.
        cause: How it ended.
    """

    def wait_s(spent: int) -> float:
        return backoff_seconds(
            spent, base_s=settings.backoff_base_seconds, cap_s=settings.backoff_cap_seconds
        )

    database = open_database(settings)
    try:
        for queue in (
            AuditQueue(database),
            MeasurementQueue(database),
            GroupQueue(database),
            BuildQueue(database),
        ):
            released = queue.release_lost(
                owner, cause=cause, max_attempts=settings.max_attempts, wait_s=wait_s
            )
            if released:
                log.warning("leases_of_dead_process", of=queue.subject, leases=released, cause=cause)
    except TransientError as error:
        log.warning("leases_left_to_sweeper", code=error.code, reason=str(error), cause=cause)
    finally:
        database.dispose()
