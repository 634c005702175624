"""Sends one signed body to the webhook, by one POST; `worker.sweeper.notifying` says what and when.

The address is checked where the connection is made, behind the name's resolution, and that very address is connected to: a name that
resolves to another address a moment later (DNS rebinding) gains nothing. Redirects are not followed, proxies of the environment are not asked, and of an answer only the
status is read. The whole try has one deadline.
"""

import socket
import ssl
import time
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Any

import httpcore

from wherefrom.errors import WebhookAddressRefused, WebhookFailed, WebhookGone
from wherefrom.version import __version__
from wherefrom.webhook import WebhookTarget

Address = IPv4Address | IPv6Address
#: `socket.getaddrinfo`, or what stands for it.
Resolve = Callable[..., list[Any]]

#: IPv6 addresses that stand for an IPv4 address in their last 32 bits.
_CARRIES_IPV4 = (IPv6Network("64:ff9b::/96"), IPv6Network("::/96"))
_GONE = 410


def embedded(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for (mapped, 6to4, Teredo, NAT64), else the address."""
    if isinstance(address, IPv4Address):
        return address
    if address.teredo is not None:
        return address.teredo[1]
    carried = any(address in one for one in _CARRIES_IPV4) and int(address) > 1
    last = IPv4Address(int(address) & 0xFFFFFFFF) if carried else None
    return address.ipv4_mapped or address.sixtofour or last or address


def may_connect(address: Address, *, private: bool, encrypted: bool) -> bool:
    """Whether a notice may go to an address.

    Args:
        address: The resolved address.
        private: Whether private, loopback and link-local addresses are allowed.
        encrypted: Without TLS nothing goes to a public address.
    """
    real = embedded(address)
    if real.is_multicast or real.is_unspecified:
        return False
    retired = isinstance(real, IPv6Address) and real.is_site_local  # fec0::/10, which Python calls global
    return encrypted if real.is_global and not retired else private


class WebhookSender:
    """Sends to one receiver, a connection for each try."""

    def __init__(
        self,
        target: WebhookTarget,
        *,
        timeout_s: float,
        now: Callable[[], float] = time.time,
        resolve: Resolve = socket.getaddrinfo,
        trust: ssl.SSLContext | None = None,
    ) -> None:
        """Prepare; nothing is opened.

        Args:
            target: Where to.
            timeout_s: How long one try may take, all in all.
            now: The time that is signed, seconds since 1970.
            resolve: Finds the addresses of a name, as `socket.getaddrinfo` does.
            trust: Which certificates are believed; by default those of the system.
        """
        self._target = target
        self._timeout_s = timeout_s
        self._now = now
        self._resolve = resolve
        self._trust = trust

    def send(self, event_id: str, body: bytes) -> None:
        """Send a body, and return when the receiver has it.

        Raises:
            WebhookGone: the receiver wants no more.
            WebhookFailed: it does not answer in time, or not with 2xx; or it is at an address that is not allowed.
        """
        status = self._post(self._headers(event_id, body), body)
        if status == _GONE:
            raise WebhookGone("the receiver answered 410 (Gone)")
        if not 200 <= status < 300:
            raise WebhookFailed(f"the receiver answered {status}")

    def check(self) -> str:
        """The address that would be connected to now; nothing is sent.

        Raises:
            WebhookFailed: the name cannot be resolved, or none of its addresses is allowed.
        """
        url = httpcore.URL(self._target.url)
        return self._guard().addresses(self._target.host, url.origin.port)[0]

    def _headers(self, event_id: str, body: bytes) -> list[tuple[str, str]]:
        own = {"user-agent": f"wherefrom/{__version__}", "content-type": "application/json"}
        return [*own.items(), *self._target.headers(event_id, body, at_s=int(self._now())).items()]

    def _post(self, headers: list[tuple[str, str]], body: bytes) -> int:
        trust = self._trust or ssl.create_default_context()
        limits = dict.fromkeys(("connect", "read", "write", "pool"), self._timeout_s)
        try:
            with (
                httpcore.ConnectionPool(ssl_context=trust, network_backend=self._guard()) as pool,
                pool.stream(
                    "POST", self._target.url, headers=headers, content=body, extensions={"timeout": limits}
                ) as answer,
            ):
                return answer.status
        except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError) as error:
            raise WebhookFailed(f"no answer: {type(error).__name__}: {error}") from error

    def _guard(self) -> "_Guard":
        deadline = time.monotonic() + self._timeout_s
        encrypted = self._target.url.startswith("https:")
        return _Guard(self._resolve, private=self._target.private, encrypted=encrypted, deadline=deadline)


class _Guard(httpcore.NetworkBackend):
    """Connects to checked addresses only."""

    def __init__(self, resolve: Resolve, *, private: bool, encrypted: bool, deadline: float) -> None:
        self._resolve, self._deadline = resolve, deadline
        self._private, self._encrypted = private, encrypted
        self._plain = httpcore.SyncBackend()

    def connect_tcp(  # noqa: PLR0917 - httpcore dictates the signature
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """A connection to the first allowed address that answers."""
        failure: httpcore.NetworkError | httpcore.TimeoutException | None = None
        for address in self.addresses(host, port):
            try:
                made = self._plain.connect_tcp(
                    address, port, _left(self._deadline, timeout), local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return _Timed(made, self._deadline)
        raise failure or httpcore.ConnectError("no address")

    def addresses(self, host: str, port: int) -> list[str]:
        """The addresses of a host that may be connected to, never empty.

        Raises:
            WebhookFailed: it has none at all.
            WebhookAddressRefused: it has none that is allowed.
        """
        try:
            found = self._resolve(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise WebhookFailed(f"the name {host} cannot be resolved: {error}") from error
        addresses = list(dict.fromkeys(str(one[4][0]) for one in found))
        allowed = [
            one
            for one in addresses
            if may_connect(ip_address(one), private=self._private, encrypted=self._encrypted)
        ]
        if not allowed:
            raise WebhookAddressRefused(_refusal(host, addresses, private=self._private))
        return allowed


def _refusal(host: str, addresses: list[str], *, private: bool) -> str:
    told = f"{host} has the address {', '.join(addresses[:5])}"
    if private:
        return f"{told}: without https:// notices go to private addresses only, and to no multicast address"
    return f"{told}, which is not public; if it is right, set WHEREFROM_NOTIFY_PRIVATE=true"


class _Timed(httpcore.NetworkStream):
    """A connection whose every operation ends at one deadline, however slowly the other side drips."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: float) -> None:
        self._stream, self._deadline = stream, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Some bytes."""
        return self._stream.read(max_bytes, _left(self._deadline, timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send all bytes."""
        self._stream.write(buffer, _left(self._deadline, timeout))

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        """The same connection under TLS; the certificate must be that of the name, not of the address."""
        made = self._stream.start_tls(ssl_context, server_hostname, _left(self._deadline, timeout))
        return _Timed(made, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        """What httpcore asks of a connection."""
        return self._stream.get_extra_info(info)


def _left(deadline: float, timeout: float | None) -> float:
    """Seconds that one operation may take.

    Raises:
        ReadTimeout: none are left.
    """
    left = deadline - time.monotonic()
    if left <= 0:
        raise httpcore.ReadTimeout("the try took too long")
    return left if timeout is None else min(left, timeout)
