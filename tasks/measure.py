"""Works off one hint of the measuring queue: claim one measurement, measure it, store it, pass the hint on.

As with attribution a hint carries nothing but a bundle's number, and the rows in SQL are the truth. One measurement is many
trainings, so it is claimed alone; a heartbeat keeps its lease, and work that was lost to another worker stops between two runs.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import structlog
from pydantic import ValidationError

from db import measurements
from db.session import Database
from tasks.attribute import Clock
from tasks.backoff import backoff_seconds
from tasks.heartbeat import Heartbeat
from tasks.meter import EffectMeter
from wherefrom.errors import (
    INTERNAL_ERROR,
    DatabaseUnavailable,
    NotFound,
    OutOfMemory,
    PermanentError,
    TransientError,
)
from wherefrom.logs import get_logger
from wherefrom.messages import MeasureHint
from wherefrom.metrics import Metrics
from wherefrom.records import ClaimedMeasurement, MeasuredEffect, MeasurementState, Query
from wherefrom.settings import Settings

log = get_logger(__name__)


class MeasureRuntime(Protocol):
    """What one measuring process holds for its task; `worker.measuring_runtime` has the real one."""

    @property
    def settings(self) -> Settings:
        """Settings of the process."""

    @property
    def metrics(self) -> Metrics:
        """Metrics of the process."""

    @property
    def database(self) -> Database:
        """Where measurements are claimed and stored."""

    @property
    def owner(self) -> str:
        """Name under which this process claims."""

    @property
    def clock(self) -> Clock:
        """Seconds for durations."""

    def meter(self, bundle_id: int) -> EffectMeter:
        """The meter over a bundle, made once.

        Raises:
            MeasuringUnavailable: the settings do not say how the model was trained.
            UnknownBundle, BundleCorrupt, BundleMismatch, UnusableModel: bundle or model cannot be used.
        """

    def send_hint(self, bundle_id: int) -> None:
        """Put one more hint on the measuring queue; the queue being away is no error."""


class _Lost(Exception):
    """The measurement is held by another worker; what was computed is of no use."""


def work_measure_hint(message: Mapping[str, Any], runtime: MeasureRuntime) -> MeasurementState | None:
    """Work off one hint; the new state of the measurement, or None where there was none or it was lost.

    Raises:
        Nothing: failures are recorded with the measurement; a database that is away is logged, and the lease runs out.
    """
    try:
        bundle_id = MeasureHint.model_validate(message).bundle_id
    except ValidationError as error:
        log.warning("hint_refused", errors=error.error_count())
        return None
    with structlog.contextvars.bound_contextvars(bundle_id=bundle_id):
        try:
            return _work(bundle_id, runtime)
        except DatabaseUnavailable as error:
            log.warning("measurement_put_off", code=error.code, reason=str(error))
            return None


def _work(bundle_id: int, runtime: MeasureRuntime) -> MeasurementState | None:
    settings = runtime.settings
    if not measurements.pending_measurements(runtime.database).get(bundle_id):
        return None
    # Before the claim: imports and models take seconds in which a heartbeat may starve.
    meter = _opened(bundle_id, runtime)
    claimed = measurements.claim_measurement(
        runtime.database,
        bundle_id=bundle_id,
        owner=runtime.owner,
        lease_s=settings.lease_seconds,
        max_attempts=settings.max_attempts,
    )
    if claimed is None:
        return None
    started = runtime.clock()
    with structlog.contextvars.bound_contextvars(
        measurement_id=claimed.measurement_id, audit_id=claimed.audit_id
    ):
        state = measure_claimed(claimed, meter, runtime)
        told = None if state is None else state.value
        log.info("measurement_worked", state=told, seconds=round(runtime.clock() - started, 3))
    runtime.metrics.count("measurements_finished_total", state="fenced" if state is None else state.value)
    if measurements.pending_measurements(runtime.database).get(bundle_id):
        runtime.send_hint(bundle_id)
    return state


def _opened(bundle_id: int, runtime: MeasureRuntime) -> EffectMeter | Exception:
    """The meter, or why there is none: that is an outcome of the measurement, told with it."""
    try:
        return runtime.meter(bundle_id)
    except DatabaseUnavailable:
        raise
    except Exception as error:  # noqa: BLE001 - recorded with the measurement that is claimed next
        return error


def measure_claimed(
    claimed: ClaimedMeasurement, meter: EffectMeter | Exception, runtime: MeasureRuntime
) -> MeasurementState | None:
    """Measure what was claimed and record the outcome; None when another worker holds it by now.

    Args:
        claimed: The measurement.
        meter: What measures it, or why it could not be opened.
        runtime: Settings and database.

    Raises:
        DatabaseUnavailable: no outcome can be recorded; the lease runs out and it is claimed again.
    """
    try:
        if isinstance(meter, Exception):
            return _fail(claimed, meter, runtime)
        effect = _measure(claimed, meter, runtime)
        stored = measurements.finish_measurement(runtime.database, claimed, effect)
    except DatabaseUnavailable:
        raise
    except _Lost:
        stored = False
    except Exception as error:  # noqa: BLE001 - the task boundary: whatever happened belongs to this measurement
        return _fail(claimed, error, runtime)
    if not stored:
        log.warning("measurement_fenced", attempt=claimed.attempt)
        return None
    return MeasurementState.DONE


def _measure(claimed: ClaimedMeasurement, meter: EffectMeter, runtime: MeasureRuntime) -> MeasuredEffect:
    if claimed.record is None:
        raise NotFound(f"the text of audit {claimed.audit_id} was erased after its effect was asked for")
    settings, number = runtime.settings, claimed.measurement_id

    def renew() -> set[int]:
        kept = measurements.extend_measurement(runtime.database, claimed, lease_s=settings.lease_seconds)
        return {number} if kept else set()

    query = Query.from_record(str(claimed.audit_id), claimed.record)
    with Heartbeat(
        renew, [number], every_s=settings.heartbeat_seconds, bundle_id=claimed.bundle_id
    ) as heartbeat:

        def keep_going() -> None:
            if not heartbeat.holds(number):
                raise _Lost

        return meter.measure(query, claimed.example_id, method=claimed.method, keep_going=keep_going)


def _fail(claimed: ClaimedMeasurement, error: Exception, runtime: MeasureRuntime) -> MeasurementState | None:
    """Record a failure as its class of error says: permanent ones and bugs end it, transient ones wait."""
    settings, reason, retry_in_s = runtime.settings, str(error) or type(error).__name__, None
    if isinstance(error, PermanentError):
        code = error.code
        log.error("measurement_refused", code=code, reason=reason)
    elif isinstance(error, TransientError | MemoryError):
        code = error.code if isinstance(error, TransientError) else OutOfMemory.code
        base_s, cap_s = settings.backoff_base_seconds, settings.backoff_cap_seconds
        retry_in_s = backoff_seconds(claimed.attempt, base_s=base_s, cap_s=cap_s)
        log.warning("measurement_failed", attempt=claimed.attempt, code=code, reason=reason)
    else:
        code = INTERNAL_ERROR
        log.error("measurement_bug", attempt=claimed.attempt, exc_info=error)
        # The text of an unknown error may quote the output; the log has it, the table does not.
        reason = f"{type(error).__name__}; the measuring worker's log has the traceback under measurement_id {claimed.measurement_id}"
    return measurements.fail_measurement(
        runtime.database,
        claimed,
        code=code,
        reason=reason,
        retry_in_s=retry_in_s,
        max_attempts=settings.max_attempts,
    )
