"""Connections to Redis as the service's own processes use them (Celery makes its own)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry

from wherefrom.errors import ConfigurationError, QueueFull, QueueUnavailable
from wherefrom.masking import mask
from wherefrom.messages import (
    FLAGGED_STREAM,
    QUARANTINE_STREAM,
    REJECTED_STREAM,
)
from wherefrom.redis_url import connection_options, is_unix
from wherefrom.settings import Settings

#: Options of every connection, ours and Celery's. Without `socket_timeout` a silent Redis is waited for without end.
SOCKET_OPTIONS = {
    "socket_timeout": 30.0,
    "socket_connect_timeout": 5.0,
    "socket_keepalive": True,
    "health_check_interval": 10,
}


def connect_redis(settings: Settings) -> redis.Redis:
    """A client of the Redis of the settings; connects when first used, answers in bytes.

    Never retries on its own: a read of the consumer group that is sent twice hides the entries of the first answer.

    Raises:
        ConfigurationError: the URL cannot be read.
    """
    url = settings.redis_url.get_secret_value()
    options = connection_options(url, SOCKET_OPTIONS)
    try:
        client: redis.Redis = redis.Redis.from_url(url, protocol=2, retry=Retry(NoBackoff(), 0), **options)
    except ValueError as error:
        raise ConfigurationError(
            f"WHEREFROM_REDIS_URL cannot be read: {mask(settings.redis_url.get_secret_value())}; write redis://:PASSWORD@HOST:PORT/DB "
            "or unix:///PATH. Write % and other special characters of the password percent-encoded (# is %23)"
        ) from error
    return client


def broker_of(settings: Settings) -> tuple[str, dict[str, Any]]:
    """URL and transport options by which Celery reaches the same Redis. It knows no `unix://`: `worker.broker.transport` takes the path as an option."""
    url = settings.redis_url.get_secret_value()
    options = {**connection_options(url, SOCKET_OPTIONS), "global_keyprefix": settings.key_prefix}
    if not is_unix(url):
        return url, options
    parts = parse_url(url)  # type: ignore[no-untyped-call]  # redis-py annotates it not
    user = f"{quote(parts.get('username') or '', safe='')}:{quote(parts.get('password') or '', safe='')}@"
    broker = f"redis://{'' if user == ':@' else user}localhost/{parts.get('db', 0)}"
    return broker, {**options, "unix_socket": parts["path"]}


@contextmanager
def redis_errors() -> Iterator[None]:
    """Turn every failure of Redis inside the block into `QueueUnavailable`, or `QueueFull` where it has no room."""
    try:
        yield
    except redis.exceptions.OutOfMemoryError as error:
        raise QueueFull(f"Redis: {error}") from error
    except redis.RedisError as error:
        if isinstance(error, redis.exceptions.ExecAbortError) and "OOM" in str(error):
            raise QueueFull(f"Redis: {error}") from error
        raise QueueUnavailable(f"Redis: {error}") from error


def flagged_stream(settings: Settings) -> str:
    """Key of the stream that producers add flagged outputs to."""
    return settings.key_prefix + FLAGGED_STREAM


def rejected_stream(settings: Settings) -> str:
    """Key of the stream of entries that intake could not take."""
    return settings.key_prefix + REJECTED_STREAM


def quarantine_stream(settings: Settings) -> str:
    """Key of the stream of entries that wait for an operator."""
    return settings.key_prefix + QUARANTINE_STREAM


def hint_queue(settings: Settings, queue: str) -> str:
    """Key of the list that holds the hints of a Celery queue."""
    return settings.key_prefix + queue
