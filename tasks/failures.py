"""What an error means for the work that raised it: the one place that gives it a code, a reason and a wait.

- `PermanentError`: refused with its code, never tried again.
- `TransientError`, `MemoryError`: tried again after a capped, jittered wait.
- anything else: a bug; never tried again, code `internal_error`, and the traceback in the log.

A database that takes no outcome is none: `attempt` lets it through, and the lease runs out.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from db.queues.queue import Failure
from wherefrom.backoff import backoff_seconds
from wherefrom.errors import (
    INTERNAL_ERROR,
    DatabaseUnavailable,
    OutOfMemory,
    PermanentError,
    TransientError,
)
from wherefrom.logs import get_logger
from wherefrom.records import AuditState, Lease, MeasurementState
from wherefrom.settings import Settings

log = get_logger(__name__)

T = TypeVar("T")
State_co = TypeVar("State_co", AuditState, MeasurementState, covariant=True)


@dataclass(frozen=True)
class Work:
    """A kind of work, with the names of its failures in the log."""

    name: str
    refused: str
    failed: str
    bug: str


AUDIT = Work("audit", refused="audit_rejected", failed="audit_failed", bug="audit_bug")
MEASUREMENT = Work(
    "measurement", refused="measurement_refused", failed="measurement_failed", bug="measurement_bug"
)


class RecordsFailures(Protocol[State_co]):
    """A queue, as far as failures go; `db.queues.queue` says how."""

    def fail(self, lease: Lease, failure: Failure, *, max_attempts: int) -> State_co | None:
        """Record a failed attempt; the new state, or None when another worker holds the row by now."""


def attempt(action: Callable[[], T]) -> T | Exception:
    """The action's result, or the exception that it raised: the one place where any failure becomes an outcome.

    Raises:
        DatabaseUnavailable: no outcome can be recorded either.
    """
    try:
        return action()
    except DatabaseUnavailable:
        raise
    except Exception as error:  # noqa: BLE001 - the task boundary: whatever happened belongs to one piece of work
        return error


def record_failure(
    error: Exception, *, queue: RecordsFailures[State_co], work: Work, lease: Lease, settings: Settings
) -> State_co | None:
    """Record with a claimed row that work on it failed; its new state, or None when another worker holds it by now.

    Args:
        error: What was raised.
        queue: Where the row was claimed.
        work: What failed.
        lease: The claim.
        settings: Times of the wait, and the most attempts.

    Raises:
        DatabaseUnavailable: nothing is recorded; the lease runs out.
    """
    failure = _failure_of(error, work=work, lease=lease, settings=settings)
    return queue.fail(lease, failure, max_attempts=settings.max_attempts)


def _failure_of(error: Exception, *, work: Work, lease: Lease, settings: Settings) -> Failure:
    """The failure that an error is; it is logged here."""
    about = {f"{work.name}_id": lease.id, "attempt": lease.attempt}
    reason = str(error) or type(error).__name__
    if isinstance(error, PermanentError):
        log.info(work.refused, code=error.code, reason=reason, **about)
        return Failure(error.code, reason, refused=True)
    if isinstance(error, TransientError | MemoryError):
        code = error.code if isinstance(error, TransientError) else OutOfMemory.code
        log.warning(work.failed, code=code, reason=reason, **about)
        base_s, cap_s = settings.backoff_base_seconds, settings.backoff_cap_seconds
        wait_s = backoff_seconds(lease.attempt, base_s=base_s, cap_s=cap_s)
        return Failure(code, reason, retry_in_s=wait_s)
    log.error(work.bug, exc_info=error, **about)
    # The text of an unknown error may quote the output; the log has it, the table does not.
    reason = f"{type(error).__name__}; the worker's log has the traceback under {work.name}_id {lease.id}"
    return Failure(INTERNAL_ERROR, reason)
