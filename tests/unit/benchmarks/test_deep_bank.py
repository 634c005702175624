"""The deep bank: what is committed, going on where it stopped, and its table on cases whose answer is known."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.deep_bank import table as tables
from benchmarks.deep_bank import train
from benchmarks.deep_bank.material import (
    LORA,
    PAIRS,
    REPEATED_PAIRS,
    BankQuery,
    Plan,
    Run,
    draw_plan,
    read_bank_queries,
    read_plan,
    read_rows,
)
from benchmarks.deep_bank.scores import FORMS, core_cosines, mean_state_cosines, order_shown, standardised_sum
from benchmarks.deep_bank.table import Truth, bootstrap, ceiling, lines_of, table, truth_of
from benchmarks.deep_bank.train import Measured, collect, load_losses, missing_runs, open_folder, train_one
from tests.tiny import micro_language, random_row
from wherefrom.attribution.bundles.shards import RawShard
from wherefrom.attribution.corpus import parse_row
from wherefrom.errors import ConfigurationError
from wherefrom.evaluation.estimates import middle

ROWS = read_rows()
QUERIES = read_bank_queries(ROWS)


def test_the_committed_material_is_whole() -> None:
    """Enough rows and queries of every kind, ids that differ, causes that exist, and no output that is a row."""
    kinds = Counter(one.kind for one in QUERIES)
    assert len({row.example_id for row in ROWS}) == len(ROWS) == 96
    assert len(QUERIES) >= 48
    assert min(kinds[kind] for kind in ("reworded", "other", "instruction", "bad")) >= 8
    assert all((one.cause is not None) == (one.kind == "reworded") for one in QUERIES)
    assert all(ROWS[one.cause].source == one.source for one in QUERIES if one.cause is not None)
    assert not {row.completion for row in ROWS} & {one.row.completion for one in QUERIES if one.kind != "bad"}


def test_the_committed_plan_is_the_one_drawn() -> None:
    """By its seed, before any loss was known; nobody chose a half or a split."""
    plan, drawn = read_plan(), draw_plan(len(ROWS), [one.kind for one in QUERIES])
    assert (plan.halves == drawn.halves).all()
    assert (plan.repeated, plan.choose_pairs, plan.choose_queries) == (
        drawn.repeated,
        drawn.choose_pairs,
        drawn.choose_queries,
    )


def test_halves_complement_each_other_and_parts_are_disjoint() -> None:
    """Every pair covers the corpus once; half of the pairs and of every kind of query is to choose on."""
    plan = read_plan()
    assert plan.halves.shape == (2 * PAIRS, len(ROWS))
    assert (plan.halves[0::2] ^ plan.halves[1::2]).all()
    assert (plan.halves.sum(axis=1) == len(ROWS) // 2).all()
    assert len(plan.choose_pairs) == PAIRS // 2
    chosen = plan.queries_of("choose", len(QUERIES))
    report = plan.queries_of("report", len(QUERIES))
    assert sorted(chosen + report) == list(range(len(QUERIES)))
    for kind in {one.kind for one in QUERIES}:
        of_kind = [place for place in chosen if QUERIES[place].kind == kind]
        assert len(of_kind) == sum(one.kind == kind for one in QUERIES) // 2


def test_a_prefix_of_the_runs_is_useful() -> None:
    """Pairs of both parts in turn; sixteen halves twice, each right behind its pair."""
    plan = read_plan()
    runs = plan.runs()
    assert len(runs) == len(set(runs)) == 2 * PAIRS + 2 * REPEATED_PAIRS
    first = [run.half for run in runs if run.seed == 0]
    parts = [plan.part_of_half(half) for half in first]
    assert parts == (["choose"] * 2 + ["report"] * 2) * (PAIRS // 2)
    assert sum(run.seed == 1 for run in runs[:16]) >= 2
    repeated = [plan.part_of_half(2 * pair) for pair in plan.repeated]
    assert Counter(repeated) == {"choose": REPEATED_PAIRS // 2, "report": REPEATED_PAIRS // 2}


def small_plan() -> Plan:
    """Three pairs over six rows; the first one is trained twice and chosen on."""
    halves = np.array(
        [[1, 1, 1, 0, 0, 0], [1, 0, 1, 0, 1, 0], [0, 1, 1, 0, 0, 1], [1, 1, 0, 0, 1, 0]], dtype=np.bool_
    )
    both = np.stack([halves, ~halves], axis=1).reshape(8, 6)
    return Plan(both, repeated=(0,), choose_pairs=(0, 2), choose_queries=(0, 2))


def save_run(folder: Path, run: Run, value: float) -> None:
    """A finished model whose losses are all one number."""
    np.savez(
        folder / f"{run.name}.npz",
        query_loss=np.full(3, value, np.float32),
        seconds=np.float64(1.0),
    )


def test_training_goes_on_from_what_is_committed(tmp_path: Path) -> None:
    """What losses.npz or the folder holds is not trained again; collecting keeps both, in the order of the plan."""
    plan, setting = small_plan(), replace(LORA, losses=tmp_path / "losses.npz")
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        open_folder(folder)
    save_run(first, Run(1, 0), 1.0)
    save_run(first, Run(0, 0), 0.5)
    collect(plan, first, setting)
    save_run(second, Run(2, 0), 2.0)
    missing = missing_runs(plan, second, setting)
    assert missing == [run for run in plan.runs() if run not in {Run(0, 0), Run(1, 0), Run(2, 0)}]
    found = collect(plan, second, setting)
    assert [run.name for run in found.runs] == ["h00-s0", "h01-s0", "h02-s0"]
    assert found.queries[:, 0].tolist() == [0.5, 1.0, 2.0]
    assert found.seconds.tolist() == [1.0, 1.0, 1.0]


def test_losses_of_another_bank_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So is a work folder; mixing them would be worth nothing."""
    setting = replace(LORA, losses=tmp_path / "losses.npz")
    open_folder(tmp_path)
    save_run(tmp_path, Run(0, 0), 1.0)
    collect(small_plan(), tmp_path, setting)
    monkeypatch.setattr(train, "bank_sha256", lambda _setting: "another")
    with pytest.raises(ConfigurationError, match="other rows, queries, plan or recipe"):
        load_losses(small_plan(), setting)
    with pytest.raises(ConfigurationError, match="choose another --work folder"):
        open_folder(tmp_path)


