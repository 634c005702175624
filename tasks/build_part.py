"""Works off one hint of a build over many machines: claim one part, read it with the model, put its files into the shared folder, store their names, pass the hint on.

A hint carries nothing but a build's number. The model is loaded and compared before anything is claimed, so a machine that cannot take part costs no part an attempt.
Files are named by their content: a part that two workers read, or that one reads twice, leaves files that do no harm, and the one that holds the claim says which count.
"""

import os
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import structlog

from db.queues.build_queue import BuildQueue
from tasks.failures import Work, attempt, record_failure
from tasks.heartbeat import Heartbeat, LeaseLost
from tasks.runtime import TaskRuntime, hint_of
from tasks.time_limit import hard_limit
from wherefrom.attribution.bundles.shared_files import SharedFile, fetch_shared, put_shared
from wherefrom.attribution.bundles.work_folder import slot_folder
from wherefrom.attribution.interface import PartReader
from wherefrom.errors import OutOfMemory, PermanentError, TransientError
from wherefrom.logs import get_logger
from wherefrom.messages import BuildHint
from wherefrom.records import ClaimedPart, MeasurementState, PartOutput
from wherefrom.storage import Store

log = get_logger(__name__)

PART = Work("part", refused="part_refused", failed="part_failed", bug="part_bug")


class BuildRuntime(TaskRuntime, Protocol):
    """What one building process holds for its task; `worker.pool.builder_runtime` has the real one."""

    @property
    def queue(self) -> BuildQueue:
        """Where parts are claimed and stored."""

    def opened(self, build_id: int) -> tuple[PartReader, Store]:
        """What reads the parts of a build, made once, and the shared folder.

        Raises:
            NotFound: there is no such build any more.
            BuildMismatch, UnusableModel: this machine has not the planned model.
            OutOfMemory: the model does not fit here.
        """

    def refuse(self, build_id: int, error: PermanentError | OutOfMemory) -> None:
        """Tell whoever waits for the build that this process can take no part of it."""


def work_build_hint(message: Mapping[str, Any], runtime: BuildRuntime) -> MeasurementState | None:
    """Work off one hint; the new state of the part, or None where there was none or it was lost.

    Raises:
        Nothing: failures are recorded with the part; what is away is logged, and the lease runs out.
    """
    hint = hint_of(message, BuildHint)
    if hint is None:
        return None
    with structlog.contextvars.bound_contextvars(build_id=hint.build_id, worker=runtime.owner):
        try:
            return _work(hint.build_id, runtime)
        except (PermanentError, OutOfMemory) as error:  # what does not fit is loaded again after a while
            log.error("build_refused", code=error.code, reason=str(error))  # noqa: TRY400 - an operator's matter, no bug
            runtime.refuse(hint.build_id, error)
        except TransientError as error:
            log.warning("part_put_off", code=error.code, reason=str(error))
        return None


def _work(build_id: int, runtime: BuildRuntime) -> MeasurementState | None:
    settings = runtime.settings
    if not runtime.queue.pending_counts(at_most=1).get(build_id):
        return None
    reader, store = runtime.opened(build_id)
    claimed = runtime.queue.claim(
        build_id, owner=runtime.owner, lease_s=settings.lease_seconds, max_attempts=settings.max_attempts
    )
    if claimed is None:
        return None
    started = runtime.clock()
    with structlog.contextvars.bound_contextvars(part=claimed.number, part_id=claimed.part_id):
        with hard_limit(settings.build_time_limit_seconds):
            state = _read_claimed(claimed, reader, store, runtime)
        ended_as = "fenced" if state is None else state.value
        log.info("part_worked", state=ended_as, seconds=round(runtime.clock() - started, 3))
    runtime.metrics.count("build_parts_finished_total", state=ended_as)
    if runtime.queue.pending_counts(at_most=1).get(build_id):
        runtime.send_hint(build_id)
    return state


def _read_claimed(
    claimed: ClaimedPart, reader: PartReader, store: Store, runtime: BuildRuntime
) -> MeasurementState | None:
    """Read what was claimed and record the outcome; None when another worker holds it by now."""
    stored = attempt(lambda: _store(claimed, reader, store, runtime))
    if isinstance(stored, Exception):
        return record_failure(
            stored, queue=runtime.queue, work=PART, lease=claimed.lease, settings=runtime.settings
        )
    if not stored:
        log.warning("part_fenced", attempt=claimed.attempt)
        return None
    return MeasurementState.DONE


def _store(claimed: ClaimedPart, reader: PartReader, store: Store, runtime: BuildRuntime) -> bool:
    """Read and store; False when another worker holds the part by now."""
    try:
        output = _read(claimed, reader, store, runtime)
    except LeaseLost:
        return False
    return runtime.queue.finish(claimed, output)


def _read(claimed: ClaimedPart, reader: PartReader, store: Store, runtime: BuildRuntime) -> PartOutput:
    heartbeat = Heartbeat.of(
        runtime.queue, [claimed.lease], settings=runtime.settings, bundle_id=claimed.build_id
    )
    with slot_folder(Path(tempfile.gettempdir()) / f"wherefrom-parts-{os.getuid()}") as folder, heartbeat:
        keep_going = partial(heartbeat.require, claimed.lease)
        rows, made = folder / "rows.npz", folder / "made"
        made.mkdir()
        fetch_shared(store, SharedFile.ROWS, claimed.rows_sha256, to=rows)
        files = reader.read_part(rows, first=claimed.first_row, folder=made, keep_going=keep_going)
        keep_going()
        return PartOutput(
            shards=tuple(put_shared(store, SharedFile.SHARDS, file) for file in files.shards),
            moments=put_shared(store, SharedFile.MOMENTS, files.moments),
            read_on=None if files.read_on is None else dict(files.read_on),
        )
