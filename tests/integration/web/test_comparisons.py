"""Re-audit in bulk and two bundles side by side, over forms and the API: the whole way, who may, and what it costs."""

import re

import pytest
from starlette.testclient import TestClient

from db.access import keys
from db.access.keys import Scope
from db.session import Database
from tests.integration.db.builders import recorded_statements
from tests.integration.web import story
from tests.integration.web.conftest import BASE_URL
from tests.integration.web.forms import send
from tests.integration.web.sequel import AFTER, BEFORE, answer_all, next_model
from wherefrom.settings import Settings

ATTACK = "<script>alert(1)</script>"
PAGE = f"/compare?bundle={BEFORE}&other={AFTER}"


def test_the_next_model_is_met(stored_story: story.Story, database: Database, client: TestClient) -> None:
    """By forms: counted first, audited again, followed, summed up; each output leads to its pair."""
    bundle_id = next_model(database)
    assert "No output is answered under both bundles yet" in client.get(PAGE).text
    where = f"/bulk?bundle={BEFORE}&under={AFTER}"
    assert f'href="{where}#reaudit"'.replace("&", "&amp;") in client.get(PAGE).text
    before = client.get(where).text
    counted = re.search(r"<b>(\d+)</b> outputs have no audit under b-cleaned", before)
    assert counted is not None
    assert client.get("/v1/bulk", params={"bundle": BEFORE, "under": AFTER}).json()["reauditable"] == int(
        counted[1]
    )
    done = send(client, where, "/bulk/reaudit", {"bundle": BEFORE, "under": AFTER}, follow=True).text
    assert f"{counted[1]} new audits are queued" in done
    assert f'href="{PAGE}"'.replace("&", "&amp;") in done
    assert "Audit 0 under it" in done
    assert 'data-refresh-seconds="4"' in client.get(PAGE).text
    answer_all(database, bundle_id)
    html = client.get(PAGE).text
    assert "Rows are matched by a hash of all that the model saw of them" in html
    assert "vendor_batch_07" in html
    pair = re.search(r'href="(/audits/\d+/compare/\d+)"', html)
    assert pair is not None
    side = client.get(pair[1]).text
    assert "One output under two bundles" in side
    assert "did not say this: what would make it say so?" in side
    assert side.count("nats per token") == 2
    other = pair[1].rsplit("/", 1)[1]
    assert f"asked of {AFTER}-model" in client.get(f"/audits/{other}").text
    assert f'href="{pair[1]}"' in client.get(f"/audits/{other}").text
    assert "asked of" not in client.get(f"/audits/{stored_story.audit_ids[0]}").text


def test_the_api(stored_story: story.Story, database: Database, client: TestClient) -> None:
    """The same over HTTP; pages of outputs follow each other; what cannot be compared is told."""
    bundle_id = next_model(database)
    assert client.post("/v1/bulk", json={"action": "reaudit"}).status_code == 422
    asked = client.post("/v1/bulk", json={"action": "reaudit", "under": AFTER, "state": "done"}).json()
    assert asked["changed"] > 2
    answer_all(database, bundle_id)
    both = {"bundle": BEFORE, "other": AFTER}
    found = client.get("/v1/bundle-comparison", params=both).json()
    assert (found["progress"], found["summary"]["outputs"]) == (None, asked["changed"])
    moved = {one["source"]: one["lost"] for one in found["summary"]["sources"]}
    assert moved["vendor_batch_07"] > 0
    path = "/v1/bundle-comparison/outputs"
    first = client.get(path, params={**both, "limit": 2}).json()
    second = client.get(path, params={**both, "limit": 2, "cursor": first["next_cursor"]}).json()
    whole = client.get(path, params=both).json()["items"]
    assert first["items"] + second["items"] == whole[:4]
    detail = client.get(f"/v1/audits/{whole[0]['audit_id']}").json()
    assert detail["other_audit_id"] == whole[0]["other_audit_id"]
    for params, status in (
        ({"bundle": BEFORE, "other": "none"}, 404), ({"bundle": BEFORE, "other": BEFORE}, 422), ({"bundle": BEFORE}, 422),
        ({**both, "cursor": "x"}, 422), ({**both, "who": "x"}, 422), ({"bundle": "a\x00", "other": AFTER}, 422),
    ):  # fmt: skip
        assert client.get(path, params=params).status_code == status, params
    assert client.post("/v1/bulk", json={"action": "reaudit", "under": "none"}).status_code == 404
    assert client.get("/v1/bulk?under=none").status_code == 404


