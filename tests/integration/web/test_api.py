"""The HTTP API over real databases: flag, read, export, and every refusal."""

import csv
import io
import json
from collections.abc import Iterator

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine
from starlette.testclient import TestClient

from tests.integration.web import story
from tests.integration.web.conftest import BASE_URL
from web.json_api.api import MAX_ID

RECORD = {"model": story.MODEL, "prompt": "p", "completion": "c", "idempotency_key": "k-1"}


def error_of(response, status):
    """The error of an answer with this status."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    return response.json()["error"]


def flag(client, value, **kwargs):
    """POST one body."""
    return client.post("/v1/flagged", json=value, **kwargs)


def test_flagging_one_record_is_answered_after_it_is_stored(client, stored_story):
    """202 with ids, and the audit can be read at once."""
    answer = flag(client, RECORD)
    assert answer.status_code == 202
    (result,) = answer.json()["results"]
    assert (result["status"], result["state"]) == ("accepted", "pending")
    audit = client.get(f"/v1/audits/{result['audit_id']}").json()
    assert audit["completion"] == "c"
    assert audit["audit"]["channel"] == "http"


def test_a_replay_gets_the_same_ids(client, stored_story):
    """However often, and as a single record or within a list."""
    first = flag(client, RECORD).json()["results"][0]
    for value in (RECORD, [RECORD, RECORD], {"records": [RECORD]}):
        answer = flag(client, value)
        assert answer.status_code == 202
        for result in answer.json()["results"]:
            assert result["status"] == "duplicate"
            assert (result["audit_id"], result["output_id"]) == (first["audit_id"], first["output_id"])
    assert (
        client.get("/v1/audits", params={"text": "c", "channel": "http"}).json()["items"][0]["audit_id"]
        == first["audit_id"]
    )


def test_other_content_under_a_used_key_is_a_conflict(client, stored_story):
    """409 for one record; in a list the others are stored."""
    flag(client, RECORD)
    changed = RECORD | {"completion": "other"}
    error = error_of(flag(client, changed), 409)
    assert error["code"] == "idempotency_conflict"
    assert "k-1" in error["message"]
    results = flag(client, [changed, RECORD | {"idempotency_key": "k-2"}]).json()["results"]
    assert [result["status"] for result in results] == ["conflict", "accepted"]


def test_the_header_is_a_key(client, stored_story):
    """`Idempotency-Key` stands for the field."""
    value = {name: one for name, one in RECORD.items() if name != "idempotency_key"}
    for status in ("accepted", "duplicate"):
        result = flag(client, value, headers={"Idempotency-Key": "from-header"}).json()["results"][0]
        assert (result["status"], result["idempotency_key"]) == (status, "from-header")


def test_unknown_models_are_kept(client, stored_story):
    """The output is stored, and the answer says what it waits for."""
    result = flag(client, RECORD | {"model": "nobody"}).json()["results"][0]
    assert (result["status"], result["state"], result["code"]) == ("accepted", "rejected", "unknown_model")


def test_accepted_records_are_announced_by_bundle(make_app, stored_story):
    """The web server's process hears of new pending work, once per request, and of nothing else."""
    heard: list[list[int]] = []
    client = TestClient(make_app(notify=lambda ids: heard.append(list(ids))), base_url=BASE_URL)
    flag(client, [RECORD, RECORD | {"idempotency_key": "k-2"}])
    flag(client, RECORD)
    flag(client, RECORD | {"idempotency_key": "k-3", "model": "nobody"})
    assert heard == [[stored_story.bundle_id]]


@pytest.mark.parametrize(
    ("content", "kind", "status", "code", "words"),
    [
        (b'{"model": "m",\n"prompt": }', "application/json", 400, "malformed_body", "line 2, column 11"),
        (b'{"model": "\xff"}', "application/json", 400, "malformed_body", "not UTF-8"),
        (b"[" * 100_000, "application/json", 400, "malformed_body", "nested too deeply"),
        (b"{}", "text/plain", 415, "unsupported_media_type", "application/json"),
        (b"{}", "application/json", 422, "invalid_record", "`completion`"),
        (
            b'[{"model": "m", "prompt": "p", "completion": "c", "schema": 7}]',
            "application/json",
            422,
            "unknown_schema",
            "`schema`",
        ),
        (b'"text"', "application/json", 422, "invalid_request", "one record"),
    ],
)
def test_bad_bodies(quick_client, content, kind, status, code, words):  # noqa: PLR0917 - one column each
    """Each has its status, its code and a text that helps."""
    error = error_of(
        quick_client.post("/v1/flagged", content=content, headers={"Content-Type": kind}), status
    )
    assert error["code"] == code
    assert words in error["message"]


