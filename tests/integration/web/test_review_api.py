"""The desk's API: queues, verdicts and their export, with the same rules as the pages."""

import json

import pytest

from db.access import keys, people
from tests.integration.web.forms import send, sign_in
from tests.integration.web.test_review_pages import made, next_item
from wherefrom.records import JudgedOutput


def queue(client, **fields):
    """A new queue."""
    answer = client.post("/v1/review-queues", json={"name": "all", "rule": {}} | fields)
    assert answer.status_code == 201, answer.text
    return answer.json()


def test_from_a_rule_to_a_verdict(client, stored_story):
    """Make, look, take the next, judge, take back; on both engines."""
    made_queue = queue(
        client, rule={"flag_reason": "refund_promise", "until": "2999-01-31"}, order="severity"
    )
    number = made_queue["queue_id"]
    assert (made_queue["open"], made_queue["rule"]["flag_reason"]) == (2, "refund_promise")
    listed = client.get(f"/v1/review-queues/{number}/items").json()["items"]
    [item] = client.post(f"/v1/review-queues/{number}/next?reviewer=ann").json()["items"]
    assert item["item_id"] == listed[0]["item_id"]
    audit_id = item["audit"]["audit_id"]
    given = client.post(f"/v1/audits/{audit_id}/reviews?reviewer=ann", json={"verdict": "confirmed"})
    assert (given.status_code, given.json()["proven"], given.json()["stands"]) == (201, False, True)
    assert client.get("/v1/review-queues").json()["items"][0]["done"] == 1
    undone = client.post(f"/v1/reviews/{given.json()['review_id']}/undo?reviewer=ann").json()
    assert undone["undone"]
    assert len(client.get(f"/v1/audits/{audit_id}/reviews").json()["items"]) == 2


def test_bulk_with_a_preview(client, stored_story, database):
    """The number first, then the same number; a second time nothing is new."""
    number = queue(client, rule=None, name="by hand")["queue_id"]
    ann = people.choose_local(database, "ann").person_id
    path = f"/v1/review-queues/{number}/audits"
    told = client.post(path, json={"state": "done", "dry_run": True}).json()
    assert (told["matched"] > 3, told["added"]) == (True, 0)
    put = client.post(path, json={"state": "done", "assign_to": ann}).json()
    assert put["matched"] == told["matched"] >= put["added"] == put["assigned"] > 0
    assert client.post(path, json={"state": "done", "assign_to": ann}).json()["added"] == 0
    assert client.post(path, json={"state": "done", "assign_to": 999}).status_code == 404


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"name": ""}, 422), ({"name": "x", "order": "y"}, 422), ({"name": "x", "rule": {"nope": 1}}, 422),
        ({"name": "x", "rule": {"since": "2026-02-01", "until": "2026-01-01"}}, 422), ({"name": "x\u0000"}, 422), ([], 422),
    ],
)  # fmt: skip
def test_bodies_that_cannot_be_used(quick_client, body, status):
    """Told in our own words, with the field."""
    answer = quick_client.post("/v1/review-queues", json=body)
    assert (answer.status_code, "message" in answer.json()["error"]) == (status, True)


def test_who_judges(quick_client, sqlite_story):
    """A key's person and nobody else; without keys a name that no key proves."""
    db = sqlite_story[1]
    auditor = {"Authorization": f"Bearer {keys.create_key(db, 'ann', ['read', 'review'])}"}
    program = {"Authorization": f"Bearer {keys.create_key(db, 'root', ['admin'])}"}
    path, body = "/v1/audits/1/reviews", {"verdict": "plausible"}
    assert quick_client.post(path, json=body, headers=auditor).json()["reviewer"] == "ann"
    tried: tuple[tuple[dict[str, str], str], ...] = (
        (auditor, "?reviewer=ben"),
        (program, ""),
        ({}, ""),
        ({}, "?reviewer=ann"),
    )
    for headers, query in tried:
        assert quick_client.post(path + query, json=body, headers=headers).status_code == 403, (
            headers,
            query,
        )
    reader = {"Authorization": f"Bearer {keys.create_key(db, 'reader', ['read'])}"}
    assert quick_client.post(path, json=body, headers=reader).status_code == 403
    assert quick_client.get("/v1/review-queues", headers=reader).status_code == 403


def test_blind_verdicts_are_exported_with_their_texts(quick_client):
    """One line per output: prompt, answer, and who found what about which training example; what was taken back is not there."""
    sign_in(quick_client, name="ann")
    item = next_item(quick_client, made(quick_client, blind="1", flag_reason="refund_promise"))
    page = quick_client.get(item).text
    actions = [
        part.split('"', 1)[0] for part in page.split('action="')[1:] if "/blind/" in part.split('"', 1)[0]
    ]
    for action, verdict in zip(actions, ("confirmed", "unrelated", "plausible", "unrelated"), strict=False):
        send(quick_client, item, action, {"verdict": verdict})
    send(quick_client, "/audits/2", "/audits/2/reviews", {"verdict": "confirmed", "rank": "1"})
    lines = quick_client.get("/v1/verdicts.jsonl").text.splitlines()
    [judged] = [JudgedOutput.model_validate(json.loads(line)) for line in lines]
    assert [one.verdict.value for one in judged.verdicts] == [
        "confirmed",
        "unrelated",
        "plausible",
        "unrelated",
    ]
    assert {one.reviewer for one in judged.verdicts} == {"ann"}
    assert (judged.messages[-1].role, "refund" in judged.completion) == ("user", True)