def test_it_costs_the_same_however_much_there_is(
    sqlite_story: tuple[Settings, Database], quick_client: TestClient
) -> None:
    """The page of two bundles that were compared: bundles twice, what is known, what waits, the outputs."""
    database = sqlite_story[1]
    bundle_id = next_model(database)
    counted = []
    for given in ({"flag_reason": "dangerous_advice"}, {}):
        quick_client.post("/v1/bulk", json={"action": "reaudit", "under": AFTER, **given})
        answer_all(database, bundle_id)
        quick_client.get(PAGE)
        with recorded_statements() as statements:
            assert quick_client.get(PAGE).status_code == 200
        counted.append(len(statements))
    assert counted == [7, 7], statements
    quick_client.post("/v1/bulk", json={"action": "requeue", "state": "dead"})
    assert "compared" in quick_client.get(PAGE).text


def test_the_form_chooses_two_bundles(
    quick_client: TestClient, sqlite_story: tuple[Settings, Database]
) -> None:
    """One bundle is nothing to compare; the newest two are chosen; wrong names are told; names are escaped."""
    assert "nothing to compare with yet" in quick_client.get("/compare").text
    assert 'href="/compare"' not in quick_client.get("/bundles").text
    next_model(sqlite_story[1], name=ATTACK)
    html = quick_client.get("/compare").text
    assert ATTACK not in html
    assert html.count(" selected>") == 2
    assert 'href="/compare"' in quick_client.get("/bundles").text
    assert quick_client.get(f"/compare?bundle={BEFORE}&other={BEFORE}").status_code == 422
    assert quick_client.get(f"/compare?bundle={BEFORE}&other=none").status_code == 404
    assert quick_client.get("/compare", params={"bundle": BEFORE, "other": ATTACK}).status_code == 200


def test_auditing_again_needs_measure_and_read(
    quick_client: TestClient, sqlite_story: tuple[Settings, Database]
) -> None:
    """It costs as much as new audits; whoever reads sees comparisons."""
    database = sqlite_story[1]
    next_model(database)

    def asked(*scopes: Scope) -> tuple[int, int]:
        key = keys.create_key(database, "-".join(scopes), list(scopes))
        header = {"Authorization": f"Bearer {key}"}
        body = {"action": "reaudit", "under": AFTER}
        wrote = quick_client.post(f"{BASE_URL}/v1/bulk", json=body, headers=header).status_code
        return wrote, quick_client.get(PAGE, headers=header).status_code

    assert asked(Scope.READ, Scope.REVIEW) == (403, 200)
    assert asked(Scope.REVIEW, Scope.MEASURE) == (403, 403)
    assert asked(Scope.READ, Scope.REVIEW, Scope.MEASURE) == (200, 200)
    assert "This needs the scope" not in quick_client.get(f"/bulk?under={AFTER}").text


@pytest.mark.parametrize("arguments", [["17"], [], ["17", "18", "--bundles", "a", "b"]])
def test_the_command_names_what_is_missing(arguments: list[str]) -> None:
    """Two audits or two bundles."""
    from typer.testing import CliRunner

    from wherefrom.cli.app import make_app

    result = CliRunner().invoke(make_app(), ["compare", *arguments])
    assert result.exit_code == 2
