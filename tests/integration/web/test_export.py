"""Exports over HTTP: each kind of row of any filter, the manifest, the trail, and nothing read ahead."""

import csv
import hashlib
import io
import json
import zipfile
from typing import Any

import pyarrow.parquet
import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from db.reading import exporting, listings, reader
from db.session import Database
from tests.integration.db.builders import recorded_statements
from tests.integration.web.conftest import BASE_URL
from tests.integration.web.journals import moved_reads
from tests.integration.web.story import Story
from web.app import create_app
from web.json_api import export_api
from web.wellness.health import SilentProbe
from wherefrom.export_rows import COLUMNS
from wherefrom.metrics import Metrics
from wherefrom.records import AuditFilter, ExportManifest, ExportRows
from wherefrom.settings import Settings


def lines_of(client: TestClient, query: str) -> list[dict[str, Any]]:
    """The rows of an export as JSON lines."""
    answer = client.get(f"/v1/export.jsonl?{query}")
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.split("\n") if line]


def zip_of(client: TestClient, query: str) -> tuple[ExportManifest, bytes]:
    """Manifest and file of an export."""
    answer = client.get(f"/v1/export.zip?{query}")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-disposition"].endswith('.zip"')
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        manifest = ExportManifest.model_validate_json(archive.read("manifest.json"))
        return manifest, archive.read(manifest.file)


