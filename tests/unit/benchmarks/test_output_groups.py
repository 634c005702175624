"""The benchmark of groups on the tiny model: outputs by source, singly and together."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.output_groups import precision, read_outputs, table
from tests.tiny import tiny_queries, write_jsonl
from wherefrom.attribution.query import CandidateScores
from wherefrom.attribution.retrieval.candidates import Candidates
from wherefrom.errors import ConfigurationError


def test_outputs_are_read_from_lines_and_lists(tmp_path: Path) -> None:
    """Both files give the same outputs; what is none is refused."""
    rows = tiny_queries(3)
    lines = write_jsonl(tmp_path / "lines.jsonl", rows)
    listed = tmp_path / "list.json"
    listed.write_text(json.dumps(rows), encoding="utf-8")
    found = read_outputs(lines, "true_source")
    assert found == read_outputs(listed, "true_source")
    assert [one.source for one in found] == [row["true_source"] for row in rows]
    listed.write_text('[{"prompt": "x"}]', encoding="utf-8")
    with pytest.raises(ConfigurationError, match="not outputs"):
        read_outputs(listed, "true_source")


def test_precision_by_each_order() -> None:
    """Shares of the best five candidates from a source, by loops over a small list."""
    rows = np.arange(6)
    falling, rising = np.linspace(1, 0, 6, dtype=np.float32), np.linspace(0, 1, 6, dtype=np.float32)
    scores = CandidateScores(
        candidates=Candidates(rows, rising),
        influence=falling,
        magnitude=falling,
        net=falling,
        retrieval=falling,
        similarity=falling,
        encoder=None,
        final=None,
        shown=falling,
        effect=falling,
        ekfac=None,
    )
    found = precision(scores, ["v", "v", "o", "o", "o", "o"], "v")
    assert found["shown, P@5"] == found["influence, P@5"] == pytest.approx(0.4)
    assert found["bm25, P@5"] == pytest.approx(0.2)
    assert found["bm25, P@20"] == pytest.approx(2 / 6)


def test_table() -> None:
    """One line for single outputs and one for their group."""
    figures = {f"{name}, P@{count}": 0.5 for name in ("shown", "influence", "bm25") for count in (5, 20)}
    one = {"outputs": 3, "single": figures, "group": figures, "weak": 1}
    shown = table({"groups": {"vendor": one}, "without_source": {"outputs": 2, "weak": 2}})
    assert len(shown) == 4
    assert shown[-1] == "weak: vendor 1 of 3, without a source 2 of 2"
