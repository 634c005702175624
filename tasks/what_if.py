"""Works off a few outputs of a what-if: claim, score the whole list against each, store, and put the rest back.

It runs in the processes that attribute, after their batch of audits, on the engine that is open there. An output that cannot be scored says so by its code; the others go on.
"""

from typing import Protocol

from db.queues.what_if_queue import WhatIfQueue
from tasks.failures import Work, attempt, record_failure
from tasks.heartbeat import Heartbeat
from tasks.runtime import TaskRuntime
from wherefrom.attribution.interface import Attributor, ListAttributor, PreparedQuery
from wherefrom.errors import ListsUnsupported, PermanentError
from wherefrom.logs import get_logger
from wherefrom.records import ClaimedWhatIf, MeasurementState, Query

log = get_logger(__name__)

WHAT_IF = Work("what_if", refused="what_if_refused", failed="what_if_failed", bug="what_if_bug")


class WhatIfRuntime(TaskRuntime, Protocol):
    """What one worker process holds for this task."""

    @property
    def what_ifs(self) -> WhatIfQueue:
        """Where what-ifs are claimed and stored."""


def work_what_if(bundle_id: int, attributor: Attributor, runtime: WhatIfRuntime) -> MeasurementState | None:
    """Work off the next outputs of a bundle's oldest what-if; its new state, None where there was none or it was lost.

    Raises:
        DatabaseUnavailable: nothing is stored; the lease runs out, and the outputs are claimed again.
    """
    settings, queue = runtime.settings, runtime.what_ifs
    claimed = queue.claim(
        bundle_id, owner=runtime.owner, lease_s=settings.lease_seconds, max_attempts=settings.max_attempts
    )
    if claimed is None:
        return None
    started = runtime.clock()
    state = attempt(lambda: _score(claimed, attributor, runtime))
    if isinstance(state, Exception):
        return record_failure(state, queue=queue, work=WHAT_IF, lease=claimed.lease, settings=settings)
    seconds = round(runtime.clock() - started, 3)
    told = None if state is None else state.value
    log.info(
        "what_if_worked",
        what_if_id=claimed.what_if_id,
        outputs=len(claimed.outputs),
        state=told,
        seconds=seconds,
    )
    return state


def _score(claimed: ClaimedWhatIf, attributor: Attributor, runtime: WhatIfRuntime) -> MeasurementState | None:
    if not isinstance(attributor, ListAttributor):
        raise ListsUnsupported(
            f"the engine of bundle {attributor.bundle_name} scores no lists of training examples"
        )
    settings, queue = runtime.settings, runtime.what_ifs
    prepared: list[PreparedQuery] = []
    refused: dict[int, str] = {}
    with Heartbeat.of(queue, [claimed.lease], settings=settings, bundle_id=claimed.bundle_id):
        for audit_id, record in claimed.outputs:
            query = Query.from_record(str(audit_id), record)
            try:
                prepared.append(
                    attributor.prepare(query, max_tokens=settings.max_tokens, over_long=settings.over_long)
                )
            except PermanentError as error:
                refused[audit_id] = error.code
        scores = attributor.score_list(prepared, claimed.rows) if prepared else []
        return queue.store(claimed, scores, refused)
