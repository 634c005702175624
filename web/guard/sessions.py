"""Signed cookies: a session that began with an API key or with a chosen name, and the tokens of forms. No SQL.

A cookie is ``kind.who.issued.mac``: the key's prefix or the person's number, the time in microseconds, and an HMAC over what stands
before it. It says who asks and since when; whether they still may, the database says at each request.
"""

import base64
import hashlib
import hmac
import os
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from starlette.datastructures import Headers
from starlette.responses import Response

from wherefrom.errors import ConfigurationError
from wherefrom.private import open_private, own_folder
from wherefrom.settings import Settings

COOKIE = "wherefrom_session"
#: Holds a nonce for the token of the form with which one signs in.
FORM_COOKIE = "wherefrom_form"
FILE_NAME = "session.secret"
_SECRET_BYTES = 32
#: A cookie of ours is shorter; longer ones are not looked at.
_LONGEST = 200
_MICRO = 1_000_000


class SessionKind(StrEnum):
    """How a session began."""

    #: With an API key.
    KEY = "k"
    #: With a name, on a machine that asks for no keys.
    LOCAL = "l"


@dataclass(frozen=True)
class Session:
    """What a signed cookie says."""

    kind: SessionKind
    #: Prefix of the key, or number of the person.
    who: str
    #: Microseconds since 1970.
    issued: int
    #: The whole cookie; tokens of forms are bound to it.
    value: str

    @property
    def issued_at(self) -> datetime:
        """When it began."""
        return datetime.fromtimestamp(self.issued / _MICRO, UTC)


class Signer:
    """Signs and reads what browsers keep for us.

    Args:
        secret: At least 32 random bytes; whoever knows it can sign in as anybody.
        lifetime_s: How long a session lasts, seconds.
    """

    def __init__(self, secret: bytes, *, lifetime_s: float) -> None:
        self._secret = secret
        self.lifetime_s = lifetime_s

    def begin(self, kind: SessionKind, who: str) -> str:
        """The cookie of a session that begins now."""
        said = f"{kind.value}.{who}.{int(time.time() * _MICRO)}"
        return f"{said}.{self._mac('session', said)}"

    def read(self, headers: Headers) -> Session | None:
        """The session of a request; None where it has none, or one that is not ours, or an old one."""
        value = cookie_of(headers, COOKIE)
        if value is None:
            return None
        said, _, mac = value.rpartition(".")
        if not hmac.compare_digest(mac.encode(), self._mac("session", said).encode()):
            return None
        kind, who, issued = said.split(".")
        age_s = time.time() - int(issued) / _MICRO
        if not -60 <= age_s < self.lifetime_s:  # a minute: clocks of several web machines differ
            return None
        return Session(SessionKind(kind), who, int(issued), value)

    def form_token(self, seed: str) -> str:
        """The token of every form that is shown to whoever the seed identifies."""
        return self._mac("form", seed)

    def is_form_token(self, token: str, seed: str) -> bool:
        """Whether a form was shown to whoever sends it."""
        return hmac.compare_digest(token.encode(), self.form_token(seed).encode())

    def filter_digest(self, text: str) -> str:
        """What the trail keeps of words that somebody searched for: the same words give the same digest."""
        return self._mac("filter", text)

    def _mac(self, purpose: str, text: str) -> str:
        digest = hmac.digest(
            self._secret, f"{purpose}:{text}".encode("utf-8", "surrogatepass"), hashlib.sha256
        )
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def cookie_of(headers: Headers, name: str) -> str | None:
    """The value of a cookie; None where there is none, more than one, or nonsense."""
    found = []
    for header in headers.getlist("cookie"):
        for part in header.split(";"):
            given, _, value = part.strip().partition("=")
            if given == name:
                found.append(value)
    return found[0] if len(found) == 1 and found[0].isascii() and len(found[0]) <= _LONGEST else None


def new_nonce() -> str:
    """A random value for the cookie of the form with which one signs in."""
    return secrets.token_urlsafe(18)


def put_cookie(response: Response, name: str, value: str, *, secure: bool, max_age_s: float) -> None:
    """Let the browser keep a value that no script reads and no other site's form sends."""
    response.set_cookie(
        name, value, max_age=int(max_age_s), path="/", httponly=True, samesite="lax", secure=secure
    )


def read_signer(settings: Settings) -> Signer:
    """The signer of the settings; its secret is made, once, where neither the setting nor the file is there.

    Raises:
        ConfigurationError: the file cannot be read or made.
    """
    if settings.session_secret is not None:
        secret = settings.session_secret.get_secret_value().encode()
    else:
        secret = _secret_of_file(settings.state_dir / FILE_NAME)
    return Signer(secret, lifetime_s=settings.session_hours * 3600)


def _secret_of_file(path: Path) -> bytes:
    """The secret in a file that only its owner reads. Of two processes that make it at once, one wins and both use its secret."""
    try:
        if not path.exists():
            own_folder(path.parent)
            unfinished = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
            with open_private(unfinished, "w") as file:
                file.write(secrets.token_hex(_SECRET_BYTES))
            with suppress(FileExistsError):  # somebody else was faster, and theirs is read below
                os.link(unfinished, path)
            unfinished.unlink()
        found = path.read_bytes().strip()
    except OSError as error:
        raise ConfigurationError(
            f"the secret of sessions cannot be kept in {path}: {error.strerror}; set WHEREFROM_SESSION_SECRET or WHEREFROM_STATE_DIR"
        ) from error
    if len(found) < _SECRET_BYTES:
        raise ConfigurationError(
            f"{path} holds no secret of sessions; remove it, and the next start makes a new one"
        )
    return found