def test_a_model_is_trained_on_its_half(tmp_path: Path) -> None:
    """Queries that are rows of one half lose less under it than under the other."""
    rows = [random_row(5, 4, seed=seed) for seed in range(6)]
    plan = small_plan()
    for run in (Run(0, 0), Run(1, 0)):
        train_one(micro_language(), rows, rows, plan=plan, run=run, work=tmp_path)
    one, other = (np.load(tmp_path / f"h0{half}-s0.npz") for half in (0, 1))
    better = one["query_loss"] < other["query_loss"]
    assert better[:3].mean() > better[3:].mean()


def measured(
    plan: Plan, effects: np.ndarray, *, noise: float = 0.0, leave: set[Run] | None = None
) -> Measured:
    """Losses that fall by fixed effects `[Q, N]` for every row seen."""
    random = np.random.default_rng(0)
    runs = [run for run in plan.runs() if run not in (leave or set())]
    kept = np.stack([plan.halves[run.half] for run in runs])
    losses = -(kept.astype(np.float64) @ effects.T) + noise * random.standard_normal(
        (len(runs), len(effects))
    )
    return Measured(tuple(runs), losses.astype(np.float32), np.ones(len(runs)))


def test_truth_takes_finished_pairs_of_its_part() -> None:
    """A pair of which one half is missing does not count, nor do second seeds; queries are the part's."""
    plan, effects = small_plan(), np.arange(18.0).reshape(3, 6) % 5
    whole = truth_of(plan, measured(plan, effects), "choose", queries=3)
    assert (whole.pairs, list(whole.queries), whole.losses.shape) == (2, [0, 2], (4, 2))
    assert (whole.kept == plan.halves[[0, 1, 4, 5]]).all()
    less = truth_of(plan, measured(plan, effects, leave={Run(5, 0)}), "choose", queries=3)
    assert (less.kept == plan.halves[[0, 1]]).all()
    report = truth_of(plan, measured(plan, effects), "report", queries=3)
    assert (report.pairs, list(report.queries)) == (2, [1])


def test_ceiling_is_the_agreement_of_two_seeds() -> None:
    """Perfect without noise; unknown where fewer than three halves were trained twice."""
    plan = read_plan()
    effects = np.random.default_rng(1).standard_normal((4, len(ROWS)))
    twice, highest = ceiling(plan, measured(plan, effects))
    assert twice == 2 * REPEATED_PAIRS
    assert highest == pytest.approx(1.0)
    noisy = ceiling(plan, measured(plan, effects, noise=5.0))[1]
    assert 0.5 < noisy < 0.97
    assert np.isnan(ceiling(plan, measured(plan, effects, leave={run for run in plan.runs() if run.seed}))[1])


def test_table_knows_the_truth_from_noise() -> None:
    """The true effects have LDS 1, scores by chance about 0, and the paired difference leaves no doubt."""
    plan = read_plan()
    random = np.random.default_rng(2)
    effects = random.standard_normal((len(QUERIES), len(ROWS)))
    truth = truth_of(plan, measured(plan, effects), "report", queries=len(QUERIES))
    scores = {
        "truth": effects.astype(np.float32),
        "bm25": random.standard_normal(effects.shape).astype(np.float32),
    }
    found: dict[str, dict[str, Any]] = dict(table(scores, truth, QUERIES, [row.source for row in ROWS]))
    assert found["truth"]["lds"] == pytest.approx(1.0)
    assert abs(found["bm25"]["lds"]) < 0.2
    assert found["bm25"]["interval"][0] < found["bm25"]["lds"] < found["bm25"]["interval"][1]
    assert found["truth"]["above bm25, interval"][0] > 0.5
    assert {"reworded", "other", "instruction", "bad", "recall@1", "P@5"} <= found["truth"].keys()
    assert len(lines_of(found)) == 3


