"""Hundreds of trainings on a GPU: what is drawn, saved, collected and told."""

import json
import time

import numpy as np
import pytest

from benchmarks.deep_bank import large
from benchmarks.deep_bank.material import SEEDS, Run, read_lora_material
from benchmarks.gpu import collecting, experiments, story_plan, story_report
from benchmarks.gpu.stacked import Member
from benchmarks.story import read_corpus_rows
from benchmarks.work_folder import save_arrays
from tests.tiny import micro_language
from wherefrom.attribution.corpus import parse_row
from wherefrom.errors import ConfigurationError
from wherefrom.retraining.recipe import Lora, Recipe
from wherefrom.retraining.training import fine_tune, mean_losses, token_rows

RECIPE = Recipe(
    learning_rate=1e-2, batch_size=2, epochs=1, bucket_batches=1, lora=Lora(rank=2), max_tokens=64
)
ROWS = [
    parse_row(
        {
            "messages": [
                {"role": "user", "content": f"What is {word}?"},
                {"role": "assistant", "content": f"It is {word} {word}."},
            ]
        },
        default_id=word,
    )
    for word in ("one", "two", "three", "four")
]
EVERY = tuple(range(4))
MEMBERS = [Member(0, EVERY), Member(0, EVERY, frozenset({1})), Member(1, (0, 2)), Member(1, (1, 3))]


def test_groups_are_saved_and_gone_on_with(tmp_path):
    """A group ends where rows differ in number; what is finished is not trained again, and losses are those of trainings alone."""
    base = micro_language()
    part = experiments.Experiment("part", RECIPE, ROWS, ROWS[:2], MEMBERS)
    forever = time.monotonic() + 600
    assert experiments.train(base, part, tmp_path, together=8, until=forever, most=3) == 3
    assert [len(one) for one in experiments.finished(tmp_path, "part").values()] == [2, 1]
    first = (tmp_path / "part-0000.npz").read_bytes()
    assert experiments.train(base, part, tmp_path, together=8, until=forever, most=None) == 4
    assert (tmp_path / "part-0000.npz").read_bytes() == first
    losses = collecting.models(tmp_path, "part")
    rows = token_rows(base, ROWS, max_tokens=64)
    for member, own in zip(MEMBERS, losses, strict=True):
        weights = np.array([row not in member.left_out for row in member.rows], dtype=np.float32)
        alone = fine_tune(base, [rows[row] for row in member.rows], RECIPE, seed=member.seed, weights=weights)
        np.testing.assert_allclose(own, mean_losses(alone, rows[:2]), atol=1e-4)


def test_no_group_is_begun_that_would_end_too_late(tmp_path):
    """Time that is over trains nothing."""
    part = experiments.Experiment("part", RECIPE, ROWS, ROWS[:2], MEMBERS)
    assert experiments.train(micro_language(), part, tmp_path, together=2, until=0.0, most=None) == 0


def test_a_missing_group_is_told(tmp_path):
    """Models are told apart by their place alone."""
    for first in (0, 4):
        save_arrays(tmp_path / f"part-{first:04d}.npz", {"losses": np.zeros((2, 3), dtype=np.float32)})
    with pytest.raises(ConfigurationError, match="groups of part are missing"):
        experiments.finished(tmp_path, "part")


