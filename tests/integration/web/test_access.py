"""Hosts, origins, keys and scopes on the whole application."""

import base64
import re

import pytest
from sqlalchemy import text
from starlette.routing import Mount
from starlette.testclient import TestClient

from db.access import key_rotation, keys
from db.session import Database
from tests.integration.web import story
from tests.integration.web.conftest import BASE_URL
from web.app import create_app
from web.guard.headers import SECURITY_HEADERS
from web.wellness.health import SilentProbe
from wherefrom.errors import ConfigurationError
from wherefrom.metrics import Metrics
from wherefrom.records import utc_now

RECORD = {"model": story.MODEL, "prompt": "p", "completion": "c"}

#: Paths that need no key anywhere: they tell nothing about outputs.
OPEN = {"/healthz", "/readyz", "/openapi.json", "/static"}


@pytest.fixture
def guarded(make_app):
    """A client of an application that others can reach."""
    app = make_app(host="0.0.0.0", allowed_hosts=("wherefrom.example",))
    return TestClient(app, base_url="http://wherefrom.example")


def bearer(database, *scopes, name="ci"):
    """The header with a new key."""
    return {"Authorization": f"Bearer {keys.create_key(database, name, scopes)}"}


@pytest.mark.parametrize("path", ["/", "/v1/audits", "/nothing", "/static/wherefrom.css", "/healthz"])
def test_every_answer_carries_the_security_headers(quick_client, path):
    """Pages, JSON, errors and files alike."""
    headers = quick_client.get(path).headers
    for name, value in SECURITY_HEADERS.items():
        assert headers[name] == value


PROXY_HEADERS = (
    "Forwarded", "Via", "X-Real-IP", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded",
    "x-forwarded-server", "CF-Connecting-IP", "True-Client-IP", "X-Client-IP",
)  # fmt: skip


@pytest.mark.parametrize("name", PROXY_HEADERS)
def test_what_comes_through_a_proxy_needs_a_key(quick_client, sqlite_story, name):
    """A proxy that sends the upstream's Host looks like this machine; its own headers tell it, whatever they say."""
    for value in ("203.0.113.9", ""):
        for method, path in (("GET", "/"), ("GET", "/v1/audits"), ("POST", "/v1/flagged")):
            answer = quick_client.request(method, path, headers={name: value}, json=RECORD)
            assert answer.status_code == 401, (method, path)
    assert quick_client.get("/healthz", headers={name: "1"}).status_code == 200
    key = keys.create_key(sqlite_story[1], "auditor", ["read"])
    both = {name: "203.0.113.9", "Authorization": f"Bearer {key}"}
    assert quick_client.get("/v1/audits", headers=both).status_code == 200


def test_production_asks_loopback_for_a_key_and_refuses_to_start_without_keys(sqlite_story):
    """The setting that compose sets."""
    settings, opened = sqlite_story
    production = settings.model_copy(update={"production": True})
    app = create_app(production, opened, metrics=Metrics(), queue=SilentProbe())
    assert TestClient(app, base_url=BASE_URL).get("/v1/audits").status_code == 401
    with pytest.raises(ConfigurationError, match="WHEREFROM_UNSAFE_NO_AUTH"):
        create_app(production.model_copy(update={"unsafe_no_auth": True}), opened, metrics=Metrics())


#: Every header that we or a library of ours reads.
READ_HEADERS = (
    "Host", "Origin", "Sec-Fetch-Site", "Content-Length", "Content-Type", "Authorization", "Idempotency-Key", "Range",
    "If-Range", "If-None-Match", "If-Modified-Since", "Accept", "Cookie", "X-Forwarded-For", "Forwarded", "Expect",
)  # fmt: skip
MALFORMED = (
    b"", b"http://[", b"[::1", b"//", b"\xff\xfe", b"\xe4", b"9" * 5000, b"-1", b"\xb2", b"%", b"Basic \xe4", b"Basic =",
    b"Bearer wf_\xff_x", b"bytes=9-1,", b"bytes=" + b"0-0," * 500, b'W/"', b"application/json; charset*=utf-8''%ff",
    b'application/json; charset="', b"Thu, 99 Foo 2020", b"a" * 9000,
)  # fmt: skip


@pytest.mark.parametrize("name", READ_HEADERS)
def test_no_header_is_a_bug_of_ours(sqlite_story, name):
    """Whatever stands in it, the answer blames the request or does without the header."""
    settings, opened = sqlite_story
    app = create_app(settings, opened, metrics=Metrics(), queue=SilentProbe())
    client = TestClient(app, base_url=BASE_URL, raise_server_exceptions=False)
    paths = (("GET", "/"), ("POST", "/v1/flagged"), ("GET", "/static/wherefrom.css"))
    for value in MALFORMED:
        for method, path in paths:
            answer = client.request(method, path, headers=[(name.encode(), value)], content=b"{}")
            assert answer.status_code < 500, (value, method, path)


def test_static_files_are_kept_when_their_address_has_their_hash(quick_client):
    """Everything else is not stored by browsers and proxies."""
    assert "immutable" in quick_client.get("/static/wherefrom.css?v=1").headers["cache-control"]
    assert quick_client.get("/static/../app.py").status_code == 404


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost:8077@evil.example"])
def test_foreign_hosts_are_not_answered(quick_client, host):
    """DNS rebinding finds nothing, and no link is made from the header."""
    for path in ("/", "/v1/audits"):
        answer = quick_client.get(path, headers={"Host": host})
        assert answer.status_code == 400
        assert host not in answer.text


