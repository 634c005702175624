"""Effects of many training examples together over HTTP and on the page, and what is told before anything is queued."""

import re
from typing import Any

import pytest
from starlette.testclient import TestClient

from db.measuring import measurements, measuring_checks
from db.queues.measurement_queue import MeasurementQueue
from tests.integration.web.conftest import BASE_URL
from tests.integration.web.forms import send
from wherefrom.records import ControlEffect, ExpectedCost, MeasuredEffect, MeasuringCheck

EFFECT = MeasuredEffect(
    effect_nats=0.0123,
    low_nats=0.01,
    high_nats=0.0146,
    z=5.2,
    seeds=3,
    controls=(ControlEffect(example_ids=("x", "y"), effect_nats=0.001),),
    group=("a", "b"),
    weak=False,
    cost_seconds=75,
)


@pytest.fixture
def measuring(make_app):
    """A client of a service that knows a recipe."""
    return TestClient(make_app(recipe="recipe.json"), base_url=BASE_URL, follow_redirects=False)


def ask(client, number, body):
    """A question for the effect of a group."""
    return client.post(f"/v1/audits/{number}/measure", json=body)


def finish(database, bundle_id):
    """Measure what was asked for."""
    queue = MeasurementQueue(database).groups
    claimed = queue.claim(bundle_id, owner="m", lease_s=60, max_attempts=5)
    assert claimed is not None
    assert queue.finish(claimed, EFFECT)


def test_asking_over_the_api(stored_story, measuring, client):
    """202 with the measurement, the same one again; exactly one of ids and source; a recipe is needed."""
    number = stored_story.audit_ids[0]
    first = ask(measuring, number, {"example_ids": ["b", "a"]})
    assert first.status_code == 202
    body = first.json()
    assert (body["state"], body["request"]) == ("pending", {"example_ids": ["a", "b"], "source": None})
    assert ask(measuring, number, {"example_ids": ["a", "b"]}).json() == body
    assert measuring.get(f"/v1/group-measurements/{body['measurement_id']}").json() == body
    refused: tuple[dict[str, Any], ...] = (
        {},
        {"example_ids": []},
        {"example_ids": ["a"], "source": "b"},
        {"source": ""},
        {"rows": [1]},
    )
    for wrong in refused:
        assert ask(measuring, number, wrong).status_code == 422, wrong
    assert ask(measuring, 999_999, {"source": "forum"}).status_code == 404
    assert measuring.get("/v1/group-measurements/999").status_code == 404
    assert ask(client, number, {"source": "forum"}).json()["error"]["code"] == "measuring_unavailable"


def test_the_page_asks_follows_and_shows(stored_story, measuring, database):
    """A source is chosen from those that are cited; state, then effect with interval and controls."""
    number = stored_story.audit_ids[0]
    page = measuring.get(f"/audits/{number}").text
    (source, *_) = re.findall(r'<option value="([^"]+)">', page)
    action = f"/audits/{number}/measure"
    assert measuring.post(action, data={"source": source}).status_code == 403  # without the token
    answer = send(measuring, f"/audits/{number}", action, {"source": source})
    assert (answer.status_code, answer.headers["location"]) == (303, f"/audits/{number}#groups")
    waiting = measuring.get(f"/audits/{number}").text
    assert "waits to be measured" in waiting
    assert 'data-refresh-seconds="2"' in waiting
    finish(database, stored_story.bundle_id)
    page = measuring.get(f"/audits/{number}").text
    part = page[page.index('id="groups"') :]
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", part))
    for expected in (
        source,
        "Measured effect +0.0123 nats",
        "95 % +0.0100 to +0.0146",
        "2 in all; 3 seeds",
        "+5.2 standard errors",
    ):
        assert expected in text, (expected, text)
    assert "data-refresh-seconds" not in page
    assert send(measuring, f"/audits/{number}", action).status_code == 422  # no source


def test_what_the_measurer_found_is_told_before_anything_is_queued(stored_story, measuring, database):
    """An unfit recipe refuses with its reason, and nothing waits; a fit one tells what it will cost."""
    number, bundle_id = stored_story.audit_ids[0], stored_story.bundle_id
    reason = "the recipe's adapter is not the one of the bundle: lora.rank is 8, the adapter's is 16"
    measuring_checks.save(database, bundle_id, MeasuringCheck(code="configuration", reason=reason))
    for path in (f"/v1/audits/{number}/measure", f"/v1/audits/{number}/citations/1/measure"):
        answer = measuring.post(path, json={"source": "forum"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, "measuring_unavailable")
        assert "lora.rank is 8" in answer.json()["error"]["message"]
    assert not any(measurements.measurement_counts(database).values())
    cost = ExpectedCost(trainings=15, seconds=90.5, memory_bytes=2**33, tokens=1000, timed=True)
    measuring_checks.save(database, bundle_id, MeasuringCheck(cost=cost))
    assert ask(measuring, number, {"source": "forum"}).json()["expected"] == cost.model_dump()
    single = measuring.post(f"/v1/audits/{number}/citations/1/measure")
    assert single.json()["expected"] == cost.model_dump()