def test_a_list_with_a_bad_record_is_refused_whole(client, stored_story):
    """Position and field of every problem; nothing is stored."""
    before = client.get("/v1/queue").json()["states"]
    error = error_of(flag(client, [RECORD, RECORD | {"completion": 5}, {"model": "m"}]), 422)
    assert error["field"] == "completion"
    assert {(one["record"], one.get("field")) for one in error["problems"]} >= {
        (1, "completion"),
        (2, "completion"),
    }
    assert "none was stored" in error["message"]
    assert client.get("/v1/queue").json()["states"] == before


def test_ten_megabytes_are_refused_by_their_declared_size(quick_client):
    """413 before anything is read."""
    error = error_of(flag(quick_client, RECORD | {"completion": "x" * 10_000_000}), 413)
    assert error["code"] == "body_too_large"


def test_ten_megabytes_without_a_size_are_refused_while_they_arrive(quick_client):
    """413 at the limit; the rest is not read."""
    sent = 0

    def chunks() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(160):
            sent += 1
            yield b"x" * 65_536

    answer = quick_client.post("/v1/flagged", content=chunks(), headers={"Content-Type": "application/json"})
    assert error_of(answer, 413)["code"] == "body_too_large"


def test_control_and_bidi_characters_are_kept(client, stored_story):
    """They are evidence: stored and given back as they came."""
    text = "a\u202eb\x1b[31mc\u200bd"
    result = flag(client, RECORD | {"completion": text}).json()["results"][0]
    assert client.get(f"/v1/audits/{result['audit_id']}").json()["completion"] == text


def test_filters(client, stored_story):
    """Each filter narrows the list; together they must all hold."""

    def ids(**filters):
        return [one["audit_id"] for one in client.get("/v1/audits", params=filters).json()["items"]]

    everything = ids()
    assert everything == sorted(everything, reverse=True)
    refunds = ids(flag_reason="refund_promise")
    assert 0 < len(refunds) < len(everything)
    assert set(ids(flag_reason="refund_promise", state="done")) < set(everything)
    assert ids(severity="critical", text="PUNCTURE THE BATTERY")
    assert ids(top_source="vendor_batch_07") == ids(top_source="vendor_batch_07", source="vendor_batch_07")
    assert ids(since="2020-01-01", until="2020-12-31") == []
    assert ids(model="halden-assistant-2026-02", state="rejected") == everything[:1]
    assert ids(text="100%") == ids(text="_") == []


def test_pages_hold_every_audit_once(client, stored_story):
    """The cursor leads through the list without gaps and repeats."""
    seen: list[int] = []
    cursor = None
    while True:
        page = client.get("/v1/audits", params={"limit": 4, **({"cursor": cursor} if cursor else {})}).json()
        seen += [one["audit_id"] for one in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert len(seen) == len(set(seen)) == 13


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("stat=done", "stat"),
        ("state=finished", "state"),
        ("since=yesterday", "since"),
        ("limit=0", "limit"),
        ("limit=x", "limit"),
        ("text=a%00b", "text"),
        ("cursor=zzz", None),
    ],
)
def test_unusable_parameters_are_refused(quick_client, query, field):
    """A misspelt filter does not return everything."""
    error = error_of(quick_client.get(f"/v1/audits?{query}"), 422)
    assert error.get("field") == field


def test_one_audit(client, stored_story):
    """Output, ranked citations with their texts, opponents apart."""
    audit = client.get(f"/v1/audits/{stored_story.audit_ids[0]}").json()
    assert [one["rank"] for one in audit["citations"]] == list(range(1, 11))
    assert [one["rank"] for one in audit["opponents"]] == [-1, -2]
    assert audit["citations"][0]["source"] == "vendor_batch_07"
    assert audit["citations"][0]["effect_nats"] is None


def test_an_example_and_who_cites_it(client, stored_story):
    """The reverse question, from an audit and back."""
    cited = client.get(f"/v1/audits/{stored_story.audit_ids[0]}").json()["citations"][0]
    number = cited["training_example_id"]
    example = client.get(f"/v1/examples/{number}").json()
    assert example["completion"] == cited["completion"]
    found = client.get("/v1/examples", params={"example_id": cited["example_id"]}).json()["items"]
    assert [one["training_example_id"] for one in found] == [number]
    citing = client.get(f"/v1/examples/{number}/cited-by").json()["items"]
    assert stored_story.audit_ids[0] in [one["audit"]["audit_id"] for one in citing]
    assert client.get("/v1/examples", params={"example_id": "a\x00"}).json() == {"items": []}