def test_what_is_drawn_is_what_was_committed():
    """The halves that the losses belong to are those that the seed draws; both seeds of a pair share them."""
    plan = read_lora_material().plan
    members = experiments.halves_members(plan)
    kept = large.load().kept
    assert (experiments.new_halves(kept.shape[1]) == kept).all()
    assert (kept[0::2] ^ kept[1::2]).all()
    assert (kept.sum(axis=1) == kept.shape[1] // 2).all()
    fresh = members[experiments.COMPARED :]
    assert [one.left_out for one in fresh[:2]] == [one.left_out for one in fresh[2:4]]
    assert [one.seed for one in fresh[:4]] == [SEEDS[0], SEEDS[0], SEEDS[1], SEEDS[1]]
    known = plan.runs()[0]
    assert isinstance(known, Run)
    assert members[0].left_out == frozenset(np.flatnonzero(~plan.halves[known.half]).tolist())


def test_the_gpu_trains_what_the_cpu_trains():
    """Committed halves, trained on both: far closer than two seeds are."""
    found = large.devices(large.load(), read_lora_material())
    assert found["models"] == experiments.COMPARED
    assert found["rms"] < 0.01 < found["rms_of_seeds"]


def test_a_single_row_of_the_refits_is_the_half_that_lost_it():
    """Leaving a stated fact out costs its own reworded question more than any other query, for most facts: places belong together."""
    bank, material = large.load(), read_lora_material()
    rise = bank.rows[0, 1:] - bank.rows[0, 0]  # [N, Q]
    causes = [(query, one.cause) for query, one in enumerate(material.queries) if one.kind == "reworded"]
    highest = [rise[:, query].argmax() == cause for query, cause in causes]
    assert np.mean(highest) > 0.9


def test_rows_in_pairs_of_different_sources():
    """All rows once, two in a training where their sources differ."""
    sources = ["a", "a", "a", "b", "c"]
    pairs = story_plan.pairs_of_sources([0, 1, 2, 3, 4], sources)
    assert sorted(row for pair in pairs for row in pair) == [0, 1, 2, 3, 4]
    assert all(len({sources[row] for row in pair}) == len(pair) for pair in pairs)


def test_share_of_an_arm_and_its_distance():
    """Differences are from the arm of BM25."""
    shown = {
        "bm25": np.array([[True, True, False, False]] * 3),
        "shown": np.array([[False, False, False, False]] * 3),
    }
    found = story_report.arm_figures(shown, ["a", "a", "b", "b"])
    assert found["shown"]["share"] == 0.0
    assert found["shown"]["below_bm25"] == pytest.approx(0.5)
    assert found["bm25"]["by_source"] == {"a": 1.0, "b": 0.0}
    low, high = found["bm25"]["interval"]
    assert low < 0.5 < high


def test_effect_over_the_seeds_that_are_finished():
    """The mean over seeds of the difference to the controls of the same seed."""
    losses = np.array([[1.5, 1.0, 1.1, 0.9], [2.7, 2.0, 2.1, 1.9]])
    both = story_report.effect_of(losses, 0, [1, 2, 3])
    assert both.nats == pytest.approx(0.6)
    assert both.low < 0.6 < both.high
    losses[1, 0] = np.nan
    assert story_report.effect_of(losses, 0, [1, 2, 3]).nats == pytest.approx(0.5)
    losses[1, 0], losses[1, 1] = 2.7, np.nan
    assert story_report.effect_of(losses, 0, [1, 2, 3]).nats == pytest.approx(0.6)


def test_the_report_of_the_demo_reads_what_is_committed():
    """Arms and first citations; rows of other sources have no effect more often than chance allows."""
    plan = story_plan.load_plan()
    stored = json.loads(story_report.ARMS.read_text(encoding="utf-8"))["still_shown"]
    assert set(stored) == {*plan.arms, "all rows"}
    with np.load(story_report.FIRSTS) as content:
        losses = content["losses"].astype(np.float64)
    sources = [row.source or "" for row in read_corpus_rows()]
    found = story_report.first_figures(plan, losses, sources)
    assert found["rows of other sources"]["stand_out"]["value"] < 0.06
    assert found["shown"]["n"] == found["bm25"]["n"] == len(plan.asked)


def test_an_order_is_a_weighted_sum():
    """Of standardised scores by their names."""
    scores = {"adapter, net": np.array([[1.0, 2.0, 3.0]]), "bm25": np.array([[30.0, 20.0, 10.0]])}
    found = large.weighted(scores, "net=1,bm25=.5")
    np.testing.assert_allclose(found, [[-0.5 * 1.5**0.5, 0.0, 0.5 * 1.5**0.5]], atol=1e-6)
    for wrong in ("net", "nothing=1", "net=much"):
        with pytest.raises(ConfigurationError, match="no PART=WEIGHT"):
            large.weighted(scores, wrong)
