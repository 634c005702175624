"""Today as a page, over HTTP and in a process: what it says, who may press, and what it costs."""

import re
import threading

from starlette.testclient import TestClient

from db import signs
from db.access import keys
from db.access.keys import Scope
from db.models import ProcessSign
from db.session import Database
from db.signs import Sign
from tests.integration.db.builders import count, recorded_statements
from tests.integration.web import story
from tests.integration.web.forms import send, sign_in
from tests.waiting import wait_until
from wherefrom.settings import Settings
from worker.vitals.presence import Presence

ATTACK = "<script>alert(1)</script>"
_BUTTON = r"<button[^>]*>Try again"


def test_the_page_says_how_it_goes(stored_story: story.Story, database: Database, client: TestClient) -> None:
    """On both engines: tiles, plot with its table, what is stuck with what to do, who works; strangers' names are escaped."""
    signs.give_sign(database, Sign("w", "attribute", ATTACK, 7, (stored_story.bundle_id,)))
    html = client.get("/today").text
    assert 'data-refresh-seconds="4"' in html
    assert ATTACK not in html
    assert "b-5f0c9a7d31e2" in html
    assert "No sweeper gives a sign of life" in html
    assert 'role="img"' in html
    assert "Audits that ended, by minute" in html
    assert 'href="/?state=dead&amp;code=internal_error"' in html
    assert "Read the traceback" in html
    found = client.get("/v1/today").json()
    assert len(found["minutes"]) == 60
    assert {one["code"] for one in found["stuck"]} >= {"internal_error", "output_too_long", "unknown_model"}
    assert all(one["meaning"] and one["advice"] for one in found["stuck"])
    [worker] = found["workers"]
    assert (worker["host"], worker["alive"], worker["models"]) == (ATTACK, True, [story.MODEL])


def test_dead_audits_are_tried_again_from_it(quick_client: TestClient) -> None:
    """All of one code; what waits for a bundle has no button."""
    before = quick_client.get("/v1/audits?code=internal_error").json()["items"]
    assert [one["state"] for one in before] == ["dead"]
    html = quick_client.get("/today").text
    assert len(re.findall(_BUTTON, html)) == 2
    done = send(
        quick_client, "/today", "/bulk/requeue", {"state": "dead", "code": "internal_error"}, follow=True
    )
    assert "1 audit is pending again" in done.text
    assert quick_client.get("/v1/audits?code=internal_error").json()["items"] == []
    assert "internal_error" not in quick_client.get("/today").text


def test_whoever_only_reads_presses_nothing(
    quick_client: TestClient, sqlite_story: tuple[Settings, Database]
) -> None:
    """And whoever sees only their queues sees none of it."""
    database = sqlite_story[1]
    assert re.search(_BUTTON, quick_client.get("/today").text)
    for scope, status in ((Scope.READ, 200), (Scope.REVIEW, 403)):
        header = {"Authorization": f"Bearer {keys.create_key(database, scope.value, [scope])}"}
        answer = quick_client.get("/today", headers=header)
        assert answer.status_code == status
        assert not re.search(_BUTTON, answer.text)
        assert quick_client.get("/v1/today", headers=header).status_code == status


def test_it_costs_a_constant_number_of_statements(quick_client: TestClient) -> None:
    """The queue (2), bundles, what waits, what ended, processes, what is stuck; for a person who they are, their visit and their news."""
    quick_client.get("/today")
    with recorded_statements() as statements:
        assert quick_client.get("/today").status_code == 200
    assert len(statements) == 7, statements
    sign_in(quick_client, name="ann")
    assert "This is your first visit" in quick_client.get("/today").text
    quick_client.get("/")
    with recorded_statements() as statements:
        quick_client.get("/today")
    assert len(statements) <= 10, statements


def test_a_process_gives_signs_until_it_ends(sqlite_story: tuple[Settings, Database]) -> None:
    """Again and again, with what it has loaded by then; an end in order takes the sign away."""
    database, loaded = sqlite_story[1], [1]
    asked = threading.Event()

    def bundles() -> list[int]:
        if len(loaded) == 2:
            asked.set()
        return list(loaded)

    presence = Presence(database, role="attribute", name="me", bundles=bundles, every_s=0.02).start()
    wait_until(lambda: count(database, ProcessSign) == 1, message="the sign")
    loaded.append(2)
    assert asked.wait(10)

    def stored() -> list[int]:
        with database.reading() as session:
            return list(session.get_one(ProcessSign, "me").bundles)

    wait_until(lambda: stored() == [1, 2], message="what was loaded meanwhile")
    presence.close()
    assert count(database, ProcessSign) == 0
    away = Presence(Database("postgresql+psycopg://x@127.0.0.1:1/x"), role="sweep", name="s", every_s=60)
    away.beat()
