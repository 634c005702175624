"""The address of the web service: its socket, its URL, and the file that says both to others of this machine."""

import socket

from wherefrom.errors import ConfigurationError
from wherefrom.settings import Settings
from worker.vitals.liveness import LivenessFile


def listen(settings: Settings, *, shared: bool = False) -> socket.socket:
    """A listening socket at the address of the settings.

    Args:
        settings: The address.
        shared: Other processes of this user may listen there too; the kernel hands each of them its share of the connections.

    Raises:
        ConfigurationError: the address cannot be bound.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, reuse_port=shared)
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on {settings.host} port {settings.port}: {error.strerror}; set WHEREFROM_HOST or WHEREFROM_PORT"
        ) from error


def web_file(settings: Settings, number: int | None = None) -> LivenessFile:
    """The file that says that the web service runs here, and where; or that one of the processes which share its port does."""
    return LivenessFile(settings, "web" if number is None else f"web-{number}")


def url_of(settings: Settings) -> str:
    """The address that a browser on this machine can open."""
    host = settings.host
    if host in {"0.0.0.0", "::", ""}:  # noqa: S104 - shown, not bound
        host = "127.0.0.1"
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"
