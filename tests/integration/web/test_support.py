"""The false discovery rate of a listing: in the API, in exports, on the page."""

import json

import pytest

from db.queues.audit_queue import AuditQueue, Finished
from db.storing import intake
from tests.integration.web import story


@pytest.fixture
def judged(stored_story, database):
    """Six more answered audits with conformal p-values, under a reason of their own."""
    records = [story.record(500 + number).model_copy(update={"reason": "judged"}) for number in range(6)]
    intake.accept(database, records, producer="local", channel="http")
    batch = AuditQueue(database).claim(stored_story.bundle_id, limit=50, owner="w", lease_s=60)
    assert batch
    p_values = iter((0.001, 0.9, 0.012, None, 0.4, 0.03))
    for one in batch.audits:
        if one.record.reason == "judged":
            answer = story.attribution(one.record, story.corpus(20)).model_copy(
                update={"conformal_p": next(p_values)}
            )
            AuditQueue(database).finish([Finished(one, answer, 0.1)])


def test_the_api_judges_the_whole_listing(judged, client):
    """Each audit says whether it passes, the page says how many of how many; without `fdr` nothing is judged."""
    answer = client.get("/v1/audits?flag_reason=judged&fdr=0.1&limit=2").json()
    assert answer["support"] == {
        "level": 0.1,
        "limit": 0.03,
        "supported": 3,
        "judged": 5,
        "uncalibrated": 1,
    }
    everything = client.get("/v1/audits?flag_reason=judged&fdr=0.1").json()["items"]
    assert {one["conformal_p"]: one["supported"] for one in everything} == {
        0.001: True,
        0.012: True,
        0.03: True,
        0.4: False,
        0.9: False,
        None: None,
    }
    plain = client.get("/v1/audits?flag_reason=judged").json()
    assert plain["support"] is None
    assert {one["supported"] for one in plain["items"]} == {None}


@pytest.mark.parametrize("level", ["0", "1", "-0.1", "nan", "ten"])
def test_a_level_outside_of_its_range_is_refused(client, level):
    """With the parameter's name in the answer."""
    answer = client.get(f"/v1/audits?fdr={level}")
    assert answer.status_code == 422
    assert answer.json()["error"]["field"] == "fdr"


def test_exports_carry_the_judgement(judged, client):
    """JSONL and CSV of a judged listing say for each audit whether it is supported."""
    lines = client.get("/v1/audits.jsonl?flag_reason=judged&fdr=0.1").text.splitlines()
    assert [json.loads(line)["supported"] for line in lines].count(True) == 3
    table = client.get("/v1/audits.csv?flag_reason=judged&fdr=0.1").text.splitlines()
    assert table[0].endswith("conformal_p,novelty_p,supported")
    assert sum(line.endswith(",True") for line in table) == 3


def test_the_page_marks_supported_audits(judged, client):
    """The form offers rates, the marked rows are those that pass, and the limits of the claim stand beside the number."""
    page = client.get("/?flag_reason=judged&fdr=0.1").text
    assert '<option value="0.1" selected>10 %</option>' in page
    assert page.count("passes at the false discovery rate") == 3
    assert "3 of 5 audits are supported at a false discovery rate of 10 %." in page
    assert "The guarantee is for outputs like the controls that calibrated the bundle." in page
    assert "1 answered audits were not judged: their bundles have no calibration" in page
    assert "/v1/audits.jsonl?flag_reason=judged&amp;fdr=0.1" in page
    assert "passes at the false discovery rate" not in client.get("/?flag_reason=judged").text


def test_a_page_without_calibration_says_so(stored_story, client):
    """The story's bundle holds none: no audit is marked, and the page says why."""
    page = client.get("/?fdr=0.1").text
    assert "No audit of this listing can be judged: its bundles have no calibration." in page
