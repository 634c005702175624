"""People whom a proxy has signed in: who they are, what their groups let them do, and every way to pretend."""

from collections.abc import Callable

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from db.access import keys, people
from db.session import Database
from tests.integration.web.forms import send
from web.app import create_app
from web.wellness.health import SilentProbe
from wherefrom.errors import ConfigurationError
from wherefrom.metrics import Metrics
from wherefrom.settings import Settings

SECRET = "the-proxy-and-nobody-else-0123456789"
USER, GROUPS, PROOF = "X-Auth-Request-Email", "X-Auth-Request-Groups", "X-Wherefrom-Proxy-Secret"
PROXY = {
    "proxy_user_header": USER,
    "proxy_groups_header": GROUPS,
    "proxy_secret": SECRET,
    "proxy_addresses": ("10.0.3.0/24",),
    "proxy_groups": {"safety": "auditor", "raters": "reviewer", "ops": "admin"},
    "production": True,
    "allowed_hosts": ("wherefrom.example",),
}
ANN = {USER: "ann@example.org", PROOF: SECRET, GROUPS: "everybody, safety"}

Made = Callable[..., TestClient]


@pytest.fixture
def made(sqlite_story: tuple[Settings, Database]) -> Made:
    """Makes a client that comes from an address."""
    settings, database = sqlite_story

    def app_of(**changes: object) -> FastAPI:
        given = settings.model_dump() | PROXY | changes
        return create_app(Settings.model_validate(given), database, metrics=Metrics(), queue=SilentProbe())

    def make(address: str = "10.0.3.7", **changes: object) -> TestClient:
        return TestClient(app_of(**changes), base_url="https://wherefrom.example", client=(address, 5000))

    return make


def test_a_person_is_made_on_first_sight_and_does_what_the_groups_allow(
    made: Made, sqlite_story: tuple[Settings, Database]
) -> None:
    """Reads, judges on pages by forms, and writes nothing to the API, which takes keys for that."""
    client, database = made(), sqlite_story[1]
    for _ in range(2):
        assert client.get("/v1/audits", headers=ANN).status_code == 200
    assert [one.name for one in people.list_people(database)] == ["ann@example.org"]
    client.headers.update(ANN)
    assert "ann@example.org" in client.get("/").text
    assert (
        send(
            client, "/audits/1", "/audits/1/reviews", {"verdict": "confirmed", "comment": "mine"}
        ).status_code
        == 303
    )
    [review] = client.get("/v1/audits/1/reviews").json()["items"]
    assert review["reviewer"] == "ann@example.org"
    assert client.post("/v1/audits/1/reviews", json={"verdict": "confirmed"}).status_code == 401
    assert client.post("/audits/1/reviews", data={"verdict": "confirmed"}).status_code == 403, (
        "no token of a form"
    )
    assert client.get("/keys").status_code == 403


def test_names_and_groups_in_any_script(made: Made, sqlite_story: tuple[Settings, Database]) -> None:
    """Proxies send UTF-8; a name stands beside a verdict as its owner writes it."""
    sent = {USER: "josé@例え.jp", PROOF: SECRET, GROUPS: "sécurité"}
    raw = [(name.encode(), value.encode()) for name, value in sent.items()]
    client = made(proxy_groups={"sécurité": "auditor"})
    assert client.get("/v1/audits", headers=raw).status_code == 200
    assert [one.name for one in people.list_people(sqlite_story[1])] == ["josé@例え.jp"]


@pytest.mark.parametrize(
    ("groups", "allowed"),
    [
        ("", set()),
        ("nobody,Safety", set()),
        ("raters", {"/review"}),
        ("safety", {"/", "/review"}),
        ("ops", {"/", "/review", "/keys"}),
    ],
)
def test_groups_give_scopes(made: Made, groups: str, allowed: set[str]) -> None:
    """By their exact names; who is in none of them may do nothing."""
    client = made()
    answers = {
        path: client.get(path, headers=ANN | {GROUPS: groups}).status_code
        for path in ("/", "/review", "/keys")
    }
    assert answers == {path: 200 if path in allowed else 403 for path in answers}
    without = {name: value for name, value in ANN.items() if name != GROUPS}
    assert client.get("/", headers=without).status_code == 403


