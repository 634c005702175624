"""Sends hints ("there is work for bundle B") while the queue is short; a hint that cannot be sent is no loss."""

import math
from collections.abc import Iterable, Mapping

import redis
from celery import Celery
from kombu.exceptions import OperationalError

from wherefrom.errors import QueueUnavailable
from wherefrom.logs import get_logger
from wherefrom.messages import (
    ATTRIBUTE_QUEUE,
    ATTRIBUTE_TASK,
    MEASURE_QUEUE,
    MEASURE_TASK,
    AttributeHint,
    MeasureHint,
)
from wherefrom.metrics import Metrics
from wherefrom.records import Frozen
from wherefrom.settings import Settings
from worker.redis_link import attribute_queue, measure_queue, redis_errors

log = get_logger(__name__)


class HintSender:
    """Puts hints on the queue. `sender` names who sends, for the metric: intake, sweeper, web or task."""

    def __init__(
        self, celery: Celery, client: redis.Redis, *, settings: Settings, metrics: Metrics, sender: str
    ) -> None:
        self._celery = celery
        self._redis = client
        self._settings = settings
        self._metrics = metrics
        self._sender = sender

    def room(self) -> int:
        """How many hints may be added before the queue is twice as long as there are processes.

        Raises:
            QueueUnavailable: Redis does not answer.
        """
        with redis_errors():
            waiting = int(self._redis.llen(attribute_queue(self._settings)))
        return max(0, 2 * self._settings.worker_processes - waiting)

    def send_for_work(self, pending: Mapping[int, int]) -> int:
        """Send hints for pending audits, bundles in turn, as far as there is room; how many were sent.

        Args:
            pending: Number of claimable audits by bundle id.

        Raises:
            QueueUnavailable: Redis does not answer.
        """
        batches = {
            bundle_id: math.ceil(count / self._settings.batch_audits)
            for bundle_id, count in pending.items()
            if count > 0
        }
        room = self.room() if batches else 0
        sent = 0
        while batches and sent < room:
            for bundle_id in list(batches)[: room - sent]:
                self.send(bundle_id)
                sent += 1
                batches[bundle_id] -= 1
            batches = {bundle_id: left for bundle_id, left in batches.items() if left}
        return sent

    def notify(self, bundle_ids: Iterable[int]) -> None:
        """Send one hint per bundle if there is room; never fails (the sweeper sends what was not sent)."""
        try:
            self.send_for_work(dict.fromkeys(bundle_ids, 1))
        except QueueUnavailable as error:
            log.info("hint_not_sent", sender=self._sender, reason=str(error))

    def send(self, bundle_id: int) -> None:
        """Put one hint on the queue, however long it is.

        Raises:
            QueueUnavailable: Redis does not answer.
        """
        self._put(ATTRIBUTE_TASK, AttributeHint(bundle_id=bundle_id), queue=ATTRIBUTE_QUEUE)

    def send_measure(self, bundle_id: int) -> None:
        """Put one hint on the measuring queue.

        Raises:
            QueueUnavailable: Redis does not answer.
        """
        self._put(MEASURE_TASK, MeasureHint(bundle_id=bundle_id), queue=MEASURE_QUEUE)

    def send_for_measurements(self, pending: Mapping[int, int]) -> int:
        """Send one hint per bundle with something to measure, if none waits on the queue; how many were sent.

        Args:
            pending: Number of claimable measurements by bundle id.

        Raises:
            QueueUnavailable: Redis does not answer.
        """
        if not pending:
            return 0
        with redis_errors():
            waiting = int(self._redis.llen(measure_queue(self._settings)))
        if waiting:
            return 0
        for bundle_id in pending:
            self.send_measure(bundle_id)
        return len(pending)

    def _put(self, task: str, hint: Frozen, *, queue: str) -> None:
        try:
            self._celery.send_task(
                task, kwargs=hint.model_dump(), queue=queue, ignore_result=True, retry=False
            )
        except (OperationalError, redis.RedisError) as error:
            raise QueueUnavailable(f"Redis: {error}") from error
        self._metrics.count("hints_sent_total", sender=self._sender)
