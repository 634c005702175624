"""Sends hints ("there is work for bundle B") while the queue is short; a hint that cannot be sent is no loss."""

import math
from collections.abc import Iterable, Mapping
from typing import ClassVar

import redis
from celery import Celery
from kombu.exceptions import OperationalError

from wherefrom.errors import QueueUnavailable
from wherefrom.logs import get_logger
from wherefrom.messages import (
    ATTRIBUTE_QUEUE,
    ATTRIBUTE_TASK,
    BUILD_QUEUE,
    BUILD_TASK,
    MEASURE_QUEUE,
    MEASURE_TASK,
    AttributeHint,
    BuildHint,
    MeasureHint,
)
from wherefrom.metrics import Metrics
from wherefrom.settings import Settings
from worker.broker.redis_link import hint_queue, redis_errors

log = get_logger(__name__)

#: Hints at builds that may wait: so many idle processes find one at once.
BUILD_HINTS = 64


class HintSender:
    """Puts hints at audits on their queue. `sender` names who sends, for the metric: intake, sweeper, web or task."""

    task: ClassVar[str] = ATTRIBUTE_TASK
    queue: ClassVar[str] = ATTRIBUTE_QUEUE

    def __init__(
        self, celery: Celery, client: redis.Redis, *, settings: Settings, metrics: Metrics, sender: str
    ) -> None:
        self._celery = celery
        self._redis = client
        self._settings = settings
        self._metrics = metrics
        self._sender = sender

    def send_for_work(self, pending: Mapping[int, int]) -> int:
        """Send hints for pending work, bundles in turn, as far as there is room; how many were sent.

        Args:
            pending: Number of claimable rows by bundle id.

        Raises:
            QueueUnavailable: Redis does not answer.
        """
        wanted = {bundle_id: self._hints_for(count) for bundle_id, count in pending.items() if count > 0}
        room = self._room(len(wanted)) if wanted else 0
        sent = 0
        while wanted and sent < room:
            for bundle_id in list(wanted)[: room - sent]:
                self.send(bundle_id)
                sent += 1
                wanted[bundle_id] -= 1
            wanted = {bundle_id: left for bundle_id, left in wanted.items() if left}
        return sent

    @property
    def enough_rows(self) -> int:
        """Rows of one bundle or build beyond which `send_for_work` would send no hint more, so that nobody counts further."""
        return self._most_hints * self._rows_per_hint

    def notify(self, bundle_ids: Iterable[int]) -> None:
        """Send one hint per bundle if there is room; never fails (the sweeper sends what was not sent)."""
        try:
            self.send_for_work(dict.fromkeys(bundle_ids, 1))
        except QueueUnavailable as error:
            log.info("hint_not_sent", sender=self._sender, reason=str(error))

    def pass_on(self, bundle_id: int) -> None:
        """Send one hint however long the queue is: each hint that ends starts at most one. Never fails."""
        try:
            self.send(bundle_id)
        except QueueUnavailable as error:
            log.info("hint_not_sent", sender=self._sender, reason=str(error))

    def send(self, bundle_id: int) -> None:
        """Put one hint on the queue, however long it is.

        Raises:
            QueueUnavailable: Redis does not answer.
        """
        hint = self._hint(bundle_id)
        try:
            self._celery.send_task(
                self.task, kwargs=hint.model_dump(), queue=self.queue, ignore_result=True, retry=False
            )
        except (OperationalError, redis.RedisError) as error:
            raise QueueUnavailable(f"Redis: {error}") from error
        self._metrics.count("hints_sent_total", sender=self._sender)

    @property
    def _most_hints(self) -> int:
        """How long the queue of hints becomes: twice the number of processes."""
        return 2 * self._settings.worker_processes

    @property
    def _rows_per_hint(self) -> int:
        """Rows of one bundle that a hint is sent for: a batch."""
        return self._settings.batch_audits

    def _hint(self, number: int) -> AttributeHint | MeasureHint | BuildHint:
        return AttributeHint(bundle_id=number)

    def _hints_for(self, rows: int) -> int:
        """How many hints this much work of one bundle is worth."""
        return math.ceil(rows / self._rows_per_hint)

    def _room(self, bundles: int) -> int:  # noqa: ARG002 - the measuring queue goes by it
        """How many hints may be added."""
        return max(0, self._most_hints - self._waiting())

    def _waiting(self) -> int:
        """How many hints are on the queue."""
        with redis_errors():
            return int(self._redis.llen(hint_queue(self._settings, self.queue)))


class MeasureHintSender(HintSender):
    """Puts hints at measurements on theirs: one per bundle, and only on an empty queue, for each takes minutes."""

    task = MEASURE_TASK
    queue = MEASURE_QUEUE

    @property
    def enough_rows(self) -> int:
        """One: there is one hint, however much work."""
        return 1

    def _hint(self, number: int) -> MeasureHint:
        return MeasureHint(bundle_id=number)

    def _hints_for(self, rows: int) -> int:  # noqa: ARG002 - one hint, however much work
        return 1

    def _room(self, bundles: int) -> int:
        return 0 if self._waiting() else bundles


class BuildHintSender(HintSender):
    """Puts hints at parts of builds on theirs: one per part, until some wait there, for nobody knows how many machines there are."""

    task = BUILD_TASK
    queue = BUILD_QUEUE

    @property
    def _most_hints(self) -> int:
        return BUILD_HINTS  # of all builds together

    @property
    def _rows_per_hint(self) -> int:
        return 1

    def _hint(self, number: int) -> BuildHint:
        return BuildHint(build_id=number)
