"""kombu's Redis transport, made to survive rubbish on the queue and a Redis that crashes.

What is no message at all (no JSON, no envelope) ends a Celery worker: kombu reads it outside of any error handling. Whoever can
write to Redis could so stop every worker again and again. Here it is logged and dropped; it was taken off the list by then.

kombu also keeps an account of unacknowledged messages in Redis. An acknowledgement that fails (Redis crashed meanwhile) is
logged and forgotten, its message counts as unacknowledged for ever, and with a prefetch of one the worker never asks for another:
alive and deaf. A hint is worth nothing (docs/adr/0002), so here the account is kept in the process alone, where it cannot fail.
"""

import time
from queue import Empty
from typing import Any

from celery.app.amqp import AMQP
from kombu import connection
from kombu.transport import redis, virtual
from redis.connection import UnixDomainSocketConnection

from wherefrom.logs import get_logger

log = get_logger(__name__)

#: Seconds between two tries to reach Redis: the first wait, what each further one adds, the longest. kombu's own go up to 30.
RETRY_S = {"interval_start": 0.5, "interval_step": 0.5, "interval_max": 3.0}


#: Parameters of kombu's that a connection over a socket does not take.
_TCP_ONLY = frozenset(
    {"host", "port", "socket_connect_timeout", "socket_keepalive", "socket_keepalive_options"}
)


class QoS(redis.QoS):
    """Counts what is in work; writes nothing to Redis."""

    restore_at_shutdown = False

    def append(self, message: Any, delivery_tag: str) -> None:
        """Count a message as in work."""
        virtual.QoS.append(self, message, delivery_tag)  # type: ignore[no-untyped-call]  # kombu annotates little

    def ack(self, delivery_tag: str) -> None:
        """Count it no longer."""
        virtual.QoS.ack(self, delivery_tag)  # type: ignore[no-untyped-call]  # as above

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:  # noqa: FBT001, FBT002 - kombu's signature
        """Count it no longer; it is put back nowhere, for the sweeper sends hints while there is work."""
        del requeue
        self.ack(delivery_tag)

    def restore_visible(self, start: int = 0, num: int = 10, interval: int = 10) -> None:
        """Nothing is kept, so nothing can be put back."""


class Channel(redis.Channel):
    """A channel that drops what it cannot read, and knows when the queue last answered."""

    QoS = QoS
    from_transport_options = (*redis.Channel.from_transport_options, "unix_socket")  # type: ignore[assignment]  # inferred by its length
    #: Path of the socket of Redis, in place of host and port.
    unix_socket: str | None = None
    #: When the queue last answered (`time.monotonic`), be it with nothing; None before the first time.
    heard_at: float | None = None

    def _brpop_read(self, **options: Any) -> Any:
        """Read the answer to a BRPOP; an unreadable one counts as none."""
        try:
            read = super()._brpop_read(**options)  # type: ignore[no-untyped-call]  # kombu annotates little
        except Empty:
            self.heard_at = time.monotonic()
            raise
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            self.heard_at = time.monotonic()
            log.warning("message_refused", error=type(error).__name__)
            raise Empty from error
        self.heard_at = time.monotonic()
        return read

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002 - kombu's signature
        """Where and how to connect."""
        if self.unix_socket is not None:
            self.connection_class = UnixDomainSocketConnection  # type: ignore[assignment]  # inferred from TCP's
        parameters: dict[str, Any] = super()._connparams(asynchronous)  # type: ignore[no-untyped-call]  # as above
        if self.unix_socket is None:
            return parameters
        kept = {name: value for name, value in parameters.items() if name not in _TCP_ONLY}
        return {**kept, "path": self.unix_socket}

    def has_room(self) -> bool:
        """Whether the worker would take another message now."""
        return bool(self.qos.can_consume())


class Transport(redis.Transport):
    """The Redis transport over such channels."""

    Channel = Channel


class Connection(connection.Connection):
    """Asks for Redis every few seconds while it is away, so that a worker is back soon after Redis is."""

    def _ensure_connection(self, *args: Any, **options: Any) -> Any:
        return super()._ensure_connection(*args, **{**RETRY_S, **options})  # type: ignore[no-untyped-call]  # as above


class Amqp(AMQP):  # type: ignore[misc]  # Celery ships no types
    """Makes Celery use such connections."""

    Connection = Connection
