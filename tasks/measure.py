"""Works off one hint of the measuring queue: claim one measurement, of a citation or of a group, measure it, store it, pass the hint on.

As with attribution a hint carries nothing but a bundle's number, and the rows in SQL are the truth. One measurement is many
trainings, so it is claimed alone; a heartbeat keeps its lease, and work that was lost to another worker stops between two runs.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Protocol

import structlog

from db.queues.group_queue import GroupQueue
from db.queues.measurement_queue import MeasurementQueue
from tasks.failures import MEASUREMENT, attempt, record_failure
from tasks.heartbeat import Heartbeat, LeaseLost
from tasks.runtime import TaskRuntime, hint_of
from tasks.time_limit import hard_limit
from wherefrom.attribution.interface import EffectMeter, GroupMeter
from wherefrom.errors import DatabaseUnavailable, MeasuringUnavailable, NotFound
from wherefrom.logs import get_logger
from wherefrom.messages import MeasureHint
from wherefrom.records import ClaimedGroup, ClaimedMeasurement, MeasuredEffect, MeasurementState, Query
from wherefrom.spans import Kind, OpenSpan, span

log = get_logger(__name__)

#: What one hint claims.
Claimed = ClaimedMeasurement | ClaimedGroup


class MeasureRuntime(TaskRuntime, Protocol):
    """What one measuring process holds for its task; `worker.pool.measurer_runtime` has the real one."""

    @property
    def queue(self) -> MeasurementQueue:
        """Where measurements are claimed and stored."""

    def meter(self, bundle_id: int) -> EffectMeter:
        """The meter over a bundle, made once.

        Raises:
            MeasuringUnavailable: the settings do not say how the model was trained.
            UnknownBundle, BundleCorrupt, BundleMismatch, UnusableModel: bundle or model cannot be used.
        """


def work_measure_hint(message: Mapping[str, Any], runtime: MeasureRuntime) -> MeasurementState | None:
    """Work off one hint; the new state of the measurement, or None where there was none or it was lost.

    Raises:
        Nothing: failures are recorded with the measurement; a database that is away is logged, and the lease runs out.
    """
    hint = hint_of(message, MeasureHint)
    if hint is None:
        return None
    with structlog.contextvars.bound_contextvars(bundle_id=hint.bundle_id, worker=runtime.owner):
        try:
            return _work(hint.bundle_id, runtime)
        except DatabaseUnavailable as error:
            log.warning("measurement_put_off", code=error.code, reason=str(error))
            return None


def _work(bundle_id: int, runtime: MeasureRuntime) -> MeasurementState | None:
    settings = runtime.settings
    if not runtime.queue.pending_counts(at_most=1).get(bundle_id):
        return None
    # Before the claim: imports and models take seconds in which a heartbeat may starve. Why there is no meter is told with the measurement.
    meter = attempt(lambda: runtime.meter(bundle_id))
    claimed = _claim(bundle_id, runtime)
    if claimed is None:
        return None
    started = runtime.clock()
    with (
        structlog.contextvars.bound_contextvars(
            measurement_id=claimed.measurement_id, audit_id=claimed.audit_id
        ),
        _span_of(claimed) as measuring,
    ):
        with hard_limit(settings.measure_time_limit_seconds):
            state = measure_claimed(claimed, meter, runtime)
        ended_as = None if state is None else state.value
        measuring.set(outcome=ended_as or "fenced")
        log.info("measurement_worked", state=ended_as, seconds=round(runtime.clock() - started, 3))
    runtime.metrics.count("measurements_finished_total", state="fenced" if state is None else state.value)
    if runtime.queue.pending_counts(at_most=1).get(bundle_id):
        runtime.send_hint(bundle_id)
    return state


def _span_of(claimed: Claimed) -> AbstractContextManager[OpenSpan]:
    """The span of a measurement, in the trace of the output that it is measured on."""
    return span(
        "measure",
        parent=claimed.traceparent,
        kind=Kind.CONSUMER,
        measurement_id=claimed.measurement_id,
        audit_id=claimed.audit_id,
        bundle_id=claimed.bundle_id,
        method=claimed.method.value if isinstance(claimed, ClaimedMeasurement) else "group",
    )


def _claim(bundle_id: int, runtime: MeasureRuntime) -> Claimed | None:
    """The oldest measurement of a citation, else of a group."""
    settings = runtime.settings
    lease: dict[str, Any] = {
        "owner": runtime.owner,
        "lease_s": settings.lease_seconds,
        "max_attempts": settings.max_attempts,
    }
    return runtime.queue.claim(bundle_id, **lease) or runtime.queue.groups.claim(bundle_id, **lease)


def measure_claimed(
    claimed: Claimed, meter: EffectMeter | Exception, runtime: MeasureRuntime
) -> MeasurementState | None:
    """Measure what was claimed and record the outcome; None when another worker holds it by now.

    Args:
        claimed: The measurement.
        meter: What measures it, or why it could not be opened.
        runtime: Settings and queue.

    Raises:
        DatabaseUnavailable: no outcome can be recorded; the lease runs out and it is claimed again.
    """
    stored = meter if isinstance(meter, Exception) else attempt(lambda: _store(claimed, meter, runtime))
    if isinstance(stored, Exception):
        queue = _queue(claimed, runtime)
        return record_failure(
            stored, queue=queue, work=MEASUREMENT, lease=claimed.lease, settings=runtime.settings
        )
    if not stored:
        log.warning("measurement_fenced", attempt=claimed.attempt)
        return None
    return MeasurementState.DONE


def _store(claimed: Claimed, meter: EffectMeter, runtime: MeasureRuntime) -> bool:
    """Measure and store; False when another worker holds the measurement by now."""
    try:
        effect = _measure(claimed, meter, runtime)
    except LeaseLost:
        return False
    with span("store"):
        return _finish(claimed, effect, runtime)


def _finish(claimed: Claimed, effect: MeasuredEffect, runtime: MeasureRuntime) -> bool:
    if isinstance(claimed, ClaimedGroup):
        return runtime.queue.groups.finish(claimed, effect)
    return runtime.queue.finish(claimed, effect)


def _queue(claimed: Claimed, runtime: MeasureRuntime) -> MeasurementQueue | GroupQueue:
    return runtime.queue.groups if isinstance(claimed, ClaimedGroup) else runtime.queue


def _measure(claimed: Claimed, meter: EffectMeter, runtime: MeasureRuntime) -> MeasuredEffect:
    if claimed.record is None:
        raise NotFound(f"the text of audit {claimed.audit_id} was erased after its effect was asked for")
    query = Query.from_record(str(claimed.audit_id), claimed.record)
    queue, settings = _queue(claimed, runtime), runtime.settings
    with Heartbeat.of(queue, [claimed.lease], settings=settings, bundle_id=claimed.bundle_id) as heartbeat:
        keep_going = partial(heartbeat.require, claimed.lease)
        if isinstance(claimed, ClaimedMeasurement):
            return meter.measure(query, claimed.example_id, method=claimed.method, keep_going=keep_going)
        if not isinstance(meter, GroupMeter):
            raise MeasuringUnavailable("this engine measures single citations only, no groups")
        return meter.measure_group(query, claimed.request, keep_going=keep_going)
