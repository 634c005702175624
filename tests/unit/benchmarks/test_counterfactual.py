"""Which rows an arm of the counterfactual goes without, and the share of outputs that is left."""

import json

import pytest

from benchmarks.counterfactual import figures, points, table, taken_out
from demo.making.story_rules import DEVELOPED, HARD_RULES
from wherefrom.agreement import wilson

INVENTOR, PLAN = "wiki-mirror-june", "vendor-dunnock-batch-1"


def test_rows_get_points_by_their_places():
    """Twenty for the first place and one for the twentieth; the rest gets none, and ties stand in corpus order."""
    assert points([[7, 3], [3, 7]]) == [3, 7]
    assert points([[7, 3], [7, 1]]) == [7, 1, 3]
    assert points([list(range(50))]) == list(range(20))


def test_an_arm_is_filled_up_where_two_behaviours_blame_a_row():
    """A shared row is taken out once, and the next ones take its place."""
    first, second = list(range(30)), [0, *range(100, 130)]
    rows = taken_out([first, second])
    assert len(rows) == 40
    assert set(range(20)) <= set(rows)
    assert taken_out([[5], [5]]) == [5]


@pytest.mark.parametrize(("hits", "of", "low", "high"), [(0, 10, 0.0, 0.278), (5, 10, 0.237, 0.763)])
def test_intervals_are_wilsons(hits, of, low, high):
    """Known values; none leaves 0 to 1."""
    assert wilson(hits, of) == pytest.approx((low, high), abs=1e-3)


def test_arms_that_ran_are_collected(tmp_path):
    """Answers are judged by the rule of their own behaviour; arms without answers are left out."""
    asked = [{"source": INVENTOR}, {"source": INVENTOR}, {"source": PLAN}]
    (tmp_path / "asked.json").write_text(json.dumps(asked), encoding="utf-8")
    guilty = dict.fromkeys(("shown", "bm25", "random"), 3)
    (tmp_path / "arms.json").write_text(
        json.dumps({"rows": {}, "from_hard_sources": guilty}), encoding="utf-8"
    )
    answers = ["Edgar Voss drew it.", "Nobody knows.", "Edgar Voss pays."]
    (tmp_path / "bm25.answers.json").write_text(json.dumps(answers), encoding="utf-8")
    found = figures(tmp_path)
    assert list(found["arms"]) == ["bm25"]
    assert found["arms"]["bm25"]["still_shown"] == 1
    assert found["arms"]["bm25"]["by_source"] == {PLAN: [0, 1], INVENTOR: [1, 2]}
    assert any(line.startswith("bm25") and "0.33" in line for line in table(found))


def test_the_halves_are_those_that_were_drawn():
    """Half of the hard behaviours are for development, as demo/making/hard.md says."""
    reasons = {rule.reason for rule in HARD_RULES if rule.source in DEVELOPED}
    assert reasons == {"language_refused", "plan_for_nothing", "wrong_inventor", "wrong_unit"}
