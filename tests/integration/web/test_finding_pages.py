"""Findings over HTTP: the list, one with its forms, the same by the API, who may what, and how many statements a page takes."""

import re

import pytest

from db.access import keys
from tests.integration.db.builders import recorded_statements
from tests.integration.web.forms import send, sign_in
from tests.integration.web.sequel import group_story

ATTACK = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'>{{7*7}}\u202e"


@pytest.fixture
def numbers(sqlite_story):
    """Findings of the story."""
    return group_story(sqlite_story[1])


@pytest.fixture
def ann(quick_client):
    """Somebody who chose a name."""
    sign_in(quick_client, name="ann")
    return quick_client


def test_the_list_leads_to_one_and_that_to_everything_over_it(ann, numbers):
    """Each with its number, its outputs and its sources; filters, culprits, queues and fix lists take the finding."""
    page = ann.get("/findings").text
    assert re.findall(r'href="/findings/(\d+)" data-row', page) == [str(one) for one in numbers]
    one = ann.get(f"/findings/{numbers[0]}").text
    for place in ("/?", "/culprits?", "/review/put?", "/review/new?", "/bulk?", "/fix-lists/put?"):
        link = f"{place}finding={numbers[0]}"
        assert f'href="{link}"' in one, link
        assert ann.get(link).status_code == 200, link
    found = ann.get(f"/v1/findings/{numbers[0]}").json()
    listed = ann.get(f"/v1/audits?finding={numbers[0]}&limit=200").json()["items"]
    assert len(listed) == found["finding"]["outputs"]
    assert found["culprits"]["audits"] == len(listed)
    assert f'href="/findings/{numbers[0]}"' in ann.get(f"/audits/{listed[0]['audit_id']}").text
    assert ann.get("/?finding=x").status_code == 422
    assert ann.get("/findings/999").status_code == 404


def test_it_is_renamed_merged_taken_out_and_split_by_forms(ann, numbers):
    """Every form leads to what came of it; a name with markup and hidden characters stays a name."""
    first, second = numbers[:2]
    at = f"/findings/{first}"
    renamed = send(ann, at, f"{at}/title", {"title": ATTACK}, follow=True).text
    assert "<script>alert" not in renamed
    assert "U+202E" in renamed
    assert "<script>alert" not in ann.get("/findings").text
    merged = send(ann, at, f"/findings/{second}/merge", {"into": str(first)}, follow=True).text
    assert "What went into it" in merged
    assert ann.get(f"/findings/{second}", follow_redirects=False).headers["location"] == at
    send(ann, at, f"/findings/{second}/take-out", {})
    alone = ann.get(at).text
    assert "What went into it" not in alone
    assert f"took finding {second} out" in alone
    audits = re.findall(r'name="audit" value="(\d+)"', ann.get(at).text)
    answer = send(ann, at, f"{at}/split", [("audit", audits[0]), ("audit", audits[1]), ("title", "two")])
    new = answer.headers["location"]
    assert '<h1 dir="auto">two</h1>' in ann.get(new).text
    assert re.findall(r'name="audit" value="(\d+)"', ann.get(new).text) == audits[:2]
    history = ann.get(at).text
    assert "split 2 outputs off" in history
    assert history.count('<span class="note">chosen</span>') >= 4


@pytest.mark.parametrize(
    ("what", "fields", "status"),
    [
        ("split", {}, 422), ("split", {"audit": "999999"}, 404), ("merge", {"into": ""}, 422), ("merge", {"into": "999"}, 404),
        ("merge", {"into": "SELF"}, 422), ("take-out", {}, 422), ("title", {"title": "x" * 201}, 422),
    ],
)  # fmt: skip
def test_forms_that_cannot_be_used_change_nothing(ann, numbers, *, what, fields, status):
    """They are told in a sentence."""
    at = f"/findings/{numbers[0]}"
    before = ann.get("/v1/findings").json()
    given = {name: str(numbers[0]) if value == "SELF" else value for name, value in fields.items()}
    assert send(ann, at, f"{at}/{what}", given).status_code == status
    assert ann.get("/v1/findings").json() == before


def test_a_finding_is_asked_as_one_question(ann, numbers):
    """The button leads to the audit of the question; the API gives the same."""
    at = f"/findings/{numbers[0]}"
    answer = send(ann, at, f"{at}/ask", {})
    assert answer.status_code == 303
    number = int(answer.headers["location"].rsplit("/", 1)[1])
    assert "outputs as one question" in ann.get(f"/audits/{number}").text
    asked = ann.post(f"/v1{at}/ask")
    assert (asked.status_code, asked.json()["audit_id"], asked.json()["status"]) == (202, number, "duplicate")


def test_the_api_pages_and_refuses(ann, numbers):
    """A page at a time; unknown parameters, bundles and cursors."""
    first = ann.get("/v1/findings?limit=1").json()
    rest = ann.get(f"/v1/findings?limit=1&cursor={first['next_cursor']}").json()
    assert [first["items"][0]["finding_id"], rest["items"][0]["finding_id"]] == numbers[:2]
    assert ann.get("/v1/findings?bundle=nobody").json()["items"] == []
    assert ann.get("/v1/findings?bundel=x").status_code == 422
    assert ann.get("/v1/findings?cursor=x").status_code == 422
    split = ann.post(f"/v1/findings/{numbers[0]}/split?reviewer=ann", json={"audit_ids": []})
    assert split.status_code == 422


def test_who_may_what(quick_client, sqlite_story, numbers):
    """A key that reads reads, a reviewer sees no finding, and a question needs the scope `measure`."""
    at = f"/v1/findings/{numbers[0]}"

    def asked(scopes, name):
        key = {"Authorization": f"Bearer {keys.create_key(sqlite_story[1], name, scopes)}"}
        return (
            quick_client.get(at, headers=key).status_code,
            quick_client.post(f"{at}/title", json={"title": f"by {name}"}, headers=key).status_code,
            quick_client.post(f"{at}/ask", headers=key).status_code,
        )

    assert asked(["read", "review"], "ann") == (200, 200, 403)
    assert asked(["read", "measure"], "meter") == (200, 403, 202)
    assert asked(["review"], "reviewer") == (403, 403, 403)


def test_pages_take_a_constant_number_of_statements(client, database, stored_story):
    """On both engines; the list and one finding, however many outputs stand in it."""
    [number, *_] = group_story(database)
    counts = {}
    for path in ("/findings", f"/findings/{number}"):
        client.get(path)
        with recorded_statements() as statements:
            assert client.get(path).status_code == 200
        counts[path] = len(statements)
    assert counts["/findings"] <= 4, counts
    assert counts[f"/findings/{number}"] <= 20, counts
