"""Works off one hint: claim a batch of the bundle and those that follow it at once, attribute them, score a few outputs of a what-if, and pass the hint on when work remains.

A hint carries nothing but a bundle's number and may be lost, doubled or forged, so nothing here trusts it: what it
cannot read it drops, and the pending rows in SQL say whether there is work.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import structlog

from tasks.ahead import Ahead
from tasks.attribute import BatchReport, attribute_batch
from tasks.runtime import hint_of
from tasks.store import AuditStore
from tasks.time_limit import hard_limit
from tasks.traces import batch_span
from tasks.what_if import WhatIfRuntime, work_what_if
from wherefrom.attribution.interface import Attributor
from wherefrom.errors import PermanentError, TransientError
from wherefrom.logs import get_logger
from wherefrom.messages import AttributeHint
from wherefrom.records import Claim

log = get_logger(__name__)

#: Seconds after which one hint claims nothing further: Celery counts the time of a task, and hints of other bundles wait behind it.
RUN_S = 30.0


class BatchRuntime(WhatIfRuntime, Protocol):
    """What one worker process holds for its tasks; `worker.pool.runtime` has the real one."""

    @property
    def store(self) -> AuditStore:
        """Where this process claims and records audits."""

    def has_loaded(self, bundle_id: int) -> bool:
        """Whether the engine over a bundle is loaded."""

    def has_refused(self, bundle_id: int) -> bool:
        """Whether a bundle was refused a short while ago, which the log has then told."""

    def attributor(self, bundle_id: int) -> Attributor:
        """The engine over a bundle, loaded once.

        Raises:
            UnknownBundle: the database has no such bundle, or its folder is missing.
            BundleCorrupt: a file of the bundle is not what its manifest states.
            BundleMismatch: the bundle and the database or the model differ.
        """


def work_hint(message: Mapping[str, Any], runtime: BatchRuntime) -> BatchReport | None:
    """Work off one hint; None where there was nothing to do or nothing could be done.

    The engine is loaded before anything is claimed: a bundle that cannot be opened costs no audit an attempt.
    """
    hint = hint_of(message, AttributeHint)
    if hint is None:
        return None
    with structlog.contextvars.bound_contextvars(bundle_id=hint.bundle_id, worker=runtime.owner):
        try:
            return _work_bundle(hint.bundle_id, runtime)
        except PermanentError as error:
            # Hints come twice a second: what was told when the bundle was looked at is not told with each of them.
            tell = log.debug if runtime.has_refused(hint.bundle_id) else log.error
            tell("bundle_refused", code=error.code, reason=str(error))
        except TransientError as error:
            log.warning("batch_put_off", code=error.code, reason=str(error))
    return None


def _work_bundle(bundle_id: int, runtime: BatchRuntime) -> BatchReport | None:
    if not runtime.has_loaded(bundle_id) and not _has_work(bundle_id, runtime):
        return None  # a forged or late hint: nothing is loaded, written or told for it
    attributor = runtime.attributor(bundle_id)
    # From here on, for loading a model may take longer than any batch.
    with hard_limit(runtime.settings.batch_time_limit_seconds) as begin_anew:
        report = _work_batches(bundle_id, attributor, runtime, begin_anew=begin_anew)
    with hard_limit(runtime.settings.batch_time_limit_seconds):
        work_what_if(bundle_id, attributor, runtime)
    if _has_work(bundle_id, runtime):
        runtime.send_hint(bundle_id)
    return report


def _has_work(bundle_id: int, runtime: BatchRuntime) -> bool:
    """Whether audits or what-ifs of a bundle could be claimed now."""
    counts = (runtime.store.pending_counts(at_most=1), runtime.what_ifs.pending_counts(at_most=1))
    return any(one.get(bundle_id) for one in counts)


def _work_batches(
    bundle_id: int, attributor: Attributor, runtime: BatchRuntime, *, begin_anew: Callable[[], None]
) -> BatchReport | None:
    started, started_ns = runtime.clock(), time.time_ns()
    claim = _claim(bundle_id, runtime, limit=runtime.settings.batch_audits)
    if claim is None:
        return None

    is_full = len(claim.audits) == runtime.settings.batch_audits  # else nobody waits behind them

    def find(room: int) -> Claim | None:
        return (
            _claim(bundle_id, runtime, limit=room) if _goes_on(bundle_id, runtime, started=started) else None
        )

    with batch_span(claim, started_ns=started_ns, others_follow=is_full):
        report = attribute_batch(
            claim,
            attributor=attributor,
            store=runtime.store,
            settings=runtime.settings,
            metrics=runtime.metrics,
            clock=runtime.clock,
            ahead=Ahead(
                runtime.store,
                find=find if is_full else None,
                is_ending=runtime.is_ending,
                on_taken=begin_anew,
            ),
        )
        log.info("batch_worked", seconds=round(runtime.clock() - started, 3), **report.counts())
    return report


def _goes_on(bundle_id: int, runtime: BatchRuntime, *, started: float) -> bool:
    """Whether the next batch is claimed while this one is worked on.

    Not where something else waits for this process, and not where another process of this worker would find less than a batch: what is claimed ahead waits here.
    """
    settings = runtime.settings
    if runtime.is_ending() or runtime.clock() - started > RUN_S:
        return False
    wanted = settings.batch_audits * settings.worker_processes
    audits = runtime.store.pending_counts(at_most=wanted)
    return audits == {bundle_id: wanted} and not runtime.what_ifs.pending_counts(at_most=1)


def _claim(bundle_id: int, runtime: BatchRuntime, *, limit: int) -> Claim | None:
    started, settings = runtime.clock(), runtime.settings
    claim = runtime.store.claim(
        bundle_id,
        owner=runtime.owner,
        limit=limit,
        lease_s=settings.lease_seconds,
        max_attempts=settings.max_attempts,
    )
    if claim is not None:
        runtime.metrics.observe("batch_seconds", runtime.clock() - started, stage="claim")
        runtime.metrics.count("claims_total")
    return claim
