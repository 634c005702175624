"""kombu's Redis transport, made to survive rubbish on the queue.

What is no message at all (no JSON, no envelope) ends a Celery worker: kombu reads it outside of any error handling. Whoever can
write to Redis could so stop every worker again and again. Here it is logged and dropped; it was taken off the list by then.
"""

from queue import Empty
from typing import Any

from kombu.transport import redis

from wherefrom.logs import get_logger

log = get_logger(__name__)


class Channel(redis.Channel):
    """A channel that drops what it cannot read."""

    def _brpop_read(self, **options: Any) -> Any:
        """Read the answer to a BRPOP; an unreadable one counts as none."""
        try:
            return super()._brpop_read(**options)  # type: ignore[no-untyped-call]  # kombu annotates little
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            log.warning("message_refused", error=type(error).__name__)
            raise Empty from error


class Transport(redis.Transport):
    """The Redis transport over such channels."""

    Channel = Channel
