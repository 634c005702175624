"""People whom a proxy in front has signed in (OIDC, SAML, LDAP): it names them in a header, and proves with a secret that it is the proxy.

Off unless `proxy_user_header` is set. A request that carries one of the headers is believed only from an allowed address, with the
secret, and with each header once; anything else is refused, never served as somebody else. What people may do is written in `proxy_groups`.
"""

import hmac
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.datastructures import Headers

from db.access import people
from db.access.keys import ROLES
from db.session import Database
from web.guard.caller import Caller
from wherefrom.errors import ConfigurationError, Forbidden, InvalidRequest, Unauthorized
from wherefrom.records import Via
from wherefrom.settings import Settings

#: Headers that mean something else to us or to HTTP.
_TAKEN = frozenset(
    {"authorization", "cookie", "host", "origin", "content-type", "content-length", "idempotency-key"}
)
_LONGEST = 4_000

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class Proxy:
    """The proxy that is believed, and how it says what."""

    user_header: str
    secret_header: str
    secret: bytes
    networks: tuple[_Network, ...]
    groups_header: str | None
    #: Scopes by the group that gives them.
    groups: Mapping[str, frozenset[str]]

    def speaks(self, headers: Headers) -> bool:
        """Whether a request says that it comes from the proxy."""
        names = (self.user_header, self.secret_header, self.groups_header)
        return any(name is not None and name in headers for name in names)

    def caller_of(self, headers: Headers, address: str | None, database: Database) -> Caller | None:
        """Who was signed in; None where the request does not speak of it.

        Raises:
            Unauthorized: it is not the proxy that says so, or it says so in no clear way.
            Forbidden: the name cannot be that of a person.
        """
        if not self.speaks(headers):
            return None
        sent = _once(headers, self.secret_header)
        known = hmac.compare_digest(sent.encode("utf-8", "surrogatepass"), self.secret)
        if not known or not self._is_near(address):
            raise Unauthorized(
                "the headers of a proxy came from elsewhere; send an API key, or sign in through the proxy"
            )
        name = _once(headers, self.user_header).strip()
        if not name:
            raise Unauthorized("the proxy names nobody")
        scopes = self._scopes(headers)
        try:
            person = people.named_person(database, name)
        except (ConfigurationError, InvalidRequest) as error:
            raise Forbidden(str(error)) from error
        seed = f"proxy:{person.person_id}"
        return Caller(person.name, person.name, scopes, person, Via.SESSION, seed)

    def _scopes(self, headers: Headers) -> frozenset[str]:
        said = _once(headers, self.groups_header, may_lack=True) if self.groups_header else ""
        return frozenset().union(*(self.groups.get(one.strip(), ()) for one in said.split(",")))

    def _is_near(self, address: str | None) -> bool:
        try:
            found = ipaddress.ip_address(address or "")
        except ValueError:
            return False
        mapped = getattr(found, "ipv4_mapped", None)
        return any((mapped or found) in network for network in self.networks)


def _once(headers: Headers, name: str, *, may_lack: bool = False) -> str:
    """The only value of a header, which proxies write in UTF-8 and HTTP reads as Latin-1."""
    values = headers.getlist(name)
    if not values and may_lack:
        return ""
    if len(values) != 1 or len(values[0]) > _LONGEST:
        raise Unauthorized("the headers of the proxy are missing, doubled or too long")
    try:
        return values[0].encode("latin-1").decode("utf-8")
    except UnicodeError as error:
        raise Unauthorized("the headers of the proxy are not written in UTF-8") from error


def read_proxy(settings: Settings) -> Proxy | None:
    """The proxy of the settings; None where none is believed.

    Raises:
        ConfigurationError: a part is missing or wrong.
    """
    if settings.proxy_user_header is None:
        return None
    if settings.proxy_secret is None:
        raise ConfigurationError(
            "WHEREFROM_PROXY_USER_HEADER is set, and WHEREFROM_PROXY_SECRET is not: without it anybody could be anybody; set both"
        )
    names = (settings.proxy_user_header, settings.proxy_secret_header, settings.proxy_groups_header)
    lowered = [name.lower() for name in names if name is not None]
    if len(set(lowered)) < len(lowered) or _TAKEN & set(lowered):
        raise ConfigurationError(
            "the headers of the proxy must be different ones of its own, such as X-Auth-Request-Email"
        )
    return Proxy(
        user_header=settings.proxy_user_header,
        secret_header=settings.proxy_secret_header,
        secret=settings.proxy_secret.get_secret_value().encode(),
        networks=_networks(settings.proxy_addresses),
        groups_header=settings.proxy_groups_header,
        groups={group: _scopes(group, role) for group, role in settings.proxy_groups.items()},
    )


def _networks(addresses: tuple[str, ...]) -> tuple[_Network, ...]:
    try:
        return tuple(ipaddress.ip_network(one) for one in addresses)
    except ValueError as error:
        raise ConfigurationError(
            f"WHEREFROM_PROXY_ADDRESSES: {error}; write addresses or networks, such as 10.0.3.0/24"
        ) from error


def _scopes(group: str, role: str) -> frozenset[str]:
    if role not in ROLES:
        raise ConfigurationError(
            f"WHEREFROM_PROXY_GROUPS gives the group {group!r} the role {role!r}; the roles are {', '.join(ROLES)}"
        )
    return frozenset(scope.value for scope in ROLES[role])
