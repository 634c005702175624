"""Whoever is shown a flagged text stands in the trail: every route, every page of a file, before the text goes out."""

import errno
import json
import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from db.access import keys
from db.models import Citation, Person, ReviewItem
from db.queues.audit_queue import AuditQueue, Finished
from db.session import Database
from db.storing import intake
from tests.integration.web import story
from tests.integration.web.conftest import BASE_URL
from tests.integration.web.forms import FORM, send, sign_in, token_of
from tests.integration.web.journals import moved_reads
from tests.integration.web.routes import paths_of
from tests.integration.web.sequel import AFTER, BEFORE, answer_all, next_model
from tests.integration.web.test_comparisons import PAGE
from web.app import create_app
from web.wellness.health import SilentProbe
from wherefrom.journal import Journal, files_of, journal_folder
from wherefrom.metrics import Metrics
from wherefrom.records import AuditState
from wherefrom.settings import Settings

#: Stands in the flagged text and nowhere else.
MARK = "quixotryzeugma"

Story = tuple[Settings, Database]
Made = Callable[..., TestClient]


@pytest.fixture
def made(sqlite_story: Story) -> Iterator[Made]:
    """Makes a client of a service that must note reads, or with settings of its own."""
    settings, database = sqlite_story
    apps = []

    def make(**changes: Any) -> TestClient:
        chosen = settings.model_copy(update={"trail_reads": "required"} | changes)
        app = create_app(chosen, database, metrics=Metrics(), queue=SilentProbe())
        apps.append(app)
        return TestClient(app, base_url=BASE_URL, raise_server_exceptions=False)

    yield make
    for app in apps:
        app.state.services.close()


def marked(database: Database, number: int = 0) -> int:
    """The id of an answered audit whose output holds the mark."""
    one = story.record(1000 + number).model_copy(
        update={"completion": f"We say {MARK} in answer {number}.", "preferred": f"{MARK}!", "spans": ()}
    )
    [result] = intake.accept(database, [one], producer="local", channel="http")
    assert result.audit_id is not None
    queue = AuditQueue(database)
    while claim := queue.claim(1, owner="marker", limit=50, lease_s=60):
        for each in claim.audits:
            answer = story.attribution(each.record, story.corpus(60))
            queue.finish([Finished(each, answer, 0.1, AuditState.DONE)])
    return result.audit_id


def desk(client: TestClient, audit_id: int, other: int) -> set[int]:
    """Put the marked audits wherever the service shows audits; all audits whose output holds the mark."""
    for body in ({"name": "all", "rule": {}}, {"name": "blind", "rule": {}, "blind": True}):
        assert client.post("/v1/review-queues", json=body).status_code == 201
        client.post("/v1/review-queues/1/next?reviewer=ann")
    client.post("/v1/review-queues/2/next?reviewer=ann")
    supposed = client.post(f"/v1/audits/{audit_id}/hypotheticals", json={"completion": f"No {MARK}."})
    assert supposed.status_code == 202
    group = client.post("/v1/groups", json={"audits": [audit_id, other]})
    assert group.status_code == 202
    assert client.post("/v1/fix-lists?reviewer=ann", json={"name": "fix"}).status_code == 201
    rows = {"action": "remove", "training_example_ids": [1], "reason": "x"}
    client.post("/v1/fix-lists/1/rows?reviewer=ann", json=rows)
    client.post("/v1/fix-lists/1/what-ifs", json={})
    return {audit_id, other, supposed.json()["audit_id"], group.json()["audit_id"]}


def test_every_route_that_shows_a_flagged_text_notes_it(made: Made, sqlite_story: Story) -> None:
    """All GET routes are asked for; where the answer holds the flagged text, the trail names its audit, before anything else is asked."""
    settings, database = sqlite_story
    audit_id, other = marked(database), marked(database, 1)
    client = made()
    marks = desk(client, audit_id, other)
    with database.reading() as session:
        cited = select(Citation.training_example_id).where(Citation.audit_id == audit_id, Citation.rank == 1)
        example = session.scalars(cited).one()
        mine = select(ReviewItem.queue_id, ReviewItem.id).where(ReviewItem.audit_id == audit_id)
        items = [(row.queue_id, row.id) for row in session.execute(mine.order_by(ReviewItem.queue_id))]
    assert [queue for queue, _ in items] == [1, 2]  # the second one is blind
    sign_in(client, name="ann")
    shown: set[str] = set()
    silent: set[str] = set()
    for route, path in _addresses(audit_id, other, example, items=items):
        before = len(_journaled(settings))
        answer = client.get(path)
        if MARK.encode() in answer.content:
            named = {
                one for line in _journaled(settings)[before:] for one in line["payload"].get("audits", ())
            }
            (shown if named & marks else silent).add(path if "item_id" in route else route)
    assert not silent
    before = len(_journaled(settings))
    assert client.post("/v1/what-ifs/1/measure", json={"audits": [2**40]}).status_code == 422
    assert len(_journaled(settings)) == before, "nothing was shown"
    each = {f"/review/{queue}/items/{item}" for queue, item in items}
    assert shown >= SHOWING | each, (SHOWING | each) - shown


