"""Fix lists and the reverse question over HTTP: the board of culprits, sources, search, lists by forms and by the API, and who may what."""

import json
import re

import pytest
from starlette.testclient import TestClient

from db.access import keys
from db.access.budgets import Quotas
from db.models import GroupMeasurement
from db.queues.what_if_queue import WhatIfQueue
from db.remedies import fix_rows
from db.storing.search import index_missing
from tests.integration.db.builders import recorded_statements
from tests.integration.web.conftest import BASE_URL
from tests.integration.web.forms import send, sign_in
from tests.integration.web.journals import moved_reads
from web.app import create_app
from web.wellness.health import SilentProbe
from wherefrom.metrics import Metrics
from wherefrom.records import ListScore

ATTACK = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'>{{7*7}}\u202e"


def first_group(pattern: str, text: str) -> str:
    """What the group of a pattern matched, which must be there."""
    found = re.search(pattern, text)
    assert found is not None, pattern
    return found[1]


@pytest.fixture
def ann(quick_client):
    """Somebody who chose a name."""
    sign_in(quick_client, name="ann")
    return quick_client


def made(client, name="refunds", **fields):
    """The page of a list that was made by the form."""
    answer = send(client, "/fix-lists", "/fix-lists", {"name": name, **fields})
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


def test_culprits_of_a_selection_go_on_a_list(ann):
    """The board ranks them for any filter; ticked rows go on a list that is made on the way, with their reason."""
    page = ann.get("/culprits?flag_reason=refund_promise").text
    assert page.index("vendor_batch_07") < page.index("People") + 5000
    assert 'href="/culprits?flag_reason=refund_promise"' in ann.get("/?flag_reason=refund_promise").text
    [first, second, *_] = re.findall(r'name="row" value="(\d+)"', page)
    fields = [("row", first), ("row", second), ("name", "refunds"), ("action", "remove"), ("reason", ATTACK)]
    answer = send(ann, "/culprits", "/fix-lists/rows", fields, follow=True)
    assert "2 of 2 rows changed" in answer.text
    assert "<script>alert" not in answer.text
    assert "U+202E" in answer.text
    assert "On the fix list refunds" in ann.get("/culprits").text
    assert "Remove" in ann.get(f"/examples/{first}").text


def test_outputs_beyond_the_bound_are_told_as_more(ann, monkeypatch):
    """In plain words on the page; the API tells the number."""
    monkeypatch.setattr(fix_rows, "COUNTED_OUTPUTS", 1)
    [first, *_] = re.findall(r'name="row" value="(\d+)"', ann.get("/culprits").text)
    page = send(ann, "/culprits", "/fix-lists/rows", [("row", first), ("name", "often")], follow=True)
    assert '<td class="c-number right">more than 1</td>' in page.text
    [one] = ann.get(f"/v1/fix-lists/{page.url.path.rpartition('/')[2]}/rows").json()["items"]
    assert one["outputs"] > 1


def test_a_filter_goes_on_a_list_after_a_preview(ann):
    """The number first; the same number on the list, and the filter in its history."""
    number = made(ann).rsplit("/", 1)[1]
    preview = ann.get("/fix-lists/put?flag_reason=dangerous_advice").text
    count = int(first_group(r"Put (\d+) training examples", preview))
    fields = {
        "by_filter": "1",
        "flag_reason": "dangerous_advice",
        "most": "20",
        "list": number,
        "action": "fix",
    }
    page = send(
        ann, "/fix-lists/put?flag_reason=dangerous_advice", "/fix-lists/rows", fields, follow=True
    ).text
    assert f"{count} of {count} rows changed" in page
    assert "dangerous_advice" in page


