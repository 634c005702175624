"""Where notices go and how they are signed, as Standard Webhooks has it: an id, the time of the try, and an HMAC over both and the body.

A receiver recomputes the signature with the secret that both know, refuses a time that is minutes off (a replayed request), and keeps the
ids that it has seen (a repeated try). `worker.sweeper.webhook` sends.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import SplitResult, urlsplit

#: How a secret begins, and the fewest bytes that it may stand for.
SECRET_PREFIX = "whsec_"  # noqa: S105 - the form of a secret, not one
LEAST_SECRET_BYTES = 24
#: Names of the headers.
ID, TIMESTAMP, SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"

_SECRET_FORM = (
    f"notify_secret must be {SECRET_PREFIX} and the base64 of at least {LEAST_SECRET_BYTES} bytes, or several of them with spaces between; "
    "`python -m worker notify secret` makes one"
)


@dataclass(frozen=True)
class WebhookTarget:
    """One receiver."""

    url: str = field(repr=False)
    host: str
    #: With each of these the body is signed: with two while the secret is being changed.
    secrets: tuple[bytes, ...] = field(repr=False)
    #: Whether it may be at a private, loopback or link-local address.
    private: bool

    @classmethod
    def of(cls, url: str, *, secret: str, hosts: Sequence[str], private: bool) -> Self:
        """The receiver that the settings describe. The text of an error quotes neither the URL nor a secret.

        Raises:
            ValueError: the URL cannot be used, its host is not among `hosts`, or there is no usable secret; the text says what to do.
        """
        parts = urlsplit(url)
        if parts.scheme != "https" and not (private and parts.scheme == "http"):
            raise ValueError(
                "notify_url must begin with https://; with notify_private also http://, for a receiver in your own network"
            )
        if "@" in parts.netloc or parts.fragment:
            raise ValueError(
                "notify_url must have neither a user nor a fragment; the signature says who sends"
            )
        host = _plain_host(parts.hostname or "")
        if not host or host not in map(_plain_host, hosts):
            raise ValueError("the host of notify_url is not in notify_hosts; add it there if it is right")
        if not _has_usable_port(parts):
            raise ValueError("the port of notify_url cannot be used")
        return cls(url=url, host=host, secrets=_secrets_in(secret), private=private)

    def headers(self, event_id: str, body: bytes, *, at_s: int) -> dict[str, str]:
        """The headers of one try.

        Args:
            event_id: The same with every try.
            body: What is sent.
            at_s: The time of the try, seconds since 1970.
        """
        signed = f"{event_id}.{at_s}.".encode() + body
        signatures = (base64.b64encode(hmac.digest(key, signed, hashlib.sha256)) for key in self.secrets)
        return {
            ID: event_id,
            TIMESTAMP: str(at_s),
            SIGNATURE: " ".join(f"v1,{one.decode('ascii')}" for one in signatures),
        }


def new_secret() -> str:
    """A new secret, in the form that `notify_secret` takes."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode("ascii")


def _plain_host(host: str) -> str:
    return host.lower().strip("[]").rstrip(".")


def _has_usable_port(parts: SplitResult) -> bool:
    try:
        return parts.port != 0
    except ValueError:  # no number, or over 65535
        return False


def _secrets_in(text: str) -> tuple[bytes, ...]:
    found = tuple(_secret(one) for one in text.split())
    if not found:
        raise ValueError(f"notify_url needs notify_secret. {_SECRET_FORM}")
    return found


def _secret(text: str) -> bytes:
    try:
        found = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error:
        found = b""
    if not text.startswith(SECRET_PREFIX) or len(found) < LEAST_SECRET_BYTES:
        raise ValueError(_SECRET_FORM)
    return found
