"""Edit and compare over forms and the API: queued, followed, side by side, escaped, and only for those who may."""

from typing import Any

from starlette.testclient import TestClient

from db.access import keys
from db.access.keys import Scope
from db.queues.audit_queue import AuditQueue, Finished
from db.session import Database
from tests.integration.web import story
from tests.integration.web.conftest import BASE_URL
from tests.integration.web.forms import send

ATTACK = "<script>alert(1)</script> no refund"


def finish(database: Database, bundle_id: int) -> None:
    """Answer what is pending."""
    batch = AuditQueue(database).claim(bundle_id, limit=10, owner="w", lease_s=60)
    assert batch is not None
    corpus = story.corpus(60)
    AuditQueue(database).finish(
        [Finished(one, story.attribution(one.record, corpus), 0.1) for one in batch.audits]
    )


def test_the_form_leads_to_the_comparison(
    stored_story: story.Story, database: Database, client: TestClient
) -> None:
    """The answer is prefilled; the page follows the work, then shows both sides; each audit leads there."""
    number = stored_story.audit_ids[0]
    page = client.get(f"/audits/{number}").text
    assert "What if it had said this?" in page
    answer = send(client, f"/audits/{number}", f"/audits/{number}/hypotheticals", {"completion": ATTACK})
    assert answer.status_code == 303
    where = answer.headers["location"]
    waiting = client.get(where).text
    assert 'data-refresh-seconds="2"' in waiting
    assert "appears when both audits are answered" in waiting
    finish(database, stored_story.bundle_id)
    done = client.get(where).text
    assert "data-refresh-seconds" not in done
    assert "<script>alert" not in done
    assert '<mark class="changed">' in done
    assert "training examples stay" in done
    assert "the same for both" in done
    apart = client.get(f"/audits/{number}/compare/{stored_story.audit_ids[1]}").text
    assert "Two audits side by side" in apart
    assert "the same for both" not in apart
    assert "Held against this acceptable answer" not in apart
    other = int(where.rsplit("/", 1)[1])
    assert f'href="{where}"' in client.get(f"/audits/{number}").text
    supposed = client.get(f"/audits/{other}").text
    assert f"hypothetical, in place of #{number}" in supposed
    assert "Supposed answer, which nobody said" in supposed
    assert "Your verdict" not in supposed
    listed = client.get("/v1/audits", params={"limit": 200}).json()["items"]
    assert other not in {one["audit_id"] for one in listed}


def test_nothing_that_differs_is_told(stored_story: story.Story, client: TestClient) -> None:
    """In a sentence; nothing is queued."""
    number = stored_story.audit_ids[0]
    same = client.get(f"/v1/audits/{number}").json()["completion"]
    for fields, told in (({"completion": same}, "nothing differs"), ({}, "write another answer")):
        answer = send(client, f"/audits/{number}", f"/audits/{number}/hypotheticals", fields)
        assert answer.status_code == 422
        assert told in answer.text
    assert client.get(f"/v1/audits/{number}/hypotheticals").json()["items"] == []


def test_a_long_answer_in_another_script_fits(stored_story: story.Story, client: TestClient) -> None:
    """50,000 letters from right to left, which a form writes as six characters each."""
    number = stored_story.audit_ids[0]
    long = "שלום " * 10_000
    answer = send(client, f"/audits/{number}", f"/audits/{number}/hypotheticals", {"completion": long})
    assert answer.status_code in {200, 303}
    (one,) = client.get(f"/v1/audits/{number}/hypotheticals").json()["items"]
    assert client.get(f"/audits/{number}/compare/{one['audit_id']}").status_code == 200


def test_the_api(stored_story: story.Story, database: Database, client: TestClient) -> None:
    """202 with the audit; the same again is a duplicate; the comparison has every example of both."""
    number = stored_story.audit_ids[0]
    path, body = f"/v1/audits/{number}/hypotheticals", {"preferred": "Please send the receipt."}
    first = client.post(path, json=body)
    assert first.status_code == 202
    assert client.post(path, json=body).json() | {"status": "accepted"} == first.json()
    assert client.post(path, json={}).status_code == 422
    assert client.post(path, json={"completion": "x", "other": 1}).status_code == 422
    finish(database, stored_story.bundle_id)
    other = first.json()["audit_id"]
    found: dict[str, Any] = client.get(f"/v1/audits/{number}/comparison/{other}").json()
    cited = {one["example_id"] for one in found["citations"]}
    for audit_id in (number, other):
        mine = client.get(f"/v1/audits/{audit_id}").json()["citations"]
        assert {one["example_id"] for one in mine} <= cited
    assert found["same_bundle"]
    assert client.get(f"/v1/audits/{number}/comparison/999").status_code == 404


def test_it_needs_the_scope_measure(stored_story: story.Story, database: Database, make_app: Any) -> None:
    """A key that reads sees what was supposed and queues nothing."""
    key = keys.create_key(database, "reader", [Scope.READ])
    asking = TestClient(
        make_app(require_api_key=True), base_url=BASE_URL, headers={"Authorization": f"Bearer {key}"}
    )
    path = f"/v1/audits/{stored_story.audit_ids[0]}/hypotheticals"
    assert asking.post(path, json={"completion": "x"}).status_code == 403
    assert asking.get(path).status_code == 200