def test_each_training_example_stands_in_an_export_once(
    client: TestClient, stored_story: Story, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over a filter and over everything, page by page, with the numbers that SQL says; a small selection by its audits, a large one by its examples."""
    wanted = listings.look_up(database, AuditFilter(flag_reason="refund_promise"))
    rows = list(exporting.cited_examples(database, wanted, at_once=4))
    assert rows == list(exporting.cited_examples(database, wanted))
    monkeypatch.setattr(exporting, "_FEW", 0)
    with monkeypatch.context() as patch:
        patch.setattr(exporting, "_CITATIONS", 3)  # pages grow and shrink
        walked = list(exporting.cited_examples(database, wanted, at_once=4))
    sums = {"strength", "mean_influence"}
    assert [one.model_dump(exclude=sums) for one in walked] == [one.model_dump(exclude=sums) for one in rows]
    assert [one.strength for one in walked] == pytest.approx([one.strength for one in rows])
    query = text(
        "SELECT training_example_id, COUNT(*), MIN(rank) FROM v_citations WHERE rank > 0 AND flag_reason = 'refund_promise' "
        "GROUP BY training_example_id ORDER BY training_example_id"
    )
    with database.reading() as session:
        told = [tuple(one) for one in session.execute(query)]
    assert [(one.training_example_id, one.outputs, one.best_rank) for one in rows] == told != []
    with recorded_statements() as statements:
        everything = lines_of(client, "rows=examples")
    assert len({one["training_example_id"] for one in everything}) == len(everything) > len(rows)
    assert len([one for one in statements if "FROM citation" in one]) <= 4, "1, 8, 64 and 200 at once"
    assert tuple(everything[0]) == COLUMNS[ExportRows.EXAMPLES]


def test_rows_of_audits_and_citations(quick_client: TestClient, quick_story: Story) -> None:
    """JSON lines of audits are those of the API; rows of citations are as many as these have, in the order of the list."""
    whole = lines_of(quick_client, "rows=audits&state=done&sort=oldest")
    assert whole[0] == quick_client.get(f"/v1/audits/{whole[0]['audit']['audit_id']}").json()
    numbers = [one["audit"]["audit_id"] for one in whole]
    assert numbers == sorted(numbers)
    flat = lines_of(quick_client, "rows=citations&state=done&sort=oldest")
    assert [one["audit_id"] for one in flat] == [
        one["audit"]["audit_id"] for one in whole for _ in (*one["citations"], *one["opponents"])
    ]
    assert tuple(flat[0]) == COLUMNS[ExportRows.CITATIONS]
    assert flat[0]["prompt"].startswith("system: You are")


@pytest.mark.parametrize("rows", ExportRows)
def test_a_zip_says_what_it_holds(quick_client: TestClient, quick_story: Story, rows: ExportRows) -> None:
    """CSV and Parquet hold as many rows as the manifest says, which has filter, bundle, hash and version."""
    manifest, content = zip_of(quick_client, f"rows={rows.value}&state=done&since=today&fdr=0.2")
    table = list(csv.DictReader(io.StringIO(content.decode(), newline="")))
    assert manifest.num_rows == len(table) > 3
    assert tuple(table[0]) == COLUMNS[rows]
    assert (manifest.sha256, manifest.size_bytes) == (hashlib.sha256(content).hexdigest(), len(content))
    assert [one.name for one in manifest.bundles] == ["b-5f0c9a7d31e2"]
    assert (manifest.filter["state"], manifest.filter["fdr"]) == ("done", 0.2)
    assert "T00:00:00" in manifest.filter["since"], "a word such as `today` means another day tomorrow"
    assert manifest.begun_at <= manifest.finished_at
    assert (manifest.exported_by, manifest.version) == ("local", "0.1.0")
    parquet, content = zip_of(quick_client, f"rows={rows.value}&state=done&format=parquet")
    assert pyarrow.parquet.read_table(io.BytesIO(content)).num_rows == parquet.num_rows == manifest.num_rows


def test_the_trail_keeps_who_took_what(
    quick_client: TestClient, sqlite_story: tuple[Settings, Database]
) -> None:
    """With the names of the filters, never the words that were searched for."""
    quick_client.get("/v1/audits.csv")
    quick_client.get("/v1/audits.jsonl?text=secret")
    zip_of(quick_client, "rows=examples&text=kettle&state=done")
    events = moved_reads(*sqlite_story, least=4)
    found = [one for one in events if one.kind == "export.taken"]
    told = [(one.subject, one.payload["format"], one.payload["filters"]) for one in found]
    whole = json.dumps([one.payload for one in events])
    assert told == [
        ("export:summaries", "csv", []),
        ("export:summaries", "jsonl", ["text"]),
        ("export:examples", "csv", ["state", "text"]),
    ]
    assert "kettle" not in whole
    assert {one.actor for one in events} == {"local"}
    assert {one.kind for one in events} == {"export.taken", "text.exported"}


def test_a_large_export_reads_page_by_page(
    sqlite_story: tuple[Settings, Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many audits there are, a few are read at once: no answer of the reader is as long as the list."""
    settings, database = sqlite_story
    small = settings.model_copy(update={"max_page_size": 3})
    client = TestClient(
        create_app(small, database, metrics=Metrics(), queue=SilentProbe()), base_url=BASE_URL
    )
    monkeypatch.setattr(export_api, "AT_ONCE", 2)
    sizes: list[int] = []
    read = reader.get_audits

    def noted(db: Database, audit_ids: list[int]) -> object:
        sizes.append(len(audit_ids))
        return read(db, audit_ids)

    monkeypatch.setattr(reader, "get_audits", noted)
    rows = lines_of(client, "rows=audits")
    assert len(rows) == sum(sizes) > 8
    assert max(sizes) == 2


@pytest.mark.parametrize(
    ("query", "status"), [("rows=lines", 422), ("format=xlsx", 422), ("stat=done", 422), ("state=lost", 422)]
)
def test_what_cannot_be_exported_is_told(quick_client: TestClient, query: str, status: int) -> None:
    """Before anything is sent."""
    assert quick_client.get(f"/v1/export.zip?{query}").status_code == status


def test_the_page_offers_them(quick_client: TestClient) -> None:
    """For the filters of the list that it was opened from, which the forms carry on."""
    page = quick_client.get("/export?flag_reason=refund_promise&since=7d").text
    assert 'action="/v1/export.zip"' in page
    assert '<input type="hidden" name="since" value="7d">' in page
    assert (
        'href="/export?flag_reason=refund_promise"' in quick_client.get("/?flag_reason=refund_promise").text
    )
