"""The list of audits as a whole: its count, orders, views that people keep, wrong filters, and what is done to all that it finds."""

import re
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any

import pytest
from sqlalchemy import text, update
from starlette.testclient import TestClient

from db.access import people
from db.models import Audit, Person, TrailEvent
from db.reading import listings, reader, saved_views
from db.reviewing import reviews
from db.reviewing.reviews import Reviewer
from db.session import Database
from db.storing import search
from tests.integration.web.forms import send, sign_in
from tests.integration.web.story import Story
from wherefrom.records import AuditFilter, AuditState, ReviewDraft, Verdict, Via, ViewDraft

#: Before everything else that the story holds.
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def _ids(html: str) -> list[int]:
    return [int(one) for one in re.findall(r'class="row-link" href="/audits/(\d+)[^"]*"', html)]


def _json(client: TestClient, path: str) -> list[int]:
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    return [one["audit_id"] for one in answer.json()["items"]]


@pytest.mark.parametrize("sort", ["newest", "oldest", "answered", "severity", "score", "support"])
def test_every_order_has_stable_pages(client: TestClient, stored_story: Story, sort: str) -> None:
    """Page by page, the same audits in the same order as all at once; a cursor of another order is refused."""
    whole = _json(client, f"/v1/audits?sort={sort}&limit=100")
    seen, cursor = [], ""
    while True:
        page = client.get(f"/v1/audits?sort={sort}&limit=3&cursor={cursor}").json()
        seen += [one["audit_id"] for one in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = page["next_cursor"]
    assert seen == whole
    if cursor and sort != "newest":
        assert client.get(f"/v1/audits?cursor={cursor}").status_code == 422


def test_orders_sort_by_what_they_say(client: TestClient, stored_story: Story) -> None:
    """Scores fall, severity falls, and what has no score is left out."""
    scores = [one["top_score"] for one in client.get("/v1/audits?sort=score").json()["items"]]
    assert scores == sorted(scores, reverse=True)
    assert None not in scores
    levels = [one["severity"] for one in client.get("/v1/audits?sort=severity").json()["items"]]
    order = ["critical", "high", "medium", "low"]
    assert levels == sorted(levels, key=order.index)
    newest = _json(client, "/v1/audits")
    assert _json(client, "/v1/audits?sort=oldest") == newest[::-1]


def test_page_export_and_client_show_the_same_order(client: TestClient, stored_story: Story) -> None:
    """The links of the page carry the order to the files."""
    html = client.get("/?sort=oldest&state=done").text
    lines = client.get(unescape("/v1/audits.jsonl?state=done&amp;sort=oldest")).text.splitlines()
    assert len(_ids(html)) == len(lines)
    assert "/v1/audits.csv?state=done&amp;sort=oldest" in html
    assert "shown, oldest first" in html


def test_the_number_of_matches_is_told(client: TestClient, stored_story: Story) -> None:
    """On the page and over HTTP; with a rate also how many are supported."""
    done = _json(client, "/v1/audits?state=done&limit=100")
    facts = client.get("/v1/listing?state=done&fdr=0.1").json()
    assert (facts["matching"], facts["more"], facts["support"]["level"]) == (len(done), False, 0.1)
    assert f"<b>{len(done)}</b>" in client.get("/?state=done").text


@pytest.mark.parametrize(
    ("query", "wrong"),
    [
        ("severity=huge", ["severity"]),
        ("since=soon&score_min=high", ["since", "score_min"]),
        ("state=finished", ["state"]),
        ("since=2026-02-01&until=2026-01-01", []),
        ("confidence_min=.9&confidence_max=.1", []),
    ],
)
def test_a_wrong_filter_keeps_the_others(
    client: TestClient, stored_story: Story, query: str, wrong: list[str]
) -> None:
    """Nothing is listed, the form holds what was typed, and one link leaves the wrong one out."""
    answer = client.get(f"/?flag_reason=refund_promise&channel=stream&{query}")
    html = answer.text
    assert answer.status_code == 422
    assert _ids(html) == []
    assert 'name="flag_reason" value="refund_promise"' in html
    assert 'name="channel" value="stream"' in html
    assert "Nothing is listed: a filter cannot be used" in html
    assert html.count('aria-invalid="true"') == len([name for name in wrong if name != "state"])
    without = re.search(r'href="([^"]+)">Go on without (?:it|them)', html)
    assert without is not None
    if wrong:
        again = client.get(unescape(without[1]))
        assert again.status_code == 200
        assert 'value="refund_promise"' in again.text


def test_today_and_how_long_ago(client: TestClient, database: Database, stored_story: Story) -> None:
    """Words for times, read anew with every look."""
    with database.writing() as session:
        session.execute(
            update(Audit).where(Audit.id == stored_story.audit_ids[0]).values(created_at=LONG_AGO)
        )
    everything = len(_json(client, "/v1/audits?limit=100"))
    for word in ("today", "24h", "2d"):
        assert len(_json(client, f"/v1/audits?limit=100&since={word}")) in range(everything)
    assert len(_json(client, "/v1/audits?limit=100&since=9999d")) == everything


def test_since_the_last_visit(client: TestClient, database: Database, stored_story: Story) -> None:
    """Everything on the first visit; on the next one, what came after the end of the one before."""
    sign_in(client, name="ann")
    assert "Since my last visit" in client.get("/").text
    assert len(_ids(client.get("/?unseen=true").text)) == len(_ids(client.get("/").text))
    with database.writing() as session:
        session.execute(update(Person).values(seen_at=LONG_AGO))
        old = update(Audit).where(Audit.id != stored_story.audit_ids[0])
        session.execute(old.values(created_at=LONG_AGO - timedelta(hours=1)))
    assert _ids(client.get("/?unseen=true").text) == [stored_story.audit_ids[0]]
    assert _ids(client.get("/?unseen=true").text) == [stored_story.audit_ids[0]], "the visit goes on"
    put = client.get("/bulk?unseen=true").text
    assert 'name="since" value="2020-01-01T' in put, "an action takes what is in sight"


def test_a_view_is_kept_shared_and_forgotten(
    client: TestClient, database: Database, stored_story: Story
) -> None:
    """Under one's own name, with the words as typed; its address leads everybody to the list."""
    sign_in(client, name="ann")
    fields = {"view_name": "refunds <b>", "flag_reason": "refund_promise", "since": "today", "sort": "score"}
    where = "/?flag_reason=refund_promise&since=today&sort=score"
    saved = send(client, where, "/views", fields)
    assert saved.headers["location"] == where
    html = client.get(where).text
    assert "refunds &lt;b&gt;" in html
    address = re.search(r'href="(/views/\d+)" aria-current="true"', html)
    assert address is not None
    sign_in(client, name="bob")
    assert client.get(address[1], follow_redirects=False).headers["location"] == where
    assert "refunds &lt;b&gt;" not in client.get(where).text, "bob's own views only"
    assert send(client, "/", f"{address[1]}/delete").status_code == 404
    sign_in(client, name="ann")
    assert send(client, where, f"{address[1]}/delete").status_code == 303
    assert client.get(address[1], follow_redirects=False).status_code == 404


def test_views_over_http(client: TestClient, stored_story: Story) -> None:
    """Made, replaced, listed, deleted; a parameter that the list does not know is refused."""

    def save(parameters: dict[str, str]) -> Any:
        return client.post("/v1/views?reviewer=ann", json={"name": "mine", "parameters": parameters})

    assert save({"flag_reason": "x"}).status_code == 201
    assert save({"since": "today"}).status_code == 201
    [one] = client.get("/v1/views?reviewer=ann").json()["items"]
    assert (one["owner"], one["parameters"]) == ("ann", {"since": "today"})
    assert save({"colour": "red"}).status_code == 422
    assert save({"since": "soon"}).status_code == 422
    assert client.delete(f"/v1/views/{one['view_id']}?reviewer=bob").status_code == 404
    assert client.delete(f"/v1/views/{one['view_id']}?reviewer=ann").status_code == 204


def test_one_verdict_on_all(client: TestClient, database: Database, stored_story: Story) -> None:
    """Every answered audit of the filter that the person has not judged; the preview says how many."""
    sign_in(client, name="ann")
    page = "/bulk?flag_reason=refund_promise"
    wanted = _json(client, "/v1/audits?flag_reason=refund_promise&state=done")
    assert f"<b>{len(wanted)}</b> answered audits that you have not judged" in client.get(page).text
    answer = send(
        client,
        page,
        "/bulk/verdict",
        {"flag_reason": "refund_promise", "give": "unrelated", "comment": "a test"},
        follow=True,
    )
    assert f"{len(wanted)} verdicts were given" in answer.text
    assert [len(reviews.reviews_of(database, one)) for one in wanted] == [1] * len(wanted)
    assert _json(client, "/v1/audits?verdict=unrelated") == wanted
    assert set(_json(client, "/v1/audits?verdict=none&limit=100")).isdisjoint(wanted)
    again = send(
        client, page, "/bulk/verdict", {"flag_reason": "refund_promise", "give": "plausible"}, follow=True
    )
    assert "0 verdicts were given" in again.text
    back = send(client, page, "/bulk/take-back", {"flag_reason": "refund_promise"}, follow=True)
    assert f"{len(wanted)} audits have no verdict of yours any more" in back.text
    assert _json(client, "/v1/audits?verdict=unrelated") == []
    assert [len(reviews.reviews_of(database, one)) for one in wanted] == [2] * len(wanted)


def test_all_that_one_person_found_is_taken_back(
    client: TestClient, database: Database, stored_story: Story
) -> None:
    """Also what a later verdict had replaced; what others found, and verdicts on citations, stay."""
    [first, *_] = _json(client, "/v1/audits?state=done")
    ann, ben = (Reviewer(people.choose_local(database, name).ref, Via.LOCAL) for name in ("ann", "ben"))
    for by, rank, verdict in (
        (ann, None, Verdict.PLAUSIBLE),
        (ann, None, Verdict.UNRELATED),
        (ann, 1, Verdict.CONFIRMED),
        (ben, None, Verdict.UNRELATED),
    ):
        reviews.judge(database, first, ReviewDraft(rank=rank, verdict=verdict), by=by)
    preview = client.get("/v1/bulk?state=done").json()
    assert preview["judged"] == 0, "nobody asks under a name"
    assert client.get("/v1/bulk?state=done&reviewer=ann").json()["judged"] == 1
    done = client.post("/v1/bulk?reviewer=ann", json={"action": "take_back", "state": "done"}).json()
    assert done == {"changed": 1, "left": 0}
    stand = [
        (one.reviewer, one.rank, one.verdict) for one in reviews.reviews_of(database, first) if one.stands
    ]
    assert stand == [("ann", 1, Verdict.CONFIRMED), ("ben", None, Verdict.UNRELATED)]
    again = client.post("/v1/bulk?reviewer=ann", json={"action": "take_back", "state": "done"}).json()
    assert again["changed"] == 0


def test_all_are_tried_again(client: TestClient, database: Database, stored_story: Story) -> None:
    """Dead ones of the filter go back to the queue; others stay."""
    first, second = stored_story.audit_ids[:2]
    with database.writing() as session:
        session.execute(update(Audit).where(Audit.id.in_([first, second])).values(state=AuditState.DEAD))
    dead = len(_json(client, "/v1/audits?state=dead"))
    assert client.get("/v1/bulk?state=dead").json()["requeuable"] == dead >= 2
    assert client.post("/v1/bulk", json={"action": "requeue", "state": "dead"}).json() == {
        "changed": dead,
        "left": 0,
    }
    assert reader.get_audit(database, first).audit.state is AuditState.PENDING
    assert client.post("/v1/bulk", json={"action": "verdict"}).status_code == 422


def test_suggestions_name_all_values(client: TestClient, stored_story: Story) -> None:
    """Also those that are not in sight."""
    html = client.get("/?limit=1").text
    values = set(re.findall(r'<option value="([^"]+)"></option>', html))
    reasons = {one["flag_reason"] for one in client.get("/v1/audits?limit=100").json()["items"]}
    assert reasons <= values


def test_a_large_list_is_counted_by_the_sweeper(
    client: TestClient, database: Database, stored_story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page does not wait; the number comes with the sweeper's round, and tells its age when more has come."""
    monkeypatch.setattr(listings, "SMALL", 1)
    monkeypatch.setattr("db.reading.selection.FEW", 1)
    monkeypatch.setattr("db.parts.ROUND_S", 60.0)  # a round ends with its work, however slow the machine
    path = "/?channel=stream&fdr=0.1"
    assert "Being counted" in client.get(path).text
    assert listings.rounds(database).go_on() == 1
    matching = len(_json(client, "/v1/audits?channel=stream&limit=100"))
    assert f"<b>{matching}</b>" in client.get(path).text
    sign_in(client, name="ann")
    reviews_before = listings.facts(database, AuditFilter(channel="stream"), level=0.1, wait=False)
    me = people.list_people(database)[0].person_id
    saved_views.save_view(database, me, ViewDraft(name="x", parameters={}))
    assert listings.facts(database, AuditFilter(channel="stream"), level=0.1, wait=False) == reviews_before
    assert listings.rounds(database).go_on() == 1, "somebody asked for it after something had happened"
    assert listings.rounds(database).go_on() == 0


def test_a_read_leaves_a_large_list_as_it_is(
    client: TestClient, database: Database, stored_story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every page that somebody looks at is an event of the trail; the sweeper does not count anew for it."""
    monkeypatch.setattr(listings, "SMALL", 1)
    monkeypatch.setattr("db.reading.selection.FEW", 1)
    monkeypatch.setattr("db.parts.ROUND_S", 60.0)  # a round ends with its work, however slow the machine
    filters = AuditFilter(channel="stream")
    client.get("/?channel=stream&fdr=0.1")
    assert listings.rounds(database).go_on() == 1
    known = listings.facts(database, filters, level=0.1, wait=False)
    with database.writing() as session:
        session.add(TrailEvent(kind="text.read", subject="audits", payload={}, journal_id="line-1"))
    assert listings.facts(database, filters, level=0.1, wait=False) == known
    assert listings.rounds(database).go_on() == 0


def test_an_unfinished_index_is_told(client: TestClient, database: Database, stored_story: Story) -> None:
    """Only where somebody searches."""
    search.index_missing(database)
    assert "not indexed yet" not in client.get("/?text=refund").text
    with database.writing() as session:
        session.execute(text("UPDATE training_example SET indexed = NULL WHERE id = 1"))
    assert "1 stored texts are not indexed yet" in client.get("/?text=refund").text
    assert "not indexed yet" not in client.get("/").text


def test_an_empty_list_offers_to_drop_one_filter(client: TestClient, stored_story: Story) -> None:
    """Each of them by its label, with a link that keeps the others."""
    html = client.get("/?text=nothing-has-this&flag_reason=refund_promise&sort=oldest").text
    assert "No audit matches these filters" in html
    links = {
        unescape(label).strip(): unescape(href)
        for href, label in re.findall(r'class="without" href="([^"]+)">([^<]+)', html)
    }
    assert links == {
        "Text": "/?flag_reason=refund_promise&sort=oldest",
        "Reason": "/?text=nothing-has-this&sort=oldest",
    }
    assert _json(client, "/v1/audits?flag_reason=refund_promise")
