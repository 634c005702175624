"""Files of queries: accepted shapes, bad lines with their place, and the exact score of every pair."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tiny import TINY, opened, quiet, write_jsonl
from wherefrom.attribution import offline
from wherefrom.attribution.attributor import LanguageAttributor
from wherefrom.attribution.offline import (
    attribute_all,
    exact_scores,
    prepare_all,
    read_queries,
    signals_of_all,
)
from wherefrom.errors import EmptyCorpus, InvalidRecord
from wherefrom.records import Span

GOOD = {"prompt": "p", "completion": "a completion"}


def test_shapes(tmp_path: Path) -> None:
    """Rows as in a corpus, flagged-output records with their key, spans, token ids."""
    file = write_jsonl(
        tmp_path / "q.jsonl",
        [
            GOOD,
            {**GOOD, "idempotency_key": "k1", "schema": 1, "model": "m", "reason": "r"},
            {"messages": [{"role": "user", "content": "u"}], "completion": "c", "id": "m", "preferred": "d"},
            {**GOOD, "spans": [{"start": 2, "end": 5}], "token_ids": [5, 6], "id": 9},
            {"text": "plain words", "spans": None},
        ],
    )
    queries, skipped = read_queries(file)
    assert skipped == 0
    assert [one.key for one in queries] == ["query-000000", "k1", "m", "9", "query-000004"]
    assert queries[2].preferred == "d"
    assert [turn.content for turn in queries[2].turns] == ["u"]
    assert (queries[3].spans, queries[3].token_ids) == ((Span(start=2, end=5),), (5, 6))
    assert queries[4].turns == ()


def test_committed_queries() -> None:
    """The tiny model's flagged outputs are a file of queries."""
    assert len(read_queries(TINY / "queries.jsonl")[0]) == 30


BAD: dict[str, tuple[Any, str]] = {
    "malformed": ("{", "malformed JSON"),
    "no completion": ({"prompt": "p"}, "field `completion` must be a string, it is missing"),
    "empty completion": ({"prompt": "p", "completion": ""}, "the completion is empty"),
    "spans no list": ({**GOOD, "spans": 5}, "`spans` must be a list"),
    "span backwards": (
        {**GOOD, "spans": [{"start": 5, "end": 2}]},
        "span end 2 must be greater than its start 5",
    ),
    "span of strings": ({**GOOD, "spans": ["all"]}, "field"),
    "token ids": ({**GOOD, "token_ids": ["x"]}, r"field `token_ids\.0`"),
    "preferred": ({**GOOD, "preferred": 3}, "field `preferred`"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_line(tmp_path: Path, name: str) -> None:
    """The line is named; nothing is taken, or the others are and the count is told."""
    row, problem = BAD[name]
    file = write_jsonl(tmp_path / "q.jsonl", [GOOD, row])
    with pytest.raises(InvalidRecord, match=rf"q\.jsonl, line 2: .*{problem}"):
        read_queries(file)
    queries, skipped = read_queries(file, skip_bad=True)
    assert (len(queries), skipped) == (1, 1)


def test_no_queries(tmp_path: Path) -> None:
    """A file that is not there, and one that holds nothing."""
    with pytest.raises(InvalidRecord, match="away: file not found"):
        read_queries(tmp_path / "away")
    with pytest.raises(EmptyCorpus, match=r"no usable query \(1 bad lines skipped\)"):
        read_queries(write_jsonl(tmp_path / "q.jsonl", ["{"]), skip_bad=True)


def test_parts_and_batches_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers come in the order of the queries; small batches and small parts of the corpus give the same numbers."""
    attributor = LanguageAttributor(opened())
    prepared = prepare_all(
        attributor, read_queries(TINY / "queries.jsonl")[0][:6], max_tokens=512, over_long="reject"
    )
    steps: list[tuple[str, int, int]] = []
    found = attribute_all(
        attributor, prepared, top_k=2, opponents=1, progress=lambda *one: steps.append(one), batch_tokens=60
    )
    assert [one.key for one in found] == [one.asked.key for one in prepared]
    assert steps[-1] == ("attribute", 6, 6)
    assert len(steps) > 1
    whole = exact_scores(opened(), signals_of_all(attributor, prepared), quiet)
    monkeypatch.setattr(offline, "_SCORE_ROWS", 33)
    parts = exact_scores(opened(), signals_of_all(attributor, prepared, batch_tokens=60), quiet)
    assert whole.dtype == np.float32
    assert whole.shape == (6, 160)
    np.testing.assert_allclose(parts, whole, atol=1e-4)