def test_bootstrap_draws_pairs_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both halves of a pair are drawn together, and every method sees the same draws."""
    plan = small_plan()
    effects = np.random.default_rng(3).standard_normal((3, 6))
    truth = truth_of(plan, measured(plan, effects), "choose", queries=3)
    seen: list[np.ndarray] = []

    def watched(one: np.ndarray, _other: np.ndarray) -> np.ndarray:
        seen.append(one)
        return np.zeros(len(one))

    monkeypatch.setattr(tables, "spearman_rows", watched)
    drawn = bootstrap({"one": effects.astype(np.float32), "two": effects.astype(np.float32)}, truth, draws=5)
    assert middle(drawn["one"]) == (0.0, 0.0)
    totals = effects.sum(axis=1)[[0, 2]]
    for first, second in zip(seen[0::2], seen[1::2], strict=True):
        assert (first == second).all()
        sums = first[:, 0::2] + first[:, 1::2]  # complementary halves add up to all rows
        assert np.isclose(sums[..., None], totals, atol=1e-3).any(axis=-1).all()


def test_few_pairs_have_an_agreement_but_no_lds() -> None:
    """True effects foretell which half of each pair has the smaller loss; their negation never does."""
    plan, effects = small_plan(), np.random.default_rng(4).standard_normal((3, 6))
    truth = truth_of(plan, measured(plan, effects), "choose", queries=3)
    row = parse_row({"prompt": "p", "completion": "c"}, default_id="x")
    queries = [BankQuery(row, "other", None, "a")] * 3
    scores = {"truth": effects.astype(np.float32), "opposite": -effects.astype(np.float32)}
    found = table(scores, truth, queries, ["a"] * 6)
    assert (found["truth"]["pairs"], found["opposite"]["pairs"]) == (1.0, 0.0)
    assert "lds" not in found["truth"]
    assert lines_of(found)[1].startswith("truth")


def test_precision_of_bad_outputs() -> None:
    """The share of the best rows from the source that taught them; other queries do not count."""
    row = parse_row({"prompt": "p", "completion": "c"}, default_id="x")
    queries = [BankQuery(row, "bad", None, "b"), BankQuery(row, "other", None, "a")]
    scores = np.array([[3, 2, 1, 0], [0, 1, 2, 3]], dtype=np.float32)
    assert tables.source_precision_of_bad(scores, queries, ["b", "a", "b", "a"], 2) == 0.5
    assert np.isnan(tables.source_precision_of_bad(scores[1:], queries[1:], ["b", "a", "b", "a"], 2))


def test_scores_of_variants() -> None:
    """A row has cosine 1 with itself, centred means too, and a standardised sum ranks by both parts alike."""
    generator = torch.Generator().manual_seed(5)
    a, b = (torch.randn(9, 2, 3, generator=generator) for _ in range(2))
    shard = RawShard(a, b, (4, 3, 2), torch.zeros(3, 1), torch.zeros(3))
    for scores in (core_cosines(shard, shard, 0.1), mean_state_cosines(shard, shard)):
        np.testing.assert_allclose(np.diag(scores), 1.0, rtol=1e-5)
    small, large = np.array([[0.0, 1.0, 2.0]], np.float32), np.array([[100.0, -100.0, 0.0]], np.float32)
    total = standardised_sum([small, large])
    np.testing.assert_allclose(total, standardised_sum([100 * small, large]), atol=1e-5)


def test_no_truth_without_models() -> None:
    """An empty part is no error: nothing is finished yet."""
    plan = read_plan()
    nothing = Measured((), np.zeros((0, len(QUERIES)), np.float32), np.zeros(0))
    assert isinstance(truth_of(plan, nothing, "choose", queries=len(QUERIES)), Truth)
    assert truth_of(plan, nothing, "choose", queries=len(QUERIES)).pairs == 0


def test_the_order_shown_has_the_weights_of_its_form() -> None:
    """Similarity moves the order of the forms that count it, and no order of those that read an adapter."""
    random = np.random.default_rng(4)
    found = {name: random.normal(size=(3, 9)).astype(np.float32) for name in (*FORMS, "bm25", "similarity")}
    before = order_shown(found)
    after = order_shown(found | {"similarity": found["similarity"][:, ::-1]})
    moved = {name for name, one in before.items() if not np.allclose(one, after[name])}
    assert moved == {"forward, order shown", "activation, order shown"}
    assert len(before) == len(FORMS)
