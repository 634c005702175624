"""Takes secrets out of texts: the one place through which logs, errors, findings and tracebacks pass.

What looks like a secret is masked by its form (user info of URLs, parameters such as `sslpassword`, keywords of a libpq DSN,
`Authorization` headers, API keys), and secrets that are known are masked wherever and however they are written. A text may lose
more than the secret; it never keeps it.
"""

import json
import re
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import TracebackType
from urllib.parse import quote, unquote, unquote_plus

MASK = "***"
#: A known secret shorter than this would mask words by chance; its usual forms are masked all the same.
SHORTEST_KNOWN = 4

_NAME = (
    r"[a-z0-9_-]*(?:password|passwd|passphrase|passfile|requirepass|secret"
    r"|(?<![a-z0-9])(?:pass|pwd|token|auth|api[_-]?key|credentials?))"
)
_WORD = re.compile(r"\S+")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]{0,30}://", re.IGNORECASE)
_QUERY = re.compile(rf"(?P<name>[?&;]{_NAME}=)[^\s&]*", re.IGNORECASE)
_KEYWORD = re.compile(
    rf"(?P<name>(?<![a-z0-9_?&-]){_NAME}[\"']?\s*=\s*|[\"']{_NAME}[\"']\s*:\s*)"
    r"(?P<value>'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|(?:\\.|[^\s\\])+)",
    re.IGNORECASE | re.DOTALL,
)
_HEADER = re.compile(r"\b(?P<kind>bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE)
_API_KEY = re.compile(r"\bwf_(?P<prefix>[0-9A-Za-z]{8})_[\w-]{8,}")
_SECRET_NAME = re.compile(_NAME, re.IGNORECASE)

#: A URL that the standard reads as it is: an authority of host and port, with user info or without.
_READABLE = re.compile(
    r"[a-z][a-z0-9+.-]*://([^@/?#\s]*@)?(\[[0-9a-f:.]+\]|[\w.~,%-]+)?(:[0-9]*)?(,[\w.~\[\]:-]+)*([/?#][^@]*)?",
    re.IGNORECASE,
)
_WITH_USER_INFO = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*://)(?P<info>.*)@(?P<rest>[^@]*)", re.IGNORECASE | re.DOTALL
)


def is_secret_name(name: str) -> bool:
    """Whether a parameter or field of this name holds a secret."""
    return _SECRET_NAME.fullmatch(name) is not None


def mask(text: str, secrets: Iterable[str] = ()) -> str:
    """The text without secrets.

    Args:
        text: Any text: a URL, a DSN, an error, a traceback.
        secrets: Known secrets; their encoded forms are found too.
    """
    for form in sorted(_forms(secrets), key=len, reverse=True):
        text = text.replace(form, MASK)
    if "://" in text:
        text = _WORD.sub(_without_user_info, text)
    text = _QUERY.sub(rf"\g<name>{MASK}", text)
    text = _KEYWORD.sub(_without_value, text)
    text = _HEADER.sub(rf"\g<kind> {MASK}", text)
    return _API_KEY.sub(rf"wf_\g<prefix>_{MASK}", text)


def secrets_of(url: str) -> frozenset[str]:
    """The secrets that a URL or a libpq DSN holds: its password (a token where there is no user name), and secret parameters."""
    found: set[str] = set()
    if info := _WITH_USER_INFO.fullmatch(url):
        user, colon, password = info["info"].partition(":")
        token = user if info["scheme"].lower().startswith("http") else ""
        found.add(password if colon else token)
    for match in [*_QUERY.finditer(url), *_KEYWORD.finditer(url)]:
        value = match[0][len(match["name"]) :]
        found |= {value, value.strip("'\"")}
    return frozenset(found - {""})


