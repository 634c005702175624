"""One HTTP connection to the service, and what its answers mean as errors of wherefrom.

Knows status codes, error bodies and `Retry-After`; which paths exist and what stands in them is left to
`wherefrom.client.service`.
"""

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from wherefrom import errors
from wherefrom.errors import (
    ConfigurationError,
    Forbidden,
    NotFound,
    ServiceUnavailable,
    Unauthorized,
    WherefromError,
)
from wherefrom.json_text import read_json
from wherefrom.masking import mask, readable_url
from wherefrom.version import __version__

#: Answers that say "later", beside all of 5xx.
RETRYABLE_STATUSES = frozenset({408, 425, 429})
#: A service that asks for a longer wait is asked again after this many seconds all the same.
LONGEST_RETRY_AFTER_S = 3600.0


@dataclass(frozen=True)
class Problem:
    """Why the service refused a request that is wrong and stays wrong."""

    status: int
    code: str
    message: str

    def as_error(self) -> WherefromError:
        """The error of wherefrom that has the service's code; its text holds the service's message."""
        by_code = {
            one.code: one
            for one in vars(errors).values()
            if isinstance(one, type) and issubclass(one, WherefromError)
        }
        by_status: dict[int, type[WherefromError]] = {
            404: NotFound,
            409: errors.IdempotencyConflict,
            413: errors.BodyTooLarge,
        }
        kind = by_code.get(self.code) or by_status.get(self.status)
        if kind is None:
            return errors.InvalidRecord(f"{self.message} ({self.code})")
        return kind(self.message)


@dataclass(frozen=True)
class Answer:
    """What the service answered: a body, or a problem of the request."""

    body: bytes
    problem: Problem | None = None


class Connection:
    """Sends requests to one service; safe to share between threads, not over a fork.

    Args:
        url: Address of the service, `http://` or `https://`.
        api_key: Sent as a bearer token; None sends none.
        timeout_s: Longest wait for a connection, and for each part of an answer, seconds.

    Raises:
        ConfigurationError: the URL or the API key cannot be used.
    """

    def __init__(self, url: str, api_key: str | None, *, timeout_s: float) -> None:
        url = readable_url(url.rstrip("/"))
        #: As it may be shown: without a password.
        self.url = mask(url)
        self._client = httpx.Client(
            base_url=_checked_url(url),
            headers=_headers(api_key),
            timeout=timeout_s,
            trust_env=not _is_loopback(
                url
            ),  # a proxy of the environment cannot reach this machine's loopback
        )

    def close(self) -> None:
        """Close the sockets; a request after this raises."""
        self._client.close()

    def get(self, path: str, parameters: Mapping[str, Any] | None = None) -> bytes:
        """The body of a page of the service.

        Raises:
            ServiceUnavailable: no answer, or an answer that says "later" or is not the service's.
            Unauthorized, Forbidden: the API key is not taken, or does not suffice.
            NotFound: the thing asked for does not exist.
            InvalidRecord: the service refused the parameters.
        """
        wanted = _given(parameters or {})
        answer = self._send(self._client.build_request("GET", path, params=wanted))
        if answer.problem is not None:
            raise answer.problem.as_error()
        return answer.body

    def lines(self, path: str, parameters: Mapping[str, Any]) -> Iterator[bytes]:
        """The lines of an answer of any length, as they arrive.

        Raises:
            ServiceUnavailable: no answer, or it ended before its last line.
            Unauthorized, Forbidden, NotFound, InvalidRecord: as `get`.
        """
        try:
            with self._client.stream("GET", path, params=_given(parameters)) as response:
                if not response.is_success:
                    response.read()
                    raise self._problem(response).as_error()
                yield from _lines(response.iter_bytes())
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ServiceUnavailable(
                f"no whole answer from {self.url}: {str(error) or type(error).__name__}"
            ) from error

    def post(self, path: str, body: bytes, *, headers: Mapping[str, str] | None = None) -> Answer:
        """Send a JSON body, with further headers; a refusal comes back as the answer's problem.

        Raises:
            ServiceUnavailable: no answer, or an answer that says "later" or is not the service's.
            Unauthorized, Forbidden: the API key is not taken, or does not suffice.
        """
        all_headers = {"content-type": "application/json", **(headers or {})}
        return self._send(self._client.build_request("POST", path, content=body, headers=all_headers))

    def delete(self, path: str) -> None:
        """Take something away.

        Raises:
            ServiceUnavailable: no answer, or an answer that says "later" or is not the service's.
            Unauthorized, Forbidden: the API key is not taken, or does not suffice.
            NotFound: the thing does not exist.
        """
        answer = self._send(self._client.build_request("DELETE", path))
        if answer.problem is not None:
            raise answer.problem.as_error()

    def _send(self, request: httpx.Request) -> Answer:
        try:
            response = self._client.send(request)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ServiceUnavailable(
                f"no answer from {self.url}: {str(error) or type(error).__name__}"
            ) from error
        if response.is_success:
            return Answer(response.content)
        return Answer(response.content, self._problem(response))

    def _problem(self, response: httpx.Response) -> Problem:
        """What is wrong with the request; raises where the request is not to blame."""
        status, said = response.status_code, _error_body(response)
        if status in (401, 403):
            kind = Unauthorized if status == 401 else Forbidden
            raise kind(said[1] if said else f"{self.url} answered HTTP {status}; check the API key")
        if status >= 500 or status in RETRYABLE_STATUSES:
            text = f"{said[1]} ({said[0]})" if said else "no reason given"
            raise ServiceUnavailable(
                f"{self.url} answered HTTP {status}: {text}",
                status=status,
                retry_after_s=_retry_after(response),
            )
        if said:
            return Problem(status, *said)
        if status == 413:  # a proxy's limit stands before the service's own
            return Problem(
                status, errors.BodyTooLarge.code, f"{self.url} answered HTTP 413: the body is too large"
            )
        raise ServiceUnavailable(
            f"{self.url} answered HTTP {status}, but not as wherefrom does; check that the URL points to the service",
            status=status,
        )


