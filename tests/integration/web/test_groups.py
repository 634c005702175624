"""Groups over HTTP and on the page."""

from db.queues.audit_queue import AuditQueue, Finished
from tests.integration.web import story
from tests.integration.web.test_api import error_of
from wherefrom.records import ClaimedOutputGroup

ANSWER = {"prompt": "Can I have my money back?", "completion": "Within 30 days <b>only</b>."}


def ask(client, **body):
    """POST one question."""
    return client.post("/v1/groups", json=body)


def test_a_group_is_asked_answered_and_shown(client, stored_story, database):
    """From audits and a new record; the page names the outputs, the acceptable answer and how each output scores a citation."""
    ids = list(stored_story.audit_ids[:2])
    record = {"model": story.MODEL, "prompt": "And mine?", "completion": "Always.", "severity": "critical"}
    body = {
        "audits": ids,
        "records": [record | {"idempotency_key": "new"}],
        "against": [ANSWER],
        "name": "refunds",
    }
    answer = ask(client, **body)
    assert answer.status_code == 202, answer.text
    asked = answer.json()
    assert (asked["status"], asked["state"]) == ("accepted", "pending")
    assert ask(client, **body).json() == asked | {"status": "duplicate"}
    batch = AuditQueue(database).claim(stored_story.bundle_id, limit=50, owner="w", lease_s=60)
    assert batch is not None
    (group,) = [one for one in batch.audits if one.audit_id == asked["audit_id"]]
    assert isinstance(group, ClaimedOutputGroup)
    assert [one.completion for one in group.members][2] == "Always."
    attribution = story.attribution(story.record(1), story.corpus(20))
    cited = [one.model_copy(update={"member_influence": (0.25, -0.5, 0.75)}) for one in attribution.citations]
    found = attribution.model_copy(update={"citations": tuple(cited)})
    AuditQueue(database).finish([Finished(group, found, 0.1)])
    detail = client.get(f"/v1/audits/{asked['audit_id']}").json()
    members = [one["audit_id"] for one in detail["members"]]
    assert members[:2] == ids
    assert detail["audit"]["members"] == 3
    page = client.get(f"/audits/{asked['audit_id']}").text
    assert "3 outputs as one question" in page
    assert "Positive for 2 of 3 outputs" in page
    assert "&lt;b&gt;only&lt;/b&gt;" in page
    assert "<b>only</b>" not in page
    assert all(f'href="/audits/{one}"' in page for one in members)
    assert "No conformal p" not in page
    assert "3 outputs as one question" in client.get("/").text
    assert (
        f'part of the question <a href="/audits/{asked["audit_id"]}">' in client.get(f"/audits/{ids[0]}").text
    )


def test_what_is_refused(client, stored_story):
    """A missing audit, no outputs, a malformed record by its field, too many, another group under the same key."""
    ids = list(stored_story.audit_ids[:2])
    assert "audit 999999 does not exist" in error_of(ask(client, audits=[999_999]), 404)["message"]
    assert "give 1 to 256 outputs" in error_of(ask(client), 422)["message"]
    lacking = error_of(ask(client, records=[{"prompt": "x", "model": "m"}]), 422)
    assert (lacking["field"], lacking["code"]) == ("records[0].completion", "invalid_record")
    assert error_of(ask(client, audits=list(range(1, 258))), 422)["field"] == "audits"
    assert ask(client, audits=ids, idempotency_key="k").status_code == 202
    other = error_of(ask(client, audits=ids[:1], idempotency_key="k"), 409)
    assert other["code"] == "idempotency_conflict"
    assert error_of(client.post("/v1/groups", content="{", headers={"content-type": "application/json"}), 400)