def secrets_of_variables(variables: Mapping[str, str]) -> frozenset[str]:
    """Secrets of the settings as an environment has them, also of those that cannot be used: the error about them must not tell them."""
    found: set[str] = set()
    for name in ("DATABASE_URL", "REDIS_URL", "SERVICE_URL", "BUNDLES_DIR", "BUNDLES_URL"):
        found |= secrets_of(variables.get(f"WHEREFROM_{name}", ""))
    for name in ("API_KEY", "SESSION_SECRET", "NOTIFY_URL", "NOTIFY_SECRET"):
        value = variables.get(f"WHEREFROM_{name}", "")
        found |= {value, *(value.split() if name == "NOTIFY_SECRET" else ())}
    return frozenset(found - {""})


def readable_url(url: str) -> str:
    """The URL with a password that holds `#`, `/`, `?` or `@` as they are written percent-encoded, so that every library reads it.

    A URL that can be read as it stands comes back unchanged.
    """
    found = _WITH_USER_INFO.fullmatch(url)
    if found is None or _READABLE.fullmatch(url):
        return url
    user, colon, password = found["info"].partition(":")
    if not colon:
        return url
    encode = partial(quote, safe="%!$&'()*+,;=:~-._")
    return f"{found['scheme']}{encode(user)}:{encode(password)}@{found['rest']}"


def install_masked_tracebacks(clean: Callable[[str], str], *, in_threads: bool = False) -> None:
    """Have errors that nobody catches written to stderr without secrets.

    Args:
        clean: Takes the secrets out of a text.
        in_threads: Also those that end a thread other than the main one.
    """

    def write(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is KeyboardInterrupt:
            sys.__excepthook__(kind, error or KeyboardInterrupt(), trace)
            return
        sys.stderr.write(clean("".join(traceback.format_exception(kind, error, trace))))

    def write_of_thread(ended: threading.ExceptHookArgs) -> None:
        if ended.exc_type is not SystemExit:
            write(ended.exc_type, ended.exc_value, ended.exc_traceback)

    sys.excepthook = write
    if in_threads:
        threading.excepthook = write_of_thread


def _names_user(scheme: str) -> bool:
    """Whether user info without a password is a user name: nobody logs in to PostgreSQL with a token alone."""
    return scheme.lower().startswith("postgres")


def _without_user_info(found: re.Match[str]) -> str:
    """A word without the user info of its URL, up to the last `@`: a password may hold `@`, `#`, `/`, `?` and `%`.

    A user name may be shown; user info without a password may be a token, and is not, but for databases.
    """
    word = found[0]
    end = word.rfind("@")
    scheme = _SCHEME.search(word, 0, end) if end >= 0 else None
    if scheme is None:
        return word
    user, colon, _ = word[scheme.end() : end].partition(":")
    plain = re.fullmatch(r"[\w.%~-]*", user) is not None
    if plain and not colon and _names_user(scheme[0]):
        return word
    plain = plain and bool(colon)
    return f"{word[: scheme.end()]}{f'{user}:' if plain else ''}{MASK}{word[end:]}"


def _without_value(found: re.Match[str]) -> str:
    """Quotes stay, so that JSON and a DSN can be read on."""
    value = found["value"]
    quoted = len(value) > 1 and value[0] in "'\"" and value[-1] == value[0]
    return f"{found['name']}{value[0]}{MASK}{value[0]}" if quoted else f"{found['name']}{MASK}"


def _forms(secrets: Iterable[str]) -> set[str]:
    """The ways in which a secret is written: as it is, decoded, percent-encoded, escaped by JSON, by Python and by libpq."""
    forms: set[str] = set()
    for secret in secrets:
        for plain in (secret, unquote(secret), unquote_plus(secret)):
            forms |= {
                plain,
                quote(plain, safe=""),
                quote(plain, safe="").lower(),
                quote(plain),
                json.dumps(plain)[1:-1],
                json.dumps(plain, ensure_ascii=False)[1:-1],
                repr(plain)[1:-1],
                plain.replace("\\", "\\\\").replace("'", "\\'"),
            }
    return {form for form in forms if len(form) >= SHORTEST_KNOWN}