def test_a_whole_source_but_what_stays(ann):
    """A kept row stays kept, rows can be changed and taken off, and a closed list has no forms."""
    page = made(ann, note="before March")
    [row, *_] = re.findall(r'name="row" value="(\d+)"', ann.get("/source?source=vendor_batch_07").text)
    number = page.rsplit("/", 1)[1]
    send(ann, page, "/fix-lists/rows", {"row": row, "list": number, "action": "keep", "back": "/culprits"})
    told = send(
        ann, page, "/fix-lists/rows", {"whole_source": "vendor_batch_07", "list": number}, follow=True
    )
    assert re.search(r"Keep <span class=\"faint\">1<", told.text)
    assert send(ann, page, f"{page}/rows", {"row": row, "action": "off"}, follow=True).text.count(
        "1 of 1 rows"
    )
    assert send(ann, page, f"{page}/close").status_code == 303
    closed = ann.get(page).text
    assert "closed the list" in closed
    assert 'name="row"' not in closed
    assert send(ann, "/fix-lists", f"{page}/rows", {"row": row, "action": "off"}).status_code == 422


@pytest.mark.parametrize(
    ("path", "fields", "status"),
    [
        ("/fix-lists", {"name": ""}, 422), ("/fix-lists", {"name": "local"}, 422),
        ("/fix-lists/rows", {"name": "x"}, 422), ("/fix-lists/rows", {"name": "x", "row": "999999"}, 404),
        ("/fix-lists/rows", {"list": "77", "row": "1"}, 404), ("/fix-lists/rows", {"name": "x", "row": "1", "action": "burn"}, 422),
    ],
)  # fmt: skip
def test_forms_that_cannot_be_used_change_nothing(ann, path, fields, status):
    """They are told in a sentence."""
    assert send(ann, "/fix-lists", path, fields).status_code == status
    assert ann.get("/v1/fix-lists").json()["items"] in (
        [],
        [one for one in ann.get("/v1/fix-lists").json()["items"] if not one["remove"]],
    )


def test_a_source_says_how_it_compares_with_its_size(client, stored_story):
    """Blamed more than its size explains, or not; over time with a table beneath; on both engines."""
    found = client.get("/v1/source?source=vendor_batch_07").json()
    blame = found["blame"]
    assert blame["first_citations"] > 2 * blame["expected"] > 0
    assert blame["p"] < 0.05 < blame["q"]
    assert sum(one["first_citations"] for one in found["over_time"]) == blame["first_citations"]
    assert sum(one["audits"] for one in found["over_time"]) == blame["audits"]
    assert {one["source"] for one in found["worst"]["items"]} == {"vendor_batch_07"}
    page = client.get("/source?source=vendor_batch_07").text
    assert "not clearly more than chance" in page  # after the correction for seven sources
    assert page.count('class="plot-bar"') == sum(one["audits"] > 0 for one in found["over_time"])
    assert '<caption class="sr">Blame over time' in page
    assert client.get("/source?source=nothing").status_code == 404
    assert client.get("/v1/source?source=nothing%00").status_code == 404


def test_training_texts_are_searched(client, stored_story, database):
    """Whatever the case, in prompt and answer, within a source, page by page; wildcards are plain characters."""
    index_missing(database)
    found = client.get("/v1/examples/search?text=PUNCTURE").json()["items"]
    assert found
    assert all("puncture" in one["completion"].lower() for one in found)
    seen: list[int] = []
    cursor: str | None = ""
    while cursor is not None:
        page = client.get(
            f"/v1/examples/search?text=receipt&source=vendor_batch_07&limit=2&cursor={cursor}"
        ).json()
        seen += [one["training_example_id"] for one in page["items"]]
        cursor = page["next_cursor"]
    assert seen == sorted(set(seen), reverse=True)
    assert len(seen) > 2
    assert client.get("/v1/examples/search?text=100%25").json()["items"] == []
    assert "contains these words" in client.get("/examples?text=zzzz").text
    assert "Puncture" in client.get("/examples?text=puncture").text


