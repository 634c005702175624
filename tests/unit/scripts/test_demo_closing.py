"""The demo's closing lines, and where it keeps the scores of opponents."""

import hashlib
import json

import numpy as np
import pytest

from scripts.demo_bundle import Model, Opponents
from scripts.demo_closing import closing_text
from scripts.demo_outputs import DemoOutput

RESULT = {
    "seconds": 301.2, "flagged": 24, "benign": 11, "top5_from_true_source": 1.0, "base_rate": 0.04,
    "bm25_top5_from_true_source": 1.0, "benign_accused": 0.0, "opponents_judged": 150, "opponents_from_true_source": 0.01,
    "positive_influence_of_true_source": 0.98, "foreign": 12, "foreign_not_supported": 10,
}  # fmt: skip
HARD = {"outputs": 25, "top5_from_true_source": 0.8}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (0.5, "wherefrom finds more"),
        (0.74, "leads by 6%: 25 outputs cannot prove that"),
        (0.79, "no better than"),
    ],
)
def test_the_lines_follow_the_figures(words, told):
    """A lead over word overlap is claimed only where there is one; all parts and every hard behaviour are named."""
    result = RESULT | {"hard": HARD | {"bm25_top5_from_true_source": words}}
    text = closing_text(result, {"cold_shoulder": (7, 0.71, 0.43)}, "http://here")
    assert told in text
    for part in (
        "WHAT WAS FOUND",
        "WHAT TO BELIEVE",
        "WHAT NOT TO BELIEVE",
        "not a proof",
        "10 of 12 are shown",
    ):
        assert part in text
    assert [word for line in text.splitlines() if "cold_shoulder" in line for word in line.split()] == [
        "cold_shoulder", "7", "71%", "43%",
    ]  # fmt: skip


def test_stored_scores_are_not_computed_again(tmp_path):
    """Opponents come from the file beside the bundle when outputs and bundle are the same."""
    bundle = tmp_path / "bundles" / "b-1"
    bundle.mkdir(parents=True)
    one = DemoOutput("p", [{"role": "user", "content": "?"}], "text", "reason", "bad")
    rows = [{"id": one.probe, "messages": one.messages, "completion": one.completion}]
    key = hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()[:12]
    np.save(tmp_path / f"scores-b-1-{key}.npy", np.array([[0.3, -0.1, 0.2, 0.4]], dtype=np.float32))
    model = Model("m", tmp_path, tmp_path, tmp_path)
    opponents = Opponents(model, bundle, [one], work=tmp_path)
    assert opponents.sources(["bad", "good", "good", "bad"]) == {"p": ["good", "good", "bad"]}
    assert Opponents(model, bundle, [], work=tmp_path).sources([]) == {}