def _lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Lines that end in a line feed, and in nothing else that counts as an end of lines in a text."""
    begun: list[bytes] = []
    for piece in pieces:
        first, *others = piece.split(b"\n")
        begun.append(first)
        for one in others:
            yield b"".join(begun)
            begun = [one]
    if any(begun):
        yield b"".join(begun)


def _checked_url(url: str) -> httpx.URL:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ConfigurationError(
            f"the service URL {mask(url)!r} is invalid; write http://HOST:PORT or https://HOST"
        ) from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ConfigurationError(
            f"the service URL {mask(url)!r} must look like http://HOST:PORT or https://HOST"
        )
    return parsed


def _headers(api_key: str | None) -> dict[str, str]:
    headers = {"user-agent": f"wherefrom/{__version__}", "accept": "application/json"}
    if api_key is None:
        return headers
    if not api_key.isascii() or not api_key.isprintable():
        raise ConfigurationError(
            "the API key has characters that no key contains, such as a line break from a file"
        )
    return headers | {"authorization": f"Bearer {api_key}"}


def _given(parameters: Mapping[str, Any]) -> dict[str, str | list[str]]:
    return {name: _as_parameter(value) for name, value in parameters.items() if value is not None}


def _as_parameter(value: object) -> str | list[str]:
    """A value as it is written into an address; a list is written once for each item."""
    if isinstance(value, list):
        return [str(one) for one in value]
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _is_loopback(url: str) -> bool:
    host = httpx.URL(url).host
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _error_body(response: httpx.Response) -> tuple[str, str] | None:
    """Code and message of an error in the service's own words; None for any other body."""
    try:
        body = read_json(response.content)
    except ValueError:
        return None
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict) or not isinstance(error.get("code"), str):
        return None
    message = str(error.get("message", ""))
    return error["code"], f"{error['field']}: {message}" if error.get("field") else message


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds to wait by the `Retry-After` header (a number or a date), at most an hour; None without one."""
    text = response.headers.get("retry-after", "").strip()
    if not text:
        return None
    if text.isdecimal():
        seconds = float(text[:9])
    else:
        try:
            at = parsedate_to_datetime(text)
        except ValueError:
            return None
        seconds = (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER_S)
