"""The trail read: page by page, by filters, over HTTP, on a page and through the client."""

import re
from typing import Any

import pytest
from starlette.testclient import TestClient

from db.access import keys
from db.audit_trail import trail_chain
from db.audit_trail.trail import Event, TrailKind, acting_as, record_events
from db.session import Database
from web.desk import trail_pages
from wherefrom.settings import Settings


@pytest.fixture
def told(database: Database) -> Database:
    """Events of two people, some of them sealed."""
    for number in range(7):
        with acting_as(f"person:{number % 2 + 1}"), database.writing() as session:
            record_events(session, [Event(TrailKind.REVIEW_GIVEN, f"audit:{number}", {"rank": number})])
    trail_chain.seal(database, owner="a", at_once=5)
    with database.writing() as session:
        record_events(session, [Event(TrailKind.KEY_REVOKED, "api_key:<b>x</b>", {"why": "<i>=1+1"})])
    return database


def pages(client: TestClient, query: str = "") -> list[dict[str, Any]]:
    """All events, three a page."""
    found, cursor = [], ""
    while True:
        answer = client.get(f"/v1/trail?limit=3{query}{cursor}")
        assert answer.status_code == 200, answer.text
        page = answer.json()
        found += page["items"]
        if page.get("next_cursor") is None:
            return found
        cursor = f"&cursor={page['next_cursor']}"


def test_the_api_lists_the_newest_first_by_keyset(client: TestClient, told: Database) -> None:
    """Pages follow each other without a gap, filters must all hold, and what is not sealed says so."""
    everything = pages(client)
    assert [one["event_id"] for one in everything] == sorted(
        (one["event_id"] for one in everything), reverse=True
    )
    assert len(everything) == 8
    assert {one["sequence"] for one in everything} == {None, 1, 2, 3, 4, 5}
    assert [one["subject"] for one in pages(client, "&actor=person:2")] == ["audit:5", "audit:3", "audit:1"]
    assert len(pages(client, "&actor=person:1&kind=review.given&since=1d&until=today")) == 4
    assert pages(client, "&subject=audit:3")[0]["payload"] == {"rank": 3}
    assert pages(client, "&until=2020-01-01") == []
    for wrong in ("knd=x", "since=never", "cursor=bm8="):
        assert client.get(f"/v1/trail?{wrong}").status_code == 422
    del told


def test_the_page_shows_events_and_nothing_of_them_is_obeyed(client: TestClient, told: Database) -> None:
    """Filters stay in the form, pages follow each other, and hostile words are text."""
    first = client.get("/trail?limit=5&kind=&actor=").text
    assert "5 events are sealed, 3 wait for the sealer" in first
    assert "not sealed" in first
    assert "&lt;b&gt;x&lt;/b&gt;" in first
    assert "<b>x" not in first
    older = re.search(r'href="(/trail\?[^"]*cursor[^"]*)"', first)
    assert older is not None
    assert "audit:0" in client.get(older[1].replace("&amp;", "&")).text
    chosen = client.get("/trail?kind=review.given&actor=person:2").text
    assert '<option value="review.given" selected>' in chosen
    assert "audit:1" in chosen
    assert "audit:2<" not in chosen
    del told


def test_the_page_counts_no_further_than_it_must(
    quick_client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits for the sealer is counted up to a bound; beyond it the page says that there are more."""
    monkeypatch.setattr(trail_pages, "COUNTED_WORK", 3)
    assert "more than 3 wait for the sealer" in quick_client.get("/trail").text


def test_a_filter_that_cannot_be_used_is_named_and_left_out(quick_client: TestClient) -> None:
    """As the page calls it; a link keeps the other filters. The API names the parameter."""
    answer = quick_client.get("/trail?kind=review.given&since=soonish&actor=a%26b")
    assert answer.status_code == 422
    assert "“From”: send a day" in answer.text
    assert "`since`" not in answer.text
    assert 'href="/trail?kind=review.given&amp;actor=a%26b">Go on without it' in answer.text
    assert quick_client.get("/v1/trail?since=soonish").json()["error"]["field"] == "since"
    assert 'href="/bulk?flag_reason=x">' in quick_client.get("/bulk?since=soonish&flag_reason=x").text
    assert "Go on without it" not in quick_client.get("/audits/123456789?since=1").text


def test_who_may_read_the_trail(sqlite_story: tuple[Settings, Database], quick_client: TestClient) -> None:
    """The scope `read`; a reviewer sees neither page nor API, and no link to it."""
    _, database = sqlite_story
    reader = keys.create_key(database, "reader", ["read"])
    reviewer = keys.create_key(database, "reviewer", ["review"], person="ann")
    for path in ("/v1/trail", "/trail"):
        for key, status in ((reader, 200), (reviewer, 403)):
            answer = quick_client.get(path, headers={"Authorization": f"Bearer {key}"})
            assert answer.status_code == status
    page = quick_client.get("/review", headers={"Authorization": f"Bearer {reviewer}"}).text
    assert 'href="/trail"' not in page
