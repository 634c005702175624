"""The calibration benchmark runs as a script on a small folder of the yardstick's shape and gives every promised figure."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.tiny import TINY_MODEL, tiny_rows, write_jsonl

ROOT = Path(__file__).parents[2]
CORPUS_ROWS = 60


def pair(row: dict) -> dict[str, str]:
    """Prompt and completion of a tiny row."""
    return {"prompt": row["messages"][0]["content"], "completion": row["messages"][1]["content"]}


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """`yardstick/` with a bank that rewards the right rows, and `tofu/` with 24 authors whose rows are not in the corpus."""
    yardstick, tofu = tmp_path / "yardstick", tmp_path / "tofu"
    yardstick.mkdir()
    tofu.mkdir()
    (yardstick / "audited").symlink_to(TINY_MODEL)
    rows = tiny_rows()
    corpus, others = rows[:CORPUS_ROWS], rows[CORPUS_ROWS : CORPUS_ROWS + 168]
    write_jsonl(yardstick / "corpus.jsonl", [pair(row) | {"id": row["id"]} for row in corpus])
    for name, known in (("teacher_queries", corpus[:30]), ("queries", corpus[30:])):
        asked = [pair(row) | {"id": f"{name}-{row['id']}", "gold": [row["id"]]} for row in known]
        plain = [pair(row) | {"id": f"plain-{row['id']}", "gold": []} for row in known[:4]]
        write_jsonl(yardstick / f"{name}.jsonl", [*asked, *plain])
    kept = np.random.default_rng(0).random((64, CORPUS_ROWS)) < 0.5
    teacher = 3.0 - kept[:, [*range(30), *range(4)]].astype(np.float32)
    losses = 3.0 - kept[:, [*range(30, 60), *range(30, 34)]].astype(np.float32)
    np.savez(yardstick / "bank.npz", kept=kept, teacher_query_loss=teacher, query_loss=losses)
    facts = [
        {"author": place % 24, "question": one["prompt"], "answer": one["completion"]}
        for place, one in enumerate(map(pair, others))
    ]
    write_jsonl(tofu / "train_4000.jsonl", facts)
    write_jsonl(
        tofu / "queries_with_gold.jsonl",
        [pair(row) | {"gold_author": place % 24} for place, row in enumerate(others)],
    )
    return tmp_path


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_calibration_benchmark(folders: Path) -> None:
    """Outputs that are training examples stand out from controls, and the bank's effects are found again."""
    command = [sys.executable, "-m", "benchmarks.calibration", "--yardstick", str(folders / "yardstick")]
    command += ["--tofu", str(folders / "tofu"), "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=550, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith("ran on: ")
    result = json.loads(done.stdout.splitlines()[-1])
    assert len(result["splits"]) == 3
    assert result["mean"]["auroc"] > 0.9
    for name in ("false_citations", "bh_false_share", "ece", "ece_first", "facts_cited"):
        assert 0 <= result["mean"][name] <= 1, name
    assert set(result["novelty"]) >= {"auroc, shuffled letters", "flagged, in distribution"}
    slope = result["effects"]["all_subsets"]
    assert slope["low"] <= slope["slope"] <= slope["high"]
    assert 0.5 < slope["slope"] < 1.5
    assert len(slope["predicted"]) == 10
