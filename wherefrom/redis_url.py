"""Which Redis URLs can be used, and with which options a connection over each kind is made."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

#: Options that only a TCP connection has.
_TCP_ONLY = frozenset({"socket_connect_timeout", "socket_keepalive"})
_FORMS = "redis://HOST:PORT/0, rediss://HOST:PORT/0 or unix:///PATH?db=0"


def is_unix(url: str) -> bool:
    """Whether the URL names a Unix socket."""
    return url.startswith("unix://")


def check_redis_url(url: str) -> None:
    """Return when the URL can be used. The text of an error quotes nothing of it: it may hold a password.

    Raises:
        ValueError: it cannot be used; the text says what is wrong with it and what to write.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"redis", "rediss", "unix"}:
        raise ValueError(f"the URL has an unknown form; write {_FORMS}")
    if "#" in url:
        raise ValueError("the URL contains #; in a user name or password, write it as %23")
    if is_unix(url):
        if not parts.path.strip("/"):
            raise ValueError("the URL names no socket; write unix:///PATH?db=0")
        return
    host = parts.netloc.rpartition("@")[2]
    if host.endswith(":"):
        raise ValueError(f"the port of the URL is empty; write {_FORMS}, or remove the colon")
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port is not None and not 0 < port < 65536:
        raise ValueError(
            "the port of the URL must be a number from 1 to 65535; in a user name or password, write / as %2F, ? as %3F and @ as %40"
        )


def connection_options(url: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the options that a connection over this URL takes."""
    return {name: value for name, value in options.items() if not (is_unix(url) and name in _TCP_ONLY)}