def test_writes_from_other_sites_are_refused(quick_client):
    """A page elsewhere cannot make a browser flag something."""
    for headers in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        answer = quick_client.post("/v1/flagged", json=RECORD, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")
    assert quick_client.post("/v1/flagged", json=RECORD, headers={"Origin": BASE_URL}).status_code == 202


def test_no_route_is_forgotten(guarded, stored_story):
    """Off loopback every route but the open ones answers 401 without a key."""
    paths = guarded.get("/openapi.json").json()["paths"]
    pages = [
        "/",
        "/audits/1",
        "/examples/1",
        "/examples",
        "/sources",
        "/bundles",
        "/bundles/b-1",
        "/queue",
        "/trail",
        "/erasing",
        "/keys",
    ]
    pages += ["/review", "/review/new", "/review/put", "/review/agreement", "/review/1", "/review/1/items/1"]
    tried = [(method, path) for path, methods in paths.items() for method in methods]
    tried += [("get", path) for path in pages]
    assert len(tried) > 15
    for method, path in tried:
        if path not in OPEN:
            concrete = re.sub(r"{\w+}", "1", path)
            assert guarded.request(method.upper(), concrete).status_code == 401, (method, path)
    mounts = [route.path for route in guarded.app.routes if isinstance(route, Mount)]
    assert set(mounts) <= OPEN


def test_browsers_are_asked_for_a_key(guarded, stored_story, database):
    """HTTP Basic for pages, bearer for programs."""
    answer = guarded.get("/")
    assert answer.headers["www-authenticate"].startswith("Basic")
    assert guarded.get("/v1/audits").headers["www-authenticate"].startswith("Bearer")
    key = keys.create_key(database, "ann", ["read"])
    assert guarded.get("/", auth=("anything", key)).status_code == 200


def test_scopes(guarded, stored_story, database):
    """A producer's key reads nothing, a reader's key flags nothing, an admin's does both."""
    ingest, read, admin = (bearer(database, scope, name=scope) for scope in ("ingest", "read", "admin"))
    flag = guarded.post("/v1/flagged", json=RECORD, headers=read)
    assert (flag.status_code, flag.json()["error"]["code"]) == (403, "forbidden")
    assert guarded.get("/v1/audits", headers=ingest).status_code == 403
    assert guarded.get("/", headers=ingest).status_code == 403
    assert guarded.post("/v1/flagged", json=RECORD, headers=ingest).status_code == 202
    assert guarded.get("/v1/audits", headers=read).status_code == 200
    assert guarded.get("/metrics", headers=read).status_code == 200
    scrape = {"Authorization": f"Bearer {keys.create_key(database, 'prometheus', ['metrics'])}"}
    asked = [
        guarded.get(path, headers=scrape).status_code for path in ("/metrics", "/v1/audits", "/", "/v1/trail")
    ]
    assert asked == [200, 403, 403, 403]
    assert guarded.post("/v1/flagged", json=RECORD, headers=admin).status_code == 202
    assert guarded.get("/v1/audits", headers=admin).status_code == 200


def test_wrong_revoked_and_expired_keys(guarded, stored_story, database):
    """All are refused in the same words."""
    revoked = bearer(database, "read", name="revoked")
    keys.revoke_key(database, "revoked")
    expired = {"Authorization": f"Bearer {keys.create_key(database, 'old', ['read'], utc_now())}"}
    wrong = {"Authorization": revoked["Authorization"][:-1] + "~"}
    garbage = {"Authorization": "Basic " + base64.b64encode("ä".encode("latin-1")).decode()}
    answers = [guarded.get("/v1/audits", headers=one) for one in (revoked, expired, wrong)]
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.text for answer in answers}) == 1
    assert guarded.get("/v1/audits", headers=garbage).status_code == 401


def test_idempotency_keys_belong_to_their_producer(guarded, stored_story, database):
    """Two producers may use the same key."""
    value = RECORD | {"idempotency_key": "same"}
    for name in ("one", "two"):
        answer = guarded.post("/v1/flagged", json=value, headers=bearer(database, "ingest", name=name))
        assert answer.json()["results"][0]["status"] == "accepted"


def test_a_producer_keeps_its_idempotency_keys_over_a_rotation(guarded, stored_story, database):
    """The same record with the new key is a duplicate."""
    value = RECORD | {"idempotency_key": "order-1"}
    old = bearer(database, "ingest", name="production")
    new = {"Authorization": f"Bearer {key_rotation.rotate_key(database, 'production', grace_s=60.0).key}"}
    answers = [guarded.post("/v1/flagged", json=value, headers=headers) for headers in (old, new)]
    assert [one.json()["results"][0]["status"] for one in answers] == ["accepted", "duplicate"]


def test_a_locked_database_is_read_with_a_key(sqlite_story):
    """Noting the key's use needs the write lock; reading does not wait for it, and what was not noted is counted."""
    settings, opened = sqlite_story
    metrics = Metrics()
    client = TestClient(create_app(settings, opened, metrics=metrics, queue=SilentProbe()), base_url=BASE_URL)
    headers = bearer(opened, "read")
    other = Database(settings.database_url.get_secret_value())
    with other.writing() as session:
        session.execute(text("SELECT 1"))
        assert [client.get(path, headers=headers).status_code for path in ("/v1/audits", "/")] == [200, 200]
    other.dispose()
    assert metrics.registry.get_sample_value("wherefrom_api_key_uses_unnoted_total") == 1.0


def test_a_wrong_key_is_refused_on_loopback_too(client, stored_story):
    """Sending one means wanting its name on the records."""
    assert client.get("/v1/audits", headers={"Authorization": "Bearer wf_x_y"}).status_code == 401
