"""Measured effects that stand out, found in losses that were made with known ones, and how signs are held against them."""

import numpy as np
import pytest


def halves(pairs: int, rows: int) -> np.ndarray:
    """Random halves in complementary pairs."""
    generator = np.random.default_rng(3)
    kept = np.zeros((2 * pairs, rows), dtype=bool)
    for pair in range(pairs):
        kept[2 * pair, generator.choice(rows, rows // 2, replace=False)] = True
        kept[2 * pair + 1] = ~kept[2 * pair]
    return kept


def test_effects_that_are_there_are_found_and_no_others() -> None:
    """Two strong rows of one query with their sign and size, the mean effect added; noise alone gives none."""
    from benchmarks.deep_bank.signs import stand_outs

    kept, generator = halves(20, 40), np.random.default_rng(5)
    effects = np.full((40, 2), 0.01)  # each row lowers the loss a little
    effects[7, 0], effects[30, 0] = 0.8, -0.5
    losses = 3.0 - kept @ effects + 0.05 * generator.normal(size=(40, 2))
    found = stand_outs(kept, losses.astype(np.float32), [0, 1], loss_of_all=3.0 - effects.sum(axis=0))
    assert [(one.query, one.row) for one in found] == [(0, 7), (0, 30)]
    assert [one.nats for one in found] == pytest.approx([0.8, -0.5], abs=0.05)
    assert all(0 < one.error < 0.05 for one in found)


def test_agreement_counts_signs_and_leaves_out_those_of_noise() -> None:
    """Of three effects one score has the wrong sign, inside of the noise."""
    from benchmarks.deep_bank.signs import StandOut, agreement

    scores = np.random.default_rng(1).normal(scale=0.01, size=(1, 60)).astype(np.float32)
    scores[0, :3] = 0.5, -0.4, -0.001
    effects = [StandOut(0, 0, 0.3, 0.01), StandOut(0, 1, -0.2, 0.01), StandOut(0, 2, 0.2, 0.01)]
    found = agreement(effects, scores, [0])
    assert (found["all"]["n"], found["all"]["value"]) == (3, pytest.approx(2 / 3))
    assert (found["determined"]["n"], found["determined"]["value"]) == (2, 1.0)
    assert found["cited"] == 10
    assert 1 <= found["cited_determined"] < 10


def test_weak_outputs() -> None:
    """An output whose cause stands out is not weak, and is once its source is left out."""
    from benchmarks.deep_bank.material import BankQuery
    from benchmarks.deep_bank.signs import weak_outputs
    from wherefrom.attribution.corpus import parse_row

    scores = np.random.default_rng(2).normal(scale=0.01, size=(1, 60)).astype(np.float32)
    scores[0, :4] = 0.5
    row = parse_row({"prompt": "a", "completion": "b"}, default_id="q")
    asked = [BankQuery(row, "bad", None, "vendor")]
    found = weak_outputs(scores, [0], asked, ["vendor"] * 4 + ["other"] * 56)
    assert found == {"cause in the corpus": {"bad": [0, 1]}, "cause left out": {"bad": [1, 1]}}


def test_wilson() -> None:
    """Intervals as of the usual tables; all of eighteen is no certainty."""
    from benchmarks.deep_bank.signs import share

    assert share([True] * 18)["interval"] == pytest.approx([0.824, 1.0], abs=1e-3)
    assert share([True] * 9 + [False])["interval"] == pytest.approx([0.596, 0.982], abs=1e-3)
    assert share([])["value"] is None