#: Ways to pretend, each as the pairs of headers that are sent.
PRETENCES = {
    "no secret": [(USER, "ann")],
    "wrong secret": [(USER, "ann"), (PROOF, SECRET[:-1] + "x")],
    "prefix of the secret": [(USER, "ann"), (PROOF, SECRET[:10])],
    "empty secret": [(USER, "ann"), (PROOF, "")],
    "two secrets": [(USER, "ann"), (PROOF, SECRET), (PROOF, SECRET)],
    "two users": [(USER, "ann"), (USER, "root"), (PROOF, SECRET)],
    "no user": [(GROUPS, "ops"), (PROOF, SECRET)],
    "empty user": [(USER, " "), (PROOF, SECRET)],
    "two groups": [(USER, "ann"), (PROOF, SECRET), (GROUPS, "safety"), (GROUPS, "ops")],
    "groups alone": [(GROUPS, "ops")],
    "secret alone": [(PROOF, SECRET)],
    "not latin": [(USER, "ann"), (PROOF, "\xff" * 40)],
}


@pytest.mark.parametrize("name", PRETENCES)
def test_pretences_are_refused(made: Made, sqlite_story: tuple[Settings, Database], name: str) -> None:
    """From the proxy's own address too; nobody is made a person by them."""
    pairs = [(header.encode(), value.encode("latin-1")) for header, value in PRETENCES[name]]
    pairs += [] if any(header == GROUPS for header, _ in PRETENCES[name]) else [(GROUPS.encode(), b"safety")]
    assert made().get("/v1/audits", headers=pairs).status_code == 401
    assert people.list_people(sqlite_story[1]) == []


@pytest.mark.parametrize("address", ["10.0.4.1", "127.0.0.1", "::1", "testclient", "::ffff:10.0.4.1"])
def test_the_secret_is_worth_nothing_elsewhere(made: Made, address: str) -> None:
    """`X-Forwarded-For` moves nobody to the proxy's address."""
    spoofed = ANN | {"X-Forwarded-For": "10.0.3.7", "X-Real-IP": "10.0.3.7", "Forwarded": "for=10.0.3.7"}
    assert made(address).get("/v1/audits", headers=spoofed).status_code == 401


def test_the_proxy_over_ipv6_is_the_proxy(made: Made) -> None:
    """An IPv4 address that a socket of IPv6 shows."""
    assert made("::ffff:10.0.3.7").get("/v1/audits", headers=ANN).status_code == 200


def test_a_key_and_the_proxy_must_agree(made: Made, sqlite_story: tuple[Settings, Database]) -> None:
    """The key of the same person is taken with its own scopes; of another one, or of a program, it is refused."""
    database, client = sqlite_story[1], made()
    ann = keys.create_key(database, "ann-key", ["review"], person="ann@example.org")
    for key, expected in (
        (ann, 200),
        (keys.create_key(database, "ben", ["review"]), 403),
        (keys.create_key(database, "program", ["read"]), 403),
    ):
        assert client.get("/review", headers=ANN | {"Authorization": f"Bearer {key}"}).status_code == expected
    wider = client.get("/v1/audits", headers=ANN | {"Authorization": f"Bearer {ann}"})
    assert wider.status_code == 403, "the key's own scopes"


def test_without_the_setting_no_header_is_believed(made: Made) -> None:
    """And with it, nobody is anonymous, on loopback either."""
    assert made(proxy_user_header=None).get("/v1/audits", headers=ANN).status_code == 401
    local = {
        "production": False,
        "proxy_addresses": ("127.0.0.1",),
        "allowed_hosts": ("127.0.0.1", "wherefrom.example"),
    }
    assert made("127.0.0.1", **local).get("/v1/audits").status_code == 401
    for wrong in (
        {"proxy_secret": None},
        {"proxy_groups": {"safety": "king"}},
        {"proxy_addresses": ("proxy.example",)},
        {"proxy_user_header": "Authorization"},
        {"proxy_groups_header": USER.lower()},
    ):
        with pytest.raises(ConfigurationError):
            made(**wrong)