def test_lists_by_the_api(client, stored_story, database):
    """Make, put, read, export, close; each training example once, and the trail says who took the rows."""
    made_list = client.post("/v1/fix-lists?reviewer=ann", json={"name": "all"})
    assert made_list.status_code == 201, made_list.text
    path = f"/v1/fix-lists/{made_list.json()['list_id']}"
    wanted = {"culprits": {"flag_reason": "refund_promise", "until": "2999-01-31"}, "most": 3}
    assert client.post(f"{path}/rows?reviewer=ann", json=wanted | {"dry_run": True}).json() == {
        "matched": 3,
        "changed": 0,
    }
    assert client.post(f"{path}/rows?reviewer=ann", json=wanted).json() == {"matched": 3, "changed": 3}
    again = client.post(f"{path}/rows?reviewer=ann", json={"source": "policies", "action": "fix"}).json()
    assert 0 < again["changed"] <= again["matched"]
    lines = [json.loads(line) for line in client.get(f"{path}/rows.jsonl").text.splitlines()]
    assert len({one["training_example_id"] for one in lines}) == len(lines) == 3 + again["changed"]
    assert {"remove", "fix"} == {one["action"] for one in lines}
    assert all(one["completion"] and one["by"] == "ann" and not one["proven"] for one in lines)
    assert len(client.get(f"{path}/rows.jsonl?action=fix").text.splitlines()) == again["changed"]
    assert (
        client.get(f"{path}/rows?after={lines[1]['training_example_id']}").json()["items"][0][
            "training_example_id"
        ]
        == lines[2]["training_example_id"]
    )
    assert [one["event"] for one in client.get(f"{path}/history").json()["items"]] == [
        "set",
        "set",
        "created",
    ]
    assert client.post(f"{path}/close?reviewer=ann").json()["closed_at"]
    assert client.post(f"{path}/rows?reviewer=ann", json=wanted).status_code == 422
    settings = client.app.state.services.settings
    taken = [one.kind for one in moved_reads(settings, database, least=2)]
    assert taken.count("fix_list.exported") == 2


@pytest.mark.parametrize(
    "body",
    [{}, {"source": "x", "training_example_ids": [1]}, {"training_example_ids": [0]}, {"culprits": {"nope": 1}},
     {"source": "x", "action": "burn"}, {"culprits": {}, "most": 0}, []],
)  # fmt: skip
def test_bodies_that_cannot_be_used(quick_client, body):
    """Told in our own words."""
    made_list = quick_client.post("/v1/fix-lists?reviewer=ann", json={"name": "x"}).json()
    answer = quick_client.post(f"/v1/fix-lists/{made_list['list_id']}/rows?reviewer=ann", json=body)
    assert (answer.status_code, "message" in answer.json()["error"]) == (422, True)


def test_who_may_change_the_training_data(quick_client, sqlite_story):
    """Whoever may judge and see everything; the others see lists, or nothing."""
    db = sqlite_story[1]

    def asked(scopes, name):
        key = {"Authorization": f"Bearer {keys.create_key(db, name, scopes)}"}
        read = quick_client.get("/v1/fix-lists", headers=key).status_code
        write = quick_client.post("/v1/fix-lists", json={"name": f"by {name}"}, headers=key).status_code
        return read, write

    assert asked(["read", "review"], "ann") == (200, 201)
    assert asked(["read"], "reader") == (200, 403)
    assert asked(["review"], "reviewer") == (403, 403)
    assert asked(["ingest"], "program") == (403, 403)


def test_pages_cost_a_constant_number_of_statements(quick_client):
    """However many rows there are."""
    for path, most in (
        ("/culprits", 5),
        ("/source?source=vendor_batch_07", 14),
        ("/sources", 5),
        ("/examples?text=a", 3),
        ("/fix-lists", 2),
    ):
        quick_client.get(path)
        with recorded_statements() as statements:
            assert quick_client.get(path).status_code == 200
        assert len(statements) <= most, (path, statements)


