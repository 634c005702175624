"""Exports and tables of the client and the command line against the real service."""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet
import pytest

from db.access import people
from db.reading import reader
from db.session import Database
from tests.integration.client.conftest import Served
from tests.integration.client.test_cli import RunCommand, lines, run
from web.json_api import export_api
from wherefrom.client import Service, to_pandas
from wherefrom.errors import ConfigurationError, ServiceUnavailable
from wherefrom.records import ExportManifest

__all__ = ["run"]


def test_training_examples_are_exported_once_with_a_manifest(run: RunCommand, tmp_path: Path) -> None:
    """The manifest has the hash of the file, the filter, and the bundles over the corpus."""
    file, beside = tmp_path / "taught.parquet", tmp_path / "taught.json"
    code, out, err = run(
        "export",
        "--rows",
        "examples",
        "--reason",
        "refund_promise",
        "-o",
        str(file),
        "--manifest",
        str(beside),
    )
    assert (code, "rows written to" in out) == (0, True), err
    manifest = ExportManifest.model_validate_json(beside.read_text())
    numbers = pyarrow.parquet.read_table(file)["training_example_id"].to_pylist()
    assert len(set(numbers)) == len(numbers) == manifest.num_rows > 5
    assert manifest.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert manifest.filter == {"flag_reason": "refund_promise"}
    assert [one.name for one in manifest.bundles] == ["b-5f0c9a7d31e2"]
    [told] = lines(run("export", "--rows", "audits", "-o", str(tmp_path / "a.csv"), "--json")[1])
    assert told["num_rows"] == told["audits"] == 25
    assert run("export", "--verdicts", "--rows", "audits", "-o", "x")[0] == 2


def test_a_broken_export_leaves_no_file(
    run: RunCommand, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the service fails in the middle, the client says so, and nothing looks whole that is not."""
    read, calls = reader.get_audits, iter(range(99))

    def failing(db: Database, audit_ids: list[int]) -> object:
        if next(calls) == 2:
            raise RuntimeError("the disk is gone")
        return read(db, audit_ids)

    monkeypatch.setattr(export_api, "AT_ONCE", 3)
    monkeypatch.setattr(reader, "get_audits", failing)
    code, _, err = run("export", "-o", str(tmp_path / "audits.jsonl"))
    assert (code, "error[service_unavailable]" in err) == (3, True), err
    assert [one.name for one in tmp_path.iterdir() if "audits" in one.name] == []
    calls = iter(range(99))
    with Service(served.url) as service, pytest.raises(ServiceUnavailable, match="no whole answer"):
        list(service.export_rows("audits"))


def test_every_list_is_a_table(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """One row per item, nested records in columns of their own, enums by value; empty lists are empty tables."""
    people.choose_local(served.database, "ann")
    with Service(served.url) as service:
        queue = service.make_review_queue("refunds", flag_reason="refund_promise")
        made = service.make_fix_list("refunds", reviewer="ann")
        service.put_on_fix_list(made.list_id, source="policies", reviewer="ann")
        first = served.story.audit_ids[0]
        service.review(first, "confirmed", reviewer="ann")
        found = service.culprits(flag_reason="refund_promise")
        tables: dict[str, Any] = {
            "audits": service.audits(state="done"),
            "sources": service.sources(),
            "bundles": service.bundles(),
            "cited by": service.cited_by(found.items[0].training_example_id),
            "queues": service.review_queues(),
            "items": service.review_items(queue.queue_id),
            "reviews": service.reviews(first),
            "culprits": found,
            "lists": service.fix_lists(),
            "rows": service.fix_rows(made.list_id),
            "history": service.fix_history(made.list_id),
            "what-ifs": service.ask_what_if(made.list_id, most=3),
            "found": service.find_examples(found.items[0].example_id),
            "export": service.export_rows("citations", state="done"),
        }
        frames = {name: one.to_pandas() for name, one in tables.items()}
        assert all(isinstance(one, pd.DataFrame) and len(one) for one in frames.values())
        assert type(frames["audits"]["state"][0]) is str
        assert {"audit.audit_id", "rank", "score"} <= set(frames["cited by"].columns)
        assert frames["rows"]["action"].unique().tolist() == ["remove"]
        citations = to_pandas(service.audit(first).citations)
        assert citations["rank"].tolist() == list(range(1, 11))
        empty = service.hypotheticals(first), service.views(reviewer="ann"), service.what_if_outputs(1)
        assert [len(one.to_pandas()) for one in empty[:2]] == [0, 0]
        monkeypatch.setitem(sys.modules, "pandas", None)
        with pytest.raises(ConfigurationError, match=r"wherefrom\[pandas\]"):
            service.sources().to_pandas()
    assert json.loads(frames["export"]["labels"][0])["classifier"] == "policy-v3"


def test_a_report_is_written(run: RunCommand, served: Served, tmp_path: Path) -> None:
    """Of numbers, of a filter; what names nothing, or both, is refused before a file is there."""
    first, second = (str(one) for one in served.story.audit_ids[:2])
    file = tmp_path / "incident.html"
    assert run("report", first, second, "-o", str(file), "--title", "Two <b>")[0] == 0
    html = file.read_text("utf-8")
    assert html.startswith("<!doctype html>")
    assert f'id="audit-{second}"' in html
    assert "Two &lt;b&gt;" in html
    [told] = lines(run("report", "--reason", "refund_promise", "-o", str(file), "--json")[1])
    assert told["size_bytes"] == file.stat().st_size
    assert "Together" in file.read_text("utf-8")
    for wrong, code in (
        ((), 2),
        ((first, "--state", "done"), 2),
        (("99999",), 4),
        (("--reason", "nothing"), 4),
    ):
        assert run("report", *wrong, "-o", str(tmp_path / "none.html"))[0] == code, wrong
    assert not (tmp_path / "none.html").exists()
