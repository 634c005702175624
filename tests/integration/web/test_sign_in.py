"""Sessions: begun with a key or a chosen name, never worth more than it, ended by signing out; and the tokens of forms."""

import stat
import time

import pytest
from starlette.datastructures import Headers
from starlette.testclient import TestClient

from db.access import key_rotation, keys, people
from tests.integration.db.builders import recorded_statements
from tests.integration.web.conftest import BASE_URL
from tests.integration.web.forms import FORM, send, sign_in, token_of
from web.app import create_app
from web.asking.forms import local_path
from web.guard.sessions import COOKIE, FILE_NAME, SessionKind, Signer, read_signer
from web.guard.throttle import FAILURES_OF_KEY
from web.wellness.health import SilentProbe
from wherefrom.errors import ConfigurationError
from wherefrom.metrics import Metrics
from wherefrom.settings import Settings


@pytest.fixture
def guarded(sqlite_story):
    """A browser before a service that asks for keys."""
    settings, opened = sqlite_story
    app = create_app(
        settings.model_copy(update={"production": True}), opened, metrics=Metrics(), queue=SilentProbe()
    )
    return TestClient(app, base_url=BASE_URL)


@pytest.fixture
def opened(sqlite_story):
    """The database of the story."""
    return sqlite_story[1]


def auditor(opened, name="ann"):
    """A new auditor's key."""
    return keys.create_key(opened, f"{name}-key", [one.value for one in keys.ROLES["auditor"]], person=name)


def test_a_session_does_what_its_key_does(guarded, opened):
    """Pages and reading of the API; a page says who one is."""
    sign_in(guarded, key=auditor(opened))
    assert "ann" in guarded.get("/").text
    assert guarded.get("/v1/audits").status_code == 200
    assert guarded.get("/audits/1").status_code == 200


def test_the_cookie_is_kept_from_scripts_and_other_sites(guarded, opened):
    """HttpOnly and SameSite always, Secure where the browser came over TLS."""
    key = auditor(opened)
    for header, secure in ({}, False), ({"X-Forwarded-Proto": "https"}, True):
        token = token_of(guarded, "/sign-in")
        answer = guarded.post(
            "/sign-in", data={"form_token": token, "key": key}, headers=header, follow_redirects=False
        )
        cookie = next(one for one in answer.headers.get_list("set-cookie") if one.startswith(COOKIE))
        assert {"HttpOnly", "SameSite=lax"} <= {part.strip() for part in cookie.split(";")}
        assert ("Secure" in cookie) is secure
        assert key not in cookie


def test_signing_out_ends_every_session_of_the_person(guarded, opened):
    """Also one that somebody copied; another person's goes on."""
    sign_in(guarded, key=auditor(opened))
    copied = {"Cookie": f"{COOKIE}={guarded.cookies[COOKIE]}"}
    other = TestClient(guarded.app, base_url=BASE_URL)
    sign_in(other, key=auditor(opened, "ben"))
    assert send(guarded, "/", "/sign-out").headers["location"] == "/sign-in"
    assert TestClient(guarded.app, base_url=BASE_URL).get("/", headers=copied).status_code == 401
    assert other.get("/").status_code == 200
    sign_in(guarded, key=key_rotation.rotate_key(opened, "ann-key", grace_s=0).key)
    assert guarded.get("/").status_code == 200


def test_a_revoked_key_ends_its_sessions(guarded, opened):
    """At the next request."""
    sign_in(guarded, key=auditor(opened))
    keys.revoke_key(opened, "ann-key")
    assert guarded.get("/").status_code == 401


def test_a_session_writes_nothing_over_the_api(guarded, opened):
    """Its cookie is sent by every page of this site; what writes needs a key in the header, or a form's token."""
    sign_in(guarded, key=keys.create_key(opened, "root", ["admin"], person="root"))
    record = {"model": "m", "prompt": "p", "completion": "c"}
    assert guarded.post("/v1/flagged", json=record).status_code == 401


@pytest.mark.parametrize(
    "spoil", ["", "x", "k.1.2", "k.{who}.9999999999999999.{mac}", "l.{who}.{issued}.{mac}"]
)
def test_a_cookie_that_is_not_ours_is_nobodys(guarded, opened, spoil):
    """Forged, cut, moved to another time or another kind."""
    sign_in(guarded, key=auditor(opened))
    _, who, issued, mac = guarded.cookies[COOKIE].split(".")
    forged = spoil.format(who=who, issued=issued, mac=mac)
    fresh = TestClient(guarded.app, base_url=BASE_URL)
    assert fresh.get("/", headers={"Cookie": f"{COOKIE}={forged}"}).status_code == 401