#: Routes of which it is known that they show the text; a new one that does is found by itself.
SHOWING = {
    "/", "/audits/{audit_id}", "/audits/{audit_id}/text", "/audits/{audit_id}/compare/{other_audit_id}", "/examples/{training_example_id}",
    "/review/{queue_id}", "/v1/audits", "/v1/audits.csv", "/v1/audits.jsonl", "/v1/audits/{audit_id}",
    "/v1/audits/{audit_id}/hypotheticals", "/v1/examples/{training_example_id}/cited-by", "/v1/review-queues/{queue_id}/items",
    "/v1/what-ifs/{what_if_id}/outputs", "/what-ifs/{what_if_id}",
}  # fmt: skip


def _addresses(
    audit_id: int, other: int, example: int, *, items: list[tuple[int, int]]
) -> Iterator[tuple[str, str]]:
    """Every GET route with numbers that lead to the marked audits, in each of the queues."""
    for route in sorted(paths_of("GET")):
        for queue, item in items if "queue_id" in route else items[:1]:
            numbers = {"audit_id": audit_id, "other_audit_id": other, "training_example_id": example}
            numbers |= {"queue_id": queue, "item_id": item}
            yield route, re.sub(r"{(\w+)}", lambda name, known=numbers: str(known.get(name[1], 1)), route)  # type: ignore[misc] # a default of a lambda


@pytest.mark.parametrize("address", ["/compare", "/v1/bundle-comparison/outputs"])
def test_outputs_of_two_bundles_are_noted_under_both(made: Made, sqlite_story: Story, address: str) -> None:
    """Routes that need the names of two bundles: the excerpt of an output is a read of it, whichever of its audits somebody asks after."""
    settings, database = sqlite_story
    audit_id, client = marked(database), made()
    bundle_id = next_model(database)
    assert client.post("/v1/bulk", json={"action": "reaudit", "under": AFTER}).json()["changed"] > 0
    answer_all(database, bundle_id)
    client.get(PAGE)
    before = len(_journaled(settings))
    answer = client.get(address, params={"bundle": BEFORE, "other": AFTER})
    assert MARK in answer.text
    other = client.get(f"/v1/audits/{audit_id}").json()["other_audit_id"]
    noted = [one for line in _journaled(settings)[before:-1] for one in line["payload"]["audits"]]
    assert {audit_id, other} <= set(noted)


def _journaled(settings: Settings) -> list[dict[str, Any]]:
    """The lines of the journal as they stand on the disk."""
    files = files_of(journal_folder(settings))
    return [json.loads(line) for file in files for line in file.read_bytes().splitlines()]


def test_a_listing_is_one_event_with_its_filter_and_ids(made: Made, sqlite_story: Story) -> None:
    """The words that somebody searched for are a keyed digest; everything else of the filter reads plainly."""
    settings, database = sqlite_story
    number = marked(database)
    client = made()
    listed = client.get(f"/v1/audits?text={MARK}&severity=low&state=done").json()["items"]
    client.get(f"/v1/audits?text={MARK}")
    client.get("/v1/audits?text=other")
    first, second = moved_reads(settings, database, least=2)
    assert (first.kind, first.subject) == ("text.read", "audits" if len(listed) != 1 else f"audit:{number}")
    assert first.payload["audits"] == sorted(one["audit_id"] for one in listed)
    assert {name: first.payload["filter"][name] for name in ("severity", "state")} == {
        "severity": "low",
        "state": "done",
    }
    assert first.payload["filter"]["text"] == second.payload["filter"]["text"]
    assert MARK not in json.dumps([first.payload, second.payload])


def test_who_reads_is_told_by_id(made: Made, sqlite_story: Story) -> None:
    """A program by its key's prefix, a person by their number, with the key beside it; never a name."""
    settings, database = sqlite_story
    number = marked(database)
    key = keys.create_key(database, "dashboard", ["read"])
    own = keys.create_key(database, "ann-laptop", ["read", "review"], person="ann")
    client = made(production=True)
    for one in (key, own):
        assert (
            client.get(f"/v1/audits/{number}", headers={"Authorization": f"Bearer {one}"}).status_code == 200
        )
    sign_in(client, key=own)
    client.get(f"/audits/{number}")
    told = [
        (one.actor, one.payload["via"], one.payload["key"])
        for one in moved_reads(settings, database, least=3)
    ]
    prefix, of_ann = (one.split("_")[1] for one in (key, own))
    person = told[1][0]
    assert told == [
        (f"api_key:{prefix}", "key", prefix),
        (person, "key", of_ann),
        (person, "session", of_ann),
    ]
    assert re.fullmatch(r"person:\d+", person or "")