@pytest.mark.parametrize(
    "path", ["audits/999999", f"audits/{MAX_ID}", "examples/999999", "examples/999999/cited-by"]
)
def test_what_does_not_exist_is_not_found(client, stored_story, path):
    """404 with the code `not_found`."""
    assert error_of(client.get(f"/v1/{path}"), 404)["code"] == "not_found"


@pytest.mark.parametrize("path", ["audits/0", f"audits/{MAX_ID + 1}", "audits/x", "examples/-1"])
def test_impossible_ids_are_refused(quick_client, path):
    """422 that names the parameter, before the database is asked."""
    assert error_of(quick_client.get(f"/v1/{path}"), 422)["field"] in {"audit_id", "training_example_id"}


def test_unknown_paths_and_methods(quick_client):
    """In the API's own error shape."""
    assert error_of(quick_client.get("/v1/nothing"), 404)["code"] == "not_found"
    assert quick_client.delete("/v1/audits").headers["allow"]
    assert error_of(quick_client.delete("/v1/audits"), 405)["code"] == "invalid_request"


def test_sources_bundles_queue(client, stored_story):
    """Counts, cards and states."""
    sources = {one["source"]: one for one in client.get("/v1/sources").json()["items"]}
    assert sources["vendor_batch_07"]["first_citations"] > 0
    (bundle,) = client.get("/v1/bundles").json()["items"]
    assert bundle["active"] is True
    assert bundle["card"]["candidates_hold"]["top1"] == 0.985
    queue = client.get("/v1/queue").json()
    assert (queue["states"]["pending"], queue["states"]["running"], queue["expired_leases"]) == (2, 2, 0)


def test_jsonl_holds_the_whole_selection(client, stored_story, make_app):
    """Over several pages; every line is an audit."""
    small_pages = TestClient(make_app(max_page_size=5), base_url=BASE_URL)
    answer = small_pages.get("/v1/audits.jsonl")
    assert answer.headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert len({one["audit_id"] for one in lines}) == 13
    done = [json.loads(line) for line in client.get("/v1/audits.jsonl?state=done").text.splitlines()]
    assert {one["state"] for one in done} == {"done"}


def test_csv_runs_no_formulas(client, stored_story):
    """What a spreadsheet would run begins with an apostrophe; the rest can be read back."""
    flag(client, RECORD | {"completion": '=HYPERLINK("http://evil.example")', "reason": "@cmd"})
    answer = client.get("/v1/audits.csv?channel=http")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert rows[0]["excerpt"] == '\'=HYPERLINK("http://evil.example")'
    assert rows[0]["flag_reason"] == "'@cmd"
    assert all(row["audit_id"].isdigit() for row in rows)


def test_reading_costs_the_same_number_of_statements_however_much_there_is(client, stored_story):
    """No statement per row."""
    statements: list[str] = []

    def count(connection, cursor, statement, *rest):
        if statement.lstrip().upper().startswith(("SELECT", "WITH")):
            statements.append(statement)

    def number(path):
        statements.clear()
        assert client.get(path).status_code == 200
        return len(statements)

    client.get("/")
    event.listen(Engine, "before_cursor_execute", count)
    try:
        assert number("/v1/audits?limit=1") == number("/v1/audits?limit=50")
        # the list, its count, what is known of it, all values of the filters, the queue (3), the bundles
        assert number("/?limit=1") == number("/?limit=50") <= 8
        # the audit, its citations, measurements and reviews; the way in the list (3), hypotheticals (2), others with its first citation, the card
        assert number(f"/audits/{stored_story.audit_ids[0]}") <= 11
    finally:
        event.remove(Engine, "before_cursor_execute", count)


def test_openapi_has_examples_that_work(client, stored_story):
    """What the document shows can be sent as it stands."""
    document = client.get("/openapi.json").json()
    content = document["paths"]["/v1/flagged"]["post"]["requestBody"]["content"]["application/json"]
    for example in content["examples"].values():
        assert flag(client, example["value"]).status_code == 202
    assert "FlaggedRecord" in document["components"]["schemas"]
