"""Where API keys are needed, by the settings alone; what a single request says is judged by `web.guard.security`."""

import ipaddress

from wherefrom.errors import ConfigurationError
from wherefrom.settings import Settings


def is_loopback(host: str) -> bool:
    """True where only this machine can reach an address that the service binds to."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def key_needed(settings: Settings) -> bool:
    """True where every request needs an API key: in production, on any address but loopback, and where a host that is not loopback is allowed."""
    if settings.production:
        return True
    local = is_loopback(settings.host) and all(map(is_loopback, settings.allowed_hosts))
    return not (local or settings.unsafe_no_auth)


def refuse_keyless_production(settings: Settings) -> None:
    """Refuse to serve others without keys, before anything is served.

    Raises:
        ConfigurationError: `unsafe_no_auth` is set in production, or on an address that others reach.
    """
    if not settings.unsafe_no_auth:
        return
    if settings.production:
        raise ConfigurationError(
            "WHEREFROM_UNSAFE_NO_AUTH and WHEREFROM_PRODUCTION are both set; production mode requires API keys: unset WHEREFROM_UNSAFE_NO_AUTH"
        )
    if not is_loopback(settings.host):
        raise ConfigurationError(
            f"WHEREFROM_UNSAFE_NO_AUTH is set, but other machines can reach the address {settings.host}; unset it, or bind 127.0.0.1"
        )