def test_a_file_is_noted_page_by_page(made: Made, sqlite_story: Story) -> None:
    """No page of an export goes out before its audits are in the journal."""
    settings, database = sqlite_story
    client = made(max_page_size=5)
    lines = client.get("/v1/audits.jsonl").text.splitlines()
    events = [one for one in moved_reads(settings, database, least=2) if one.kind == "text.exported"]
    assert sorted(one for event in events for one in event.payload["audits"]) == sorted(
        json.loads(line)["audit_id"] for line in lines
    )
    assert max(len(one.payload["audits"]) for one in events) <= 6


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No journal can be written."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Journal, "_put", refuse)


@pytest.mark.usefixtures("full_disk")
@pytest.mark.parametrize("path", ["/v1/audits/{0}", "/audits/{0}", "/", "/v1/audits.csv"])
def test_required_refuses_a_read_that_cannot_be_noted(made: Made, sqlite_story: Story, path: str) -> None:
    """Nothing of the text goes out: 503 with a code of its own. What shows no text is answered."""
    number = marked(sqlite_story[1])
    client = made()
    answer = client.get(path.format(number))
    assert answer.status_code == 503
    assert "Puncture" not in answer.text
    assert MARK not in answer.text
    if path.startswith("/v1"):
        assert answer.json()["error"]["code"] == "read_not_recorded"
    assert client.get("/v1/queue").status_code == 200


@pytest.mark.usefixtures("full_disk")
def test_best_effort_answers_and_counts(made: Made, sqlite_story: Story) -> None:
    """The read is shown, and a metric says that the trail does not know of it."""
    number = marked(sqlite_story[1])
    client = made(trail_reads="best_effort")
    assert client.get(f"/v1/audits/{number}").status_code == 200
    metrics = client.app.state.services.metrics  # type: ignore[attr-defined] # a FastAPI
    client.app.state.services.close()  # type: ignore[attr-defined] # a FastAPI
    assert metrics.registry.get_sample_value("wherefrom_trail_reads_unnoted_total") == 1


def test_off_notes_nothing(made: Made, sqlite_story: Story) -> None:
    """No journal is made; an export still stands in the trail."""
    settings, _ = sqlite_story
    client = made(trail_reads="off")
    assert client.get("/v1/audits").status_code == client.get("/v1/audits.csv").status_code == 200
    assert not (settings.state_dir / "trail").exists()


def test_a_database_that_takes_no_writes_shows_texts(made: Made, sqlite_story: Story) -> None:
    """Reads wait for no lock and need no write: they are journaled, and get into the trail when it takes writes again. So do exports."""
    settings, database = sqlite_story
    number = marked(database)
    client = made()
    with database.writing():  # whoever writes holds the only lock of SQLite
        assert client.get(f"/v1/audits/{number}").status_code == 200
        assert client.get("/v1/audits.csv").status_code == 200
    events = moved_reads(settings, database, least=3)
    assert {one.kind for one in events} == {"text.read", "export.taken", "text.exported"}


def test_a_form_that_leads_elsewhere_shows_nothing(made: Made, sqlite_story: Story) -> None:
    """An answer that only names another page is no read, whatever was looked up for it; the page that it leads to is."""
    settings, database = sqlite_story
    number = marked(database)
    client = made()
    sign_in(client, name="ann")
    assert client.post("/v1/review-queues", json={"name": "all", "rule": {}}).status_code == 201
    with database.reading() as session:
        person = session.scalars(select(Person.id).where(Person.name == "ann")).one()
        item = session.scalars(select(ReviewItem.id).where(ReviewItem.audit_id == number)).one()
    token = token_of(client, "/review/1")
    before = len(_journaled(settings))
    for action, fields in (
        ("/review/1/assign", {"person": person, "item": item}),
        (f"/review/1/items/{item}/unassign", {"person": person}),
        ("/review/1/next", {}),
        (f"/audits/{number}/reviews", {"verdict": "confirmed"}),
    ):
        body = urlencode({"form_token": token, **fields})
        answer = client.post(action, content=body, headers=FORM, follow_redirects=False)
        assert answer.status_code == 303, (action, answer.text)
    assert [one["kind"] for one in _journaled(settings)[before:]] == []
    assert client.get(answer.headers["location"]).status_code == 200
    assert [one["kind"] for one in _journaled(settings)[before:]] == ["text.read"]


def test_a_form_and_a_review_are_the_persons(made: Made, sqlite_story: Story) -> None:
    """Events of the database itself name who acted, as the request's key or session says."""
    _, database = sqlite_story
    number = marked(database)
    client = made()
    sign_in(client, name="ann")
    send(client, f"/audits/{number}", f"/audits/{number}/reviews", {"verdict": "confirmed", "rank": "1"})
    with database.reading() as session:
        from db.models import TrailEvent

        event = session.query(TrailEvent).where(TrailEvent.kind == "review.given").one()
        assert re.fullmatch(r"person:\d+", event.actor or "")
