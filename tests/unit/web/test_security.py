"""The gate: hosts, origins, declared sizes, keys in headers."""

import asyncio
import base64

import pytest
from starlette.datastructures import Headers

from db.sight import Limits, Sight, is_limited, see_only
from web.guard import security
from wherefrom import access
from wherefrom.errors import BodyTooLarge, ConfigurationError, Forbidden, InvalidRequest
from wherefrom.settings import Settings

SETTINGS = Settings()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8077", "LOCALHOST:1", "[::1]", "[::1]:8077"])
def test_own_hosts_pass(host):
    """With any port and in any case."""
    security.check_host(Headers({"host": host}), SETTINGS)


def test_a_pipelined_request_inherits_no_limit():
    """The server begins it in the context of the request before, which may have been a limited key's."""
    seen = []

    async def app(*_given):
        seen.append(is_limited())

    async def ask():
        see_only(Sight(Limits(producers=("shop",))))
        scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"host", b"127.0.0.1")]}
        await security.Gate(app, settings=SETTINGS)(scope, app, app)

    asyncio.run(ask())
    assert seen == [False]


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost@evil.example",
        "",
        "[::1",
        "[::2]",
        "127.0.0.1 evil",
        "evil.example:127",
    ],
)
def test_other_hosts_are_refused(host):
    """A name that an attacker points at us is not answered."""
    with pytest.raises(Forbidden, match="Host"):
        security.check_host(Headers({"host": host}), SETTINGS)


def test_two_hosts_are_refused():
    """What a proxy and we would read differently is refused."""
    raw = [(b"host", b"localhost"), (b"host", b"evil.example")]
    with pytest.raises(Forbidden):
        security.check_host(Headers(raw=raw), SETTINGS)


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "http://localhost:8077", "sec-fetch-site": "cross-site"},
        {"origin": "http://["},
        {"origin": "http://[::1"},
        {"origin": "localhost:8077"},
        {"origin": "//localhost:8077"},
        {"origin": "http://evil.example@localhost:8077"},
        {"origin": "http://localhost:8077/path"},
        {"origin": ""},
    ],
)
def test_writes_from_other_sites_are_refused(headers):
    """The browser says where a request comes from."""
    with pytest.raises(Forbidden):
        security.check_same_site("POST", Headers({"host": "localhost:8077", **headers}))
    security.check_same_site("GET", Headers({"host": "localhost:8077", **headers}))


@pytest.mark.parametrize(
    "headers",
    [{}, {"origin": "http://localhost:8077", "sec-fetch-site": "same-origin"}, {"sec-fetch-site": "none"}],
)
def test_own_pages_and_programs_may_write(headers):
    """Programs send neither header."""
    security.check_same_site("POST", Headers({"host": "localhost:8077", **headers}))


def test_declared_sizes():
    """A body over the limit is refused before it is sent."""
    security.check_declared_size(Headers({"content-length": "10"}), 10)
    with pytest.raises(BodyTooLarge):
        security.check_declared_size(Headers({"content-length": "11"}), 10)
    security.check_declared_size(Headers({"content-length": "0" * 5000 + "10"}), 10)
    with pytest.raises(BodyTooLarge):
        security.check_declared_size(Headers({"content-length": "9" * 5000}), 10)
    for nonsense in ("-1", "", "1e3", "\xb2"):
        with pytest.raises(InvalidRequest):
            security.check_declared_size(Headers({"content-length": nonsense}), 10)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("example.org", False),
    ],
)
def test_keys_are_needed_off_loopback(host, loopback):
    """An address that others reach needs keys, unless the operator says otherwise."""
    assert access.is_loopback(host) is loopback
    assert access.key_needed(Settings(host=host)) is not loopback
    assert access.key_needed(Settings(host=host, unsafe_no_auth=True)) is False


def test_production_asks_everybody_for_a_key():
    """On loopback too; and nothing takes the keys away."""
    assert access.key_needed(Settings(production=True))
    assert access.key_needed(Settings(production=True, unsafe_no_auth=True))


@pytest.mark.parametrize(
    "unsafe", [{"host": "0.0.0.0"}, {"host": "::"}, {"host": "10.0.0.1"}, {"production": True}]
)
def test_serving_others_without_keys_is_refused(unsafe):
    """Production is a bound address that others reach, or the setting; the line names the variable."""
    access.refuse_keyless_production(Settings.model_validate(unsafe))
    access.refuse_keyless_production(Settings(unsafe_no_auth=True))
    with pytest.raises(ConfigurationError, match="WHEREFROM_UNSAFE_NO_AUTH"):
        access.refuse_keyless_production(Settings.model_validate({**unsafe, "unsafe_no_auth": True}))


def basic(text):
    """An HTTP Basic header."""
    return {"authorization": f"Basic {base64.b64encode(text.encode()).decode()}"}


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ({}, None),
        ({"authorization": "Bearer wf_a_b"}, "wf_a_b"),
        ({"authorization": "bearer  wf_a_b "}, "wf_a_b"),
        ({"authorization": "Bearer"}, None),
        (basic("anyone:wf_a_b"), "wf_a_b"),
        (basic(":wf_a:b"), "wf_a:b"),
        ({"authorization": "Basic !!!"}, None),
        ({"authorization": "Basic \xe4"}, None),
        ({"authorization": "Basic =="}, None),
        ({"authorization": "Basic /w=="}, None),
        ({"authorization": "Digest x"}, None),
    ],
)
def test_keys_are_read_from_bearer_and_basic(headers, key):
    """Programs send a token; a browser sends the key as the password."""
    assert security.sent_key(Headers(headers)) == key
