"""Each benchmark runs as a script, says what it ran on, and ends with one JSON line of the documented shape."""

import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
TINY = ROOT / "demo" / "tiny"


def run(name: str, *words: str) -> tuple[str, dict[str, Any]]:
    """All that a benchmark prints, and its last line."""
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *words, "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout, json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def yardstick(tmp_path):
    """A folder of the yardstick's shape: the tiny model, 60 rows, 6 of them as queries, and a bank that rewards the right rows."""
    shutil.copytree(TINY / "model", tmp_path / "audited")
    rows = [json.loads(line) for line in (TINY / "corpus.jsonl").read_text("utf-8").splitlines()[:60]]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    asked = [row | {"gold": [row["id"]]} for row in rows[:6]]
    (tmp_path / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked), "utf-8")
    kept = np.random.default_rng(0).random((16, 60)) < 0.5
    np.savez(tmp_path / "bank.npz", kept=kept, query_loss=1.0 - kept[:, :6].astype(np.float32))
    return tmp_path


@pytest.mark.slow
def test_yardstick(yardstick):
    """A query that is a training example finds itself, and every promised figure is there."""
    text, result = run("yardstick", "--yardstick", str(yardstick))
    assert text.startswith("ran on: ")
    assert set(result["methods"]) == {"bm25", "similarity", "projection", "exact", "pipeline"}
    figures = {"lds", "recall@1", "recall@10", "seconds_build", "seconds_per_query", "bytes_per_example"}
    for one in result["methods"].values():
        assert figures <= set(one)
    assert result["methods"]["exact"]["recall@1"] == 1.0
    assert result["methods"]["exact"]["lds"] > 0.5
    assert set(result["candidates_hold"]) >= {"top1", "top10"}
    assert result["candidates_hold"]["share_of_corpus"] <= 0.05


@pytest.mark.slow
def test_peers(yardstick, tmp_path):
    """Every row has every figure; a second run takes the kept scores and says so; a peer that is not installed is named with its pip line."""
    shutil.copy(yardstick / "queries.jsonl", yardstick / "teacher_queries.jsonl")
    words = ("--yardstick", str(yardstick), "--work", str(tmp_path / "work"), "--only")
    text, result = run("peers", *words, "bm25s,kronfluence")
    assert text.startswith("ran on: ")
    assert "bm25s" in result["methods"]
    figures = {"lds", "lds_interval", "lds_32_63", "recall@1", "recall@10", "seconds_build"}
    for one in result["methods"].values():
        assert figures | {"seconds_per_query", "bytes_per_example", "note"} <= set(one)
        assert one["lds_interval"][0] <= one["lds_interval"][1]
    assert result["methods"]["bm25s"]["recall@1"] == 1.0
    if find_spec("kronfluence") is None:
        assert "pip install --no-deps" in result["not_installed"]["kronfluence"]
        assert "not installed: kronfluence" in text
    again, resumed = run("peers", *words, "bm25s")
    assert resumed["resumed"] == ["bm25s"]
    assert "bm25s *" in again
    for figure in ("lds", "lds_interval", "seconds_build"):
        assert resumed["methods"]["bm25s"][figure] == result["methods"]["bm25s"][figure]


@pytest.mark.slow
@pytest.mark.redis
def test_overhead():
    """Both forms, end to end included; ratios are printed, none is asserted."""
    text, result = run("overhead", "--tiny", "--examples", "24", "--audits", "8", "--repeats", "1")
    assert text.startswith("ran on: ")
    assert set(result["forms"]) == {"forward", "activation"}
    for one in result["forms"].values():
        assert one["attribution_over_forward"] > 0
        assert one["projection_share_of_model"] <= 1
    assert result["end_to_end"]["audits"] == 8


@pytest.mark.slow
@pytest.mark.redis
def test_throughput() -> None:
    """One process and a few outputs: rates are printed, none is asserted."""
    text, result = run("throughput", "--processes", "1", "--seconds", "1.5")
    assert text.startswith("ran on: ")
    [row] = result["rows"]
    assert row["outputs"] == 55
    assert row["speed_up"] == 1.0
    assert row["whole_per_second"] > 0
    assert row["share_of_engine"] > 0
