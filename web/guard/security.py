"""Who may ask: host allow-list, cross-site writes, declared body size, API keys with scopes.

`Gate` runs before routing and refuses what no route should see; `needs(scope)` is the dependency of a router. On a
loopback address no key is needed; elsewhere, and for what comes through a proxy, every route but health and static
files needs one, unless the operator set `unsafe_no_auth`. In production there is no way around keys. Programs send the key as a
bearer token, or as the password of HTTP Basic (any user name); browsers exchange it for a session (`web.guard.sessions`), which may never do
more than its key. The API takes a session for reading only.
"""

import base64
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import cache, partial
from typing import Annotated

from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from db.access import keys, people
from db.access.keys import Scope as KeyScope
from db.audit_trail.trail import act_as
from db.sight import see_only, unlimited
from web.body import raise_too_large
from web.errors import UnknownHost, answer_of
from web.guard.budget import pay_for
from web.guard.caller import NOBODY, Caller, caller_of_key
from web.guard.headers import SECURITY_HEADERS
from web.guard.limited import check_within, sees_statements
from web.guard.sessions import COOKIE, SessionKind, cookie_of
from web.services import Services, services_of
from wherefrom.access import key_needed
from wherefrom.errors import Forbidden, InvalidRequest, PermanentError, Unauthorized
from wherefrom.records import Via
from wherefrom.settings import Settings

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?")

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?P<host>[^/?#@\s]+)")

#: No size in bytes has more digits; int() refuses thousands of them.
_SIZE_DIGITS = 18

#: Headers by which a proxy says for whom it asks; some send the upstream's own Host, so that only these tell it.
_PROXY_HEADERS = frozenset(
    {
        "forwarded", "via", "x-real-ip", "x-client-ip", "x-cluster-client-ip", "x-original-host", "x-original-for",
        "x-original-url", "x-envoy-external-address", "true-client-ip", "client-ip", "cf-connecting-ip", "cf-ray",
        "fastly-client-ip", "fly-client-ip", "x-amzn-trace-id", "x-proxyuser-ip",
    }
)  # fmt: skip
_PROXY_PREFIX = "x-forwarded"


def is_proxied(headers: Headers) -> bool:
    """True for a request that came through a proxy: whoever sent it may be anywhere, though the connection is from loopback."""
    return any(name in _PROXY_HEADERS or name.startswith(_PROXY_PREFIX) for name in headers)


def host_name(header: str) -> str | None:
    """The host of a `Host` header without its port, in lower case; IPv6 keeps its brackets. None where it is no host."""
    found = _HOST.fullmatch(header.strip().lower())
    return found["name"] if found else None


def check_host(headers: Headers, settings: Settings) -> None:
    """Refuse a `Host` that is not on the allow-list (DNS rebinding, poisoned links).

    Raises:
        UnknownHost: the header is missing, doubled or unknown.
    """
    hosts = headers.getlist("host")
    allowed = {name.lower() for name in settings.allowed_hosts}
    if len(hosts) != 1 or host_name(hosts[0]) not in allowed:
        raise UnknownHost(
            "unknown Host header; if clients use this name, add it to the setting `allowed_hosts`"
        )


def check_same_site(method: str, headers: Headers) -> None:
    """Refuse a write that a page of another site makes a browser send; programs send neither header.

    Raises:
        Forbidden: the browser says that the request comes from elsewhere.
    """
    if method in _SAFE_METHODS:
        return
    origin = headers.get("origin")
    fetch_site = headers.get("sec-fetch-site", "none")
    foreign = origin is not None and _host_of_origin(origin) != headers.get("host", "").lower()
    if foreign or fetch_site not in {"same-origin", "none"}:
        raise Forbidden(
            "a page of another web site sent this request; only wherefrom's own pages and programs may write"
        )


def _host_of_origin(origin: str) -> str | None:
    """Host and port of an `Origin`; None where it is `null` or no origin at all."""
    found = _ORIGIN.fullmatch(origin.strip().lower())
    return found["host"] if found else None


def check_declared_size(headers: Headers, limit_bytes: int) -> None:
    """Refuse a body by its declared size; one that declares none is measured while it arrives.

    Raises:
        BodyTooLarge: the declared size is over the limit.
        InvalidRequest: the declared size is no number.
    """
    declared = headers.get("content-length")
    if declared is None:
        return
    if not (declared.isascii() and declared.isdecimal()):
        raise InvalidRequest("Content-Length is not a number")
    digits = declared.lstrip("0") or "0"
    if len(digits) > _SIZE_DIGITS or int(digits) > limit_bytes:
        raise_too_large(limit_bytes)


class Gate:
    """ASGI middleware: refuses before routing, and puts the security headers on every answer."""

    def __init__(self, app: ASGIApp, *, settings: Settings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        see_only(None)  # a pipelined request begins in the context of the one before

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        headers = Headers(scope=scope)
        try:
            check_host(headers, self._settings)
            check_same_site(scope["method"], headers)
            check_declared_size(headers, self._settings.body_limit_bytes)
        except PermanentError as error:
            answer = answer_of(Request(scope), error)
            await answer(scope, receive, send_with_headers)
            return
        await self._app(scope, receive, send_with_headers)


def sent_key(headers: Headers) -> str | None:
    """The API key of a request: a bearer token, or the password of HTTP Basic; None where there is none."""
    kind, _, value = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return value.strip() or None
    if kind.lower() != "basic":
        return None
    try:
        pair = base64.b64decode(value.strip(), validate=True).decode("utf-8")
    except ValueError:  # not ASCII, not base64, or not UTF-8 behind it
        return None
    return pair.partition(":")[2] or None


def authenticate(
    headers: Headers,
    services: Services,
    scope: KeyScope | None,
    *,
    reads: bool = True,
    address: str | None = None,
) -> Caller:
    """Who sent the request, if it may do what the scope says.

    A key that is sent is checked even where none is needed: a producer's key names its records on loopback too.

    Args:
        headers: Of the request.
        services: Settings and database.
        scope: What the request needs; None: nothing but a key or a session, where one is asked for.
        reads: Whether a session is taken; not for writes to the API, which carry no token of a form.
        address: Where the request comes from; only a proxy's matters.

    Raises:
        Unauthorized: a key is needed and none was sent, or the key is unknown, expired or revoked.
        Forbidden: the key lacks the scope.
        DatabaseUnavailable: the keys cannot be read.
    """
    named = services.proxy.caller_of(headers, address, services.database) if services.proxy else None
    caller = _by_key(headers, services)
    if caller is not None and named is not None and caller.person != named.person:
        raise Forbidden("the API key and the proxy name different people; send one of them")
    if caller is None and reads:
        caller = named or _by_session(headers, services)
    if caller is None:
        if asks_for_key(headers, services):
            raise Unauthorized("send an API key as `Authorization: Bearer wf_...`; ask the operator for one")
        return NOBODY
    if scope is not None and not caller.may(scope):
        raise Forbidden(f"the API key {caller.name!r} lacks the scope `{scope}`")
    return caller


def asks_for_key(headers: Headers, services: Services) -> bool:
    """Whether a request like this one needs a key."""
    proxied = is_proxied(headers) and not services.settings.unsafe_no_auth
    return key_needed(services.settings) or proxied or services.proxy is not None


def _by_key(headers: Headers, services: Services) -> Caller | None:
    key = sent_key(headers)
    if key is None:
        return None
    info = keys.check_key(services.database, key, services.key_uses)
    if info is None:
        raise Unauthorized("the API key is unknown, expired or revoked")
    return caller_of_key(info, via=Via.KEY, seed=info.prefix)


def _by_session(headers: Headers, services: Services) -> Caller | None:
    """Who a session's cookie speaks for; None where it no longer speaks for anybody."""
    session = services.signer().read(headers)
    if session is None:
        return None
    if session.kind is SessionKind.KEY:
        info = keys.key_of_session(services.database, session.who)
        if info is None or info.ends_session(session.issued_at):
            return None
        return caller_of_key(info, via=Via.SESSION, seed=session.value)
    person = (
        None if asks_for_key(headers, services) else people.local_person(services.database, int(session.who))
    )
    return None if person is None else replace(NOBODY, person=person, seed=session.value)


def needs_thread(headers: Headers, services: Services) -> bool:
    """Whether the database must be asked who sent a request."""
    proxied = services.proxy is not None and services.proxy.speaks(headers)
    return proxied or sent_key(headers) is not None or cookie_of(headers, COOKIE) is not None


@cache
def needs(scope: KeyScope | None) -> Callable[..., Awaitable[Caller]]:
    """The dependency that lets callers with this scope pass, the same one for each scope: a request is asked once."""

    async def caller_of(request: Request, services: Annotated[Services, Depends(services_of)]) -> Caller:
        reads = request.method in _SAFE_METHODS or not request.url.path.startswith("/v1/")
        ask = partial(
            authenticate,
            request.headers,
            services,
            scope,
            reads=reads,
            address=request.client.host if request.client else None,
        )
        with unlimited():  # a route may ask for several scopes, and the first has limited the request
            # Without a key, a cookie or a proxy there is nothing to look up, so no thread to wait for.
            found = await run_in_threadpool(ask) if needs_thread(request.headers, services) else ask()
        route = getattr(request.scope.get("route"), "path", "")
        check_within(found, request.method, route)
        if found.budget is not None and not getattr(request.state, "is_paid", False):
            request.state.is_paid = True  # a route may ask for several scopes; the request is one
            await run_in_threadpool(pay_for, services, found, request.method, route)
        request.state.caller = found
        act_as(found.actor)
        if sees_statements(scope):
            see_only(found.sight)
        request.state.form_token = partial(_form_token, services, found)
        return found

    return caller_of


def _form_token(services: Services, caller: Caller) -> str:
    return services.signer().form_token(caller.seed)
