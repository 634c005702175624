"""The form `adapter` from the command line."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.tiny import shared_micro_model, tiny_queries, tiny_rows, write_adapter, write_jsonl
from tests.unit.cli.conftest import Run
from wherefrom.records import Attribution

RunCommand = Callable[..., Run]


def test_build_and_attribute(run: RunCommand, tmp_path: Path) -> None:
    """Citations of `attribute --output` carry the scores of `attribute --scores`; the model and its adapter are found again without being named."""
    model, adapter = shared_micro_model(), write_adapter(tmp_path / "lora", shared_micro_model())
    corpus = write_jsonl(tmp_path / "corpus.jsonl", tiny_rows(30))
    queries = write_jsonl(tmp_path / "queries.jsonl", tiny_queries(3))
    out, output, scores = tmp_path / "bundle", tmp_path / "citations.jsonl", tmp_path / "scores.npy"
    given = ("--model", str(model), "--adapter", str(adapter), "--corpus", str(corpus), "--form", "adapter")
    built = run("build", *given, "--out", str(out))
    assert (built.code, "form is adapter" in " ".join(built.out.split())) == (0, True), built.err
    asked = ("--bundle", str(out), "--input", str(queries))
    done = run("attribute", *asked, "--output", str(output), "--scores", str(scores), "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["queries"] == 3
    exact = np.load(scores)
    found = [Attribution.model_validate_json(line) for line in output.read_text().splitlines()]
    assert exact.shape == (3, 30)
    for row, one in enumerate(found):
        for citation in one.citations:
            assert citation.influence_score == pytest.approx(exact[row, citation.example.row], abs=1e-5)


def test_without_an_adapter(run: RunCommand, tmp_path: Path) -> None:
    """The refusal names the option, and comes before the pass over the model."""
    corpus = write_jsonl(tmp_path / "corpus.jsonl", tiny_rows(12))
    done = run(
        "build",
        *("--model", str(shared_micro_model()), "--corpus", str(corpus)),
        *("--out", str(tmp_path / "bundle"), "--form", "adapter"),
    )
    assert done.code == 2
    assert "give the adapter (--adapter)" in " ".join(done.err.split())
    assert "read signals" not in done.err