def test_a_what_if_is_asked_worked_off_and_read(client, stored_story, database):
    """By the API and on the page: how far it is, what it says, the warning, and no nats without a scale; on both engines."""
    made_list = client.post("/v1/fix-lists?reviewer=ann", json={"name": "all"}).json()
    path = f"/v1/fix-lists/{made_list['list_id']}"
    assert client.post(f"{path}/what-ifs", json={}).status_code == 422
    client.post(f"{path}/rows?reviewer=ann", json={"source": "vendor_batch_07"})
    asked = client.post(f"{path}/what-ifs", json={"flag_reason": "refund_promise", "most": 5})
    assert asked.status_code == 202, asked.text
    [one] = asked.json()["items"]
    page = f"/what-ifs/{one['what_if_id']}"
    html = client.get(page).text
    assert "data-refresh-seconds" in html
    assert "<b>refund_promise</b></span>, under the bundle" in html, "no gap before the comma"
    queue = WhatIfQueue(database)
    claimed = queue.claim(stored_story.bundle_id, owner="w", lease_s=60, max_attempts=5)
    assert claimed is not None
    chances = [0.4, *[0.005] * len(claimed.outputs)]
    scores = [
        ListScore(key=str(audit_id), score=0.5, z=4.0, chance=chance)
        for (audit_id, _), chance in zip(claimed.outputs, chances, strict=False)
    ]
    queue.store(claimed, scores, {})
    found = client.get(f"/v1{page}").json()
    assert (found["state"], found["scored"], found["rows"]) == ("done", one["outputs"], one["rows"])
    outputs = client.get(f"/v1{page}/outputs").json()
    assert {output["z"] for output in outputs["items"]} == {4.0}
    assert "Rows that say the same" in outputs["warning"]
    text = client.get(page).text
    assert [output["differs"] for output in outputs["items"]].count(False) == 1
    assert text.count("not told from chance") == 1
    assert "1 of the predictions cannot be told from 0." in text
    assert "No nats: this bundle has no fitted scale" in text
    assert "Spearman" in text
    assert "data-refresh-seconds" not in text
    assert f'href="{page}"' in client.get(f"/fix-lists/{made_list['list_id']}").text
    assert client.get("/what-ifs/999").status_code == 404


def test_a_whole_list_is_measured_on_ticked_outputs(sqlite_story, tmp_path):
    """One group for all outputs, so that they share its trainings; only with a recipe."""
    settings, database = sqlite_story
    recipe = tmp_path / "recipe.json"
    recipe.write_text("{}")
    app = create_app(
        settings.model_copy(update={"recipe": recipe}), database, metrics=Metrics(), queue=SilentProbe()
    )
    ann = TestClient(app, base_url=BASE_URL)
    sign_in(ann, name="ann")
    page = made(ann)
    send(ann, page, "/fix-lists/rows", {"whole_source": "vendor_batch_07", "list": page.rsplit("/", 1)[1]})
    what_if = send(ann, page, f"{page}/what-ifs", {"most": "5"}).headers["location"]
    queue = WhatIfQueue(database)
    claimed = queue.claim(1, owner="w", lease_s=60, max_attempts=5)
    assert claimed is not None
    queue.store(claimed, [ListScore(key=str(one), score=0.5) for one, _ in claimed.outputs], {})
    ticked = [("audit", str(one)) for one, _ in claimed.outputs[:2]]
    assert "2 outputs" in send(ann, what_if, f"{what_if}/measure", ticked, follow=True).text
    with database.reading() as session:
        asked = session.query(GroupMeasurement).all()
        assert {one.audit_id for one in asked} == {int(number) for _, number in ticked}
        assert len({one.group_key for one in asked}) == 1
        assert all(name.startswith("vendor_batch_07") for one in asked for name in one.example_ids)
    assert send(ann, what_if, f"{what_if}/measure", {}).status_code == 422
    key = keys.create_key(database, "few", ["read", "measure"], quotas=Quotas(measurements=2))
    for audits, expected in ((3, 429), (1, 202)):  # the request alone was counted, and one is left
        answer = TestClient(app, base_url=BASE_URL).post(
            f"/v1{what_if}/measure",
            json={"audits": [one for one, _ in claimed.outputs[:audits]]},
            headers={"Authorization": f"Bearer {key}"},
        )
        assert answer.status_code == expected, answer.text
