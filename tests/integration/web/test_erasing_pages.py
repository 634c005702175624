"""Erasure, holds and retention over HTTP and on their page: for administrators, refused where something is held, and shown where texts were."""

import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from db.access import keys
from db.erasure import erasures, example_erasing, retention
from db.models import TrainingExample
from db.session import Database
from tests.integration.web.forms import send
from wherefrom.records import TrainingExample as Example
from wherefrom.settings import Settings

REASON = {"reason": "case 9"}


@pytest.fixture
def database(sqlite_story: tuple[Settings, Database]) -> Database:
    """Its database."""
    return sqlite_story[1]


@pytest.fixture
def audit_id(quick_client: TestClient) -> int:
    """An audit that is done and has its text."""
    found: int = quick_client.get("/v1/audits?state=done&limit=1").json()["items"][0]["audit_id"]
    return found


def test_an_erasure_is_asked_for_and_shown(
    quick_client: TestClient, database: Database, audit_id: int
) -> None:
    """Accepted at once, carried out by the sweeper; then page, API and SQL say when and by what."""
    asked = quick_client.post("/v1/erasures", json={"audit_ids": [audit_id], **REASON})
    assert asked.status_code == 202
    number = asked.json()["erasure_id"]
    assert asked.json()["done_at"] is None
    assert "under way" in quick_client.get("/erasing").text
    erasures.carry_out(database, number, before=lambda _: None)
    assert quick_client.get(f"/v1/erasures/{number}").json()["erased"] >= 1
    detail = quick_client.get(f"/v1/audits/{audit_id}").json()
    assert (detail["completion"], detail["erased_by"]) == ("", "request")
    assert detail["citations"]
    day = detail["erased_at"][:10]
    assert f"The text was erased on {day} by request." in quick_client.get(f"/audits/{audit_id}").text
    nothing = quick_client.post("/v1/erasures", json={"audit_ids": [audit_id], **REASON})
    assert (nothing.status_code, nothing.json()["error"]["code"]) == (404, "not_found")


def test_what_is_held_is_refused(quick_client: TestClient, audit_id: int) -> None:
    """409 with the hold; lifted with a reason, it goes; a second lift is told."""
    placed = quick_client.post("/v1/holds", json={"audit_ids": [audit_id], **REASON})
    assert placed.status_code == 201
    hold_id = placed.json()["hold_id"]
    refused = quick_client.post("/v1/erasures", json={"audit_ids": [audit_id], **REASON})
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "held")
    assert quick_client.post(f"/v1/holds/{hold_id}/lift", json={}).status_code == 422
    assert quick_client.post(f"/v1/holds/{hold_id}/lift", json=REASON).json()["lift_reason"] == "case 9"
    assert quick_client.post(f"/v1/holds/{hold_id}/lift", json=REASON).status_code == 422
    assert quick_client.post("/v1/erasures", json={"audit_ids": [audit_id], **REASON}).status_code == 202


@pytest.mark.parametrize(
    "body",
    [
        REASON,
        {"audit_ids": [1], "outputs": {"model": "m"}, **REASON},
        {"outputs": {}, **REASON},
        {"outputs": {"label": "user"}, **REASON},
        {"audit_ids": [1]},
        {"audit_ids": list(range(1, 1002)), **REASON},
    ],
)
def test_a_request_names_something(quick_client: TestClient, body: dict[str, object]) -> None:
    """Not nothing, not everything, not both; and why."""
    assert quick_client.post("/v1/erasures", json=body).status_code == 422


def test_rules_come_and_go(quick_client: TestClient, database: Database) -> None:
    """Added over HTTP and by a form; ended once."""
    given = {"name": "low", "outputs": {"severity": "low"}, "days": 30}
    made = quick_client.post("/v1/retention-rules", json=given)
    assert made.status_code == 201
    assert quick_client.post("/v1/retention-rules", json=given).status_code == 422
    fields = {"name": "by <b>form</b>", "days": "7", "model": "m"}
    assert send(quick_client, "/erasing", "/erasing/rules", fields).status_code == 303
    page = quick_client.get("/erasing").text
    assert "by &lt;b&gt;form&lt;/b&gt;" in page
    rule_id = made.json()["rule_id"]
    assert send(quick_client, "/erasing", f"/erasing/rules/{rule_id}/end").status_code == 303
    assert [one.name for one in retention.listed(database)] == ["by <b>form</b>"]


def test_the_forms_place_lift_and_erase(quick_client: TestClient, database: Database, audit_id: int) -> None:
    """The same as over HTTP, but the first press only counts; a form without a token of ours is refused."""
    fields = {"audit_ids": f"{audit_id}", **REASON}
    assert quick_client.post("/erasing/holds", data=fields).status_code == 403
    assert send(quick_client, "/erasing", "/erasing/holds", fields).status_code == 303
    assert send(quick_client, "/erasing", "/erasing/outputs", fields).status_code == 409
    [hold] = quick_client.get("/v1/holds").json()["items"]
    assert send(quick_client, "/erasing", f"/erasing/holds/{hold['hold_id']}/lift", REASON).status_code == 303
    first = send(quick_client, "/erasing", "/erasing/outputs", fields)
    assert "Erase the text of 1 flagged output?" in first.text
    assert erasures.waiting(database) == []
    assert send(quick_client, "/erasing", "/erasing/outputs", fields | {"sure": "1"}).status_code == 303
    assert len(erasures.waiting(database)) == 1
    by_class = send(quick_client, "/erasing", "/erasing/outputs", {"flag_reason": "rude_tone", **REASON})
    assert "Reason of the flag <b>rude_tone</b>" in by_class.text
    wrong = {"audit_ids": "seven", **REASON}
    assert send(quick_client, "/erasing", "/erasing/outputs", wrong).status_code == 422


def test_only_administrators(quick_client: TestClient, database: Database) -> None:
    """A key that reads everything neither sees nor erases."""
    reads = keys.create_key(database, "reads", ["read", "review"])
    headers = {"Authorization": f"Bearer {reads}"}
    for path in ("/v1/erasures", "/v1/holds", "/v1/retention-rules", "/erasing"):
        assert quick_client.get(path, headers=headers).status_code == 403, path
    for path in ("/v1/erasures", "/v1/holds"):
        body = {"audit_ids": [1], **REASON}
        assert quick_client.post(path, headers=headers, json=body).status_code == 403, path


def test_an_erased_example_says_so_everywhere(
    quick_client: TestClient, database: Database, audit_id: int
) -> None:
    """Its own page, the citation on the audit's page, and both over HTTP."""
    cited = quick_client.get(f"/v1/audits/{audit_id}").json()["citations"][0]
    with database.writing() as session:
        row = session.scalars(
            select(TrainingExample).where(TrainingExample.id == cited["training_example_id"])
        ).one()
        example = Example(
            example_id=row.example_id,
            row=row.row,
            source=row.source,
            prompt=row.prompt,
            completion=row.completion,
            text_sha256=row.text_sha256,
        )
        assert example_erasing.erase_examples(session, {row.corpus_id: [example]}, by="request") == 1
    again = quick_client.get(f"/v1/audits/{audit_id}").json()["citations"][0]
    assert (again["completion"], again["erased_by"]) == ("", "request")
    own = quick_client.get(f"/v1/examples/{cited['training_example_id']}").json()
    assert own["erased_by"] == "request"
    for page in (f"/audits/{audit_id}", f"/examples/{cited['training_example_id']}"):
        assert f"The text was erased on {own['erased_at'][:10]} by request." in quick_client.get(page).text