def test_a_session_ends_by_its_age(guarded, opened, monkeypatch):
    """And begins at no time that has not come."""
    sign_in(guarded, key=auditor(opened))
    signer = guarded.app.state.services.signer()
    for hours, status in ((11.9, 200), (12.1, 401), (-1, 401)):
        later = time.time() + 3600 * hours
        monkeypatch.setattr("web.guard.sessions.time.time", lambda later=later: later)
        assert guarded.get("/").status_code == status
        monkeypatch.undo()
    assert signer.lifetime_s == 12 * 3600


def test_browsers_are_led_to_the_page_where_one_signs_in(guarded, opened):
    """And from there back to where they wanted to go."""
    answer = guarded.get("/audits/1?x=1", headers={"Sec-Fetch-Mode": "navigate"}, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in?next=%2Faudits%2F1%3Fx%3D1")
    fields = {"key": auditor(opened), "next": "/audits/1?x=1"}
    assert send(guarded, "/sign-in", "/sign-in", fields).headers["location"] == "/audits/1?x=1"


@pytest.mark.parametrize(
    "wanted",
    [
        "//evil.example",
        "https://evil.example",
        "/\\evil.example",
        "javascript:alert(1)",
        "/\u202e",
        "",
        "/\r\nX: y",
    ],
)
def test_nobody_is_led_elsewhere(wanted):
    """Only a path of ours is gone to."""
    assert local_path(wanted) == "/"


def test_failing_to_sign_in_is_limited(guarded, opened):
    """After a few failures with one key even the right one waits; another key does not."""
    key = auditor(opened)
    for _ in range(FAILURES_OF_KEY):
        assert send(guarded, "/sign-in", "/sign-in", {"key": key + "x"}).status_code == 401
    answer = send(guarded, "/sign-in", "/sign-in", {"key": key})
    assert (answer.status_code, "Wait a minute" in answer.text) == (429, True)
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    sign_in(guarded, key=auditor(opened, "ben"))


def test_forms_without_their_token_are_refused(guarded, opened):
    """Missing, another person's, or one of before the session; for signing in too."""
    assert guarded.post("/sign-in", content="key=x", headers=FORM).status_code == 403
    before = token_of(guarded, "/sign-in")
    sign_in(guarded, key=auditor(opened))
    other = TestClient(guarded.app, base_url=BASE_URL)
    sign_in(other, key=auditor(opened, "ben"))
    for token in ("", before, token_of(other, "/")):
        answer = guarded.post("/sign-out", content=f"form_token={token}", headers=FORM)
        assert (answer.status_code, "no longer valid" in answer.text) == (403, True)
    assert guarded.get("/").status_code == 200


def test_a_chosen_name_proves_nothing(quick_client, opened):
    """On a machine without keys; the page says so, and a name with a key is not to be had."""
    auditor(opened)
    assert send(quick_client, "/sign-in", "/sign-in", {"name": "ann"}).status_code == 422
    sign_in(quick_client, name="zoe")
    html = quick_client.get("/").text
    assert ("zoe" in html, "chosen" in html) == (True, True)
    assert [one.name for one in people.list_people(opened)] == ["ann", "zoe"]
    keys.create_key(opened, "zoe", ["review"])
    header = quick_client.get("/").text.partition("</header>")[0]
    assert ("<nav" in header, "zoe" in header) == (True, False)


def test_a_chosen_name_is_worth_nothing_where_keys_are_needed(quick_client, guarded, opened):
    """The same cookie before a service that asks for keys, or through a proxy."""
    sign_in(quick_client, name="zoe")
    cookie = {"Cookie": f"{COOKIE}={quick_client.cookies[COOKIE]}"}
    assert guarded.get("/", headers=cookie).status_code == 401
    assert quick_client.get("/", headers={"X-Forwarded-For": "203.0.113.9"}).status_code == 401


def test_a_session_costs_one_statement(guarded, opened):
    """The look at its key."""
    sign_in(guarded, key=auditor(opened))
    with recorded_statements() as with_session:
        assert guarded.get("/sources").status_code == 200
    assert len([one for one in with_session if "api_key" in one]) == 1


def test_the_secret_is_made_once_and_for_its_owner_alone(tmp_path):
    """Mode 0600, read again by the next process; a broken one is told."""
    settings = Settings.model_validate({"state_dir": tmp_path / "state"})
    cookie = read_signer(settings).begin(SessionKind.LOCAL, "1")
    file = tmp_path / "state" / FILE_NAME
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [one.name for one in file.parent.iterdir()] == [FILE_NAME]
    headers = Headers({"cookie": f"{COOKIE}={cookie}"})
    assert read_signer(settings).read(headers) is not None
    assert Signer(b"x" * 32, lifetime_s=9).read(headers) is None
    file.write_text("short")
    with pytest.raises(ConfigurationError, match="remove it"):
        read_signer(settings)
