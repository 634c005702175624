"""`benchmarks.deep_bank.citations`: effects from trainings without one row each, with unrelated rows as controls."""

from typing import Any

import numpy as np
import pytest

from benchmarks.deep_bank.citations import Chosen, Refits, choose, effect_of, figures, left_out, table
from benchmarks.deep_bank.halved import HalvedQuery
from benchmarks.deep_bank.material import read_bank_queries, read_plan, read_rows


def _refits(*, noise: float = 0.01, effect: float = 0.5) -> tuple[Refits, list[Chosen]]:
    """Every row's training raises the losses of the queries on its own subject and of those that cite it, three seeds, of which the last is half finished."""
    random = np.random.default_rng(0)
    rows, corpus = left_out(choose()), read_rows()
    queries = read_bank_queries(corpus)
    own = np.array([[corpus[row].source == query.source for query in queries] for row in rows])  # [G, Q]
    for one in choose():
        own[[rows.index(one.shown), rows.index(one.bm25)], one.query] = True
    base = random.normal(size=(3, 1, len(queries)))  # what all trainings of a seed share
    losses = base + effect * own + noise * random.normal(size=(3, *own.shape))
    losses[2, len(rows) // 2 :] = np.nan
    scores: Any = {
        name: sign * (own.T - 0.5)
        for name, sign in (("adapter", 1), ("adapter, order shown", 1), ("activation", -1), ("bm25", 1))
    }
    return Refits(tuple(rows), losses, scores, np.zeros(len(queries), dtype=np.float32)), choose()


def test_what_was_chosen_is_of_the_reporting_half_and_fixed() -> None:
    """Sixteen queries of the reporting half, each once; the rows left out as controls are nobody's first citation."""
    chosen, queries = choose(), read_bank_queries(read_rows())
    asked = [one.query for one in chosen]
    assert len(set(asked)) == 16
    assert set(asked) <= set(read_plan().queries_of("report", len(queries)))
    cited = {row for one in chosen for row in (one.shown, one.bm25)}
    assert len(left_out(chosen)) == len(cited) + 4


def test_effects_that_are_there_are_found_with_their_size_and_sign() -> None:
    """Citations stand out, unrelated rows seldom; whole and half seeds count, and a score with the wrong sign never agrees."""
    refits, chosen = _refits()
    result = figures(refits, chosen, read_bank_queries(read_rows()))
    shown, unrelated = (result["refits"][name] for name in ("first of the order shown", "unrelated rows"))
    assert (shown["n"], shown["stand_out"]["value"], shown["positive"]["value"]) == (16, 1.0, 1.0)
    assert shown["median_nats"] == pytest.approx(0.5, abs=0.03)
    assert unrelated["either_way"] / unrelated["n"] < 0.08
    assert result["agreement"]["adapter"]["signs"]["value"] > 0.9
    assert result["agreement"]["activation"]["signs"]["value"] < 0.1
    assert any("first of the order shown" in line for line in table(result))


def test_an_effect_is_found_in_halves_beside_larger_ones() -> None:
    """Two other rows matter more; the given row's own effect comes out with its size, a row without one has none."""
    random = np.random.default_rng(3)
    kept = np.zeros((60, 40), dtype=np.bool_)
    for pair in range(30):
        kept[2 * pair, random.choice(40, size=20, replace=False)] = True
        kept[2 * pair + 1] = ~kept[2 * pair]
    effects = np.zeros(40)
    effects[[2, 5, 9]] = (2.0, -1.0, 0.5)
    losses = (-(kept @ effects) + 0.1 * random.normal(size=60)).astype(np.float32)
    of_all = float(-effects.sum())
    query = HalvedQuery.of(kept, losses, loss_of_all=of_all)
    found = {row: query.effect(row) for row in range(40)}
    for row in (2, 5, 9):
        assert found[row].nats == pytest.approx(effects[row], abs=0.15)
        assert found[row].low < effects[row] < found[row].high
    assert np.mean([abs(one.z) > 1.96 for row, one in found.items() if not effects[row]]) <= 0.15


def test_an_effect_has_an_interval_and_a_z_that_agree() -> None:
    """Without an effect zero is inside about as often as it should be."""
    refits, chosen = _refits(noise=1.0, effect=0.0)
    found = [
        effect
        for row in refits.rows
        for one in chosen
        if (effect := effect_of(refits, row=row, query=one.query, related=()))
    ]
    assert all((one.low > 0 or one.high < 0) == (abs(one.z) > 1.96) for one in found)
    assert np.mean([abs(one.z) > 1.96 for one in found]) < 0.08
    few = Refits(refits.rows[:3], refits.losses[:, :3], refits.scores, refits.loss_of_all)
    assert effect_of(few, row=few.rows[0], query=0, related=()) is None
