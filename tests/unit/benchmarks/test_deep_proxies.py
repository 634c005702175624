"""The larger model's benchmark: drawing, kernels, learned adjoints and measures against loops and cases whose answer is known."""

from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.deep_bank.proxies import adjoint
from benchmarks.deep_bank.proxies.adjoint import fit_gated, fit_linear
from benchmarks.deep_bank.proxies.material import draw_evenly, verbatim_causes
from benchmarks.deep_bank.proxies.refits import (
    ALL_ROWS,
    RefitPlan,
    judge_scores,
    measured_effects,
    missing_runs,
)
from benchmarks.deep_bank.proxies.run import agreement
from benchmarks.deep_bank.proxies.scores import Kernel, Scores, Scoring, evenly_spaced_linears, layer_kernel
from tests.tiny import micro_language
from wherefrom.attribution.corpus import parse_row
from wherefrom.attribution.factors import Factors
from wherefrom.attribution.models.render import TokenRow
from wherefrom.attribution.models.signals import SignalReader
from wherefrom.attribution.whitening import SecondMoments, Whitener
from wherefrom.errors import ConfigurationError
from wherefrom.evaluation.provenance import overlap_at, source_precision

SOURCES = ["a"] * 6 + ["b"] * 3 + ["c"] * 1
WORDS = ("the red fan", "a lamp is warm", "no refund", "the mop is here today")


def rows_of(count: int) -> list[TokenRow]:
    """Rows of unequal lengths with four or five explained tokens."""
    return [
        TokenRow(
            tuple((7 * step + 13 * row) % 50 + 2 for step in range(9 + row % 2)), 5, (True,) * (4 + row % 2)
        )
        for row in range(count)
    ]


def scoring(folder: Any, language: Any) -> Scoring:
    """Six rows and two queries of a random model."""
    words = [
        parse_row({"prompt": "hello", "completion": f"{WORDS[row % 4]} {row}"}, default_id=str(row))
        for row in range(8)
    ]
    rows = rows_of(8)
    return Scoring(
        folder, rows=(rows[:6], rows[6:]), words=(words[:6], words[6:]), load_point=lambda _: language
    )


def test_draw_evenly() -> None:
    """Sources get equal shares until one is used up; what must be kept is kept and counts."""
    assert [SOURCES[row] for row in draw_evenly(SOURCES, 5, allowed=range(10))] == ["a", "a", "b", "b", "c"]
    found = draw_evenly(SOURCES, 4, allowed=range(10), kept=[0, 1])
    assert {0, 1} <= set(found)
    assert sorted(SOURCES[row] for row in found) == ["a", "a", "b", "c"]
    assert draw_evenly(SOURCES, 99, allowed=[1, 7]) == [1, 7]


def test_verbatim_causes() -> None:
    """The rows with the longest common run of six words or more, capitals and punctuation aside."""
    rows = [
        "Well: one two three four five six!",
        "one two three four five seven",
        "zero one two three four five six",
    ]
    asked = ["So one, two three four FIVE six.", "one two three four five eight"]
    assert verbatim_causes(asked, rows) == [[0, 2], []]


def test_source_precision() -> None:
    """Outputs without a source are left out of the mean."""
    scores = np.array([[3.0, 2.0, 1.0], [0.0, 1.0, 2.0], [1.0, 1.0, 1.0]], dtype=np.float32)
    assert source_precision(scores, ["a", "a", None], ["a", "b", "a"], 2) == 0.5


def test_top_overlap_and_agreement() -> None:
    """Equal scores agree wholly, opposite ones not at all; cosine is held against cosine."""
    truth = np.random.default_rng(0).normal(size=(3, 30)).astype(np.float32)
    assert overlap_at(truth, truth, 10) == 1.0
    assert overlap_at(-truth, truth, 10) == 0.0
    found = agreement({"ekfac": Scores(truth, -truth), "same": Scores(truth, truth)})
    assert found["same"]["spearman"] == pytest.approx(1.0)
    assert found["same"]["spearman_dot"] == pytest.approx(-1.0)
    assert "ekfac" not in found


def test_layer_kernel_against_loops() -> None:
    """Sums over token pairs of whitened products; norms are kernels with oneself."""
    generator = torch.Generator().manual_seed(3)
    lengths, asked = (2, 3, 4), (2, 1)
    examples, queries = (
        Factors(
            torch.randn(sum(one), 1, 5, generator=generator),
            torch.randn(sum(one), 1, 5, generator=generator),
            one,
        )
        for one in (lengths, asked)
    )
    moments = SecondMoments.zeros(1, 1, 5)
    moments.add(examples.a, examples.b)
    white = Whitener.fit(moments)
    one, other = (Factors(*white.apply(part.a, part.b), part.lengths).rows() for part in (examples, queries))

    def product(q: Factors, z: Factors) -> float:
        return sum(
            float(q.a[t, 0] @ z.a[s, 0]) * float(q.b[t, 0] @ z.b[s, 0])
            for t in range(len(q.a))
            for s in range(len(z.a))
        )

    found = layer_kernel(examples, queries)
    expected = torch.tensor([[product(q, z) for z in one] for q in other])
    torch.testing.assert_close(found.dot, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        found.examples, torch.tensor([product(z, z) for z in one]), rtol=1e-4, atol=1e-5
    )
    twice: Kernel = found + found
    torch.testing.assert_close(twice.cosine, found.cosine)


def test_scoring_steps(tmp_path, monkeypatch) -> None:
    """The last hidden state's gradient is the output error, raw scores are cosines of plain gradients, and finished steps are kept."""
    monkeypatch.setattr(adjoint, "STEPS", 5)
    language = micro_language()
    made = scoring(tmp_path, language)
    for step in made.missing():
        made.run(step)
    assert scoring(tmp_path, language).missing() == []
    methods = made.methods()
    assert {
        "bm25",
        "similarity",
        "raw",
        "ekfac",
        "forward, default + midpoint",
        "adjoint, gated, both",
    } <= set(methods)
    assert all(one.cosine.shape == (2, 6) for one in methods.values())

    reader = SignalReader(language, form="forward", layers=(0, 3), similarity_layer=2)
    read = made.load("final")["examples"]
    rows = rows_of(8)[:6]
    torch.testing.assert_close(
        read.of(3)[1], torch.cat([reader.read([row]).b[:, 0] for row in rows]), rtol=1e-3, atol=1e-5
    )

    names = evenly_spaced_linears(language, 6)
    gradients = torch.stack([plain_gradient(language, row, names) for row in rows_of(8)])
    unit = torch.nn.functional.normalize(gradients, dim=1)
    np.testing.assert_allclose(methods["raw"].cosine, (unit[6:] @ unit[:6].T).numpy(), rtol=1e-3, atol=1e-4)


def plain_gradient(language: Any, row: TokenRow, names: list[str]) -> torch.Tensor:
    """Gradient of the row's summed loss by autograd."""
    weights = [language.model.get_submodule(name).weight for name in names]
    for weight in weights:
        weight.requires_grad_(requires_grad=True)
    logits = language.model(input_ids=torch.tensor([row.ids[:-1]])).logits[0, row.start - 1 :]
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor(row.ids[row.start :]), reduction="sum")
    found = torch.autograd.grad(loss, weights)
    for weight in weights:
        weight.requires_grad_(requires_grad=False)
    return torch.cat([one.flatten() for one in found])


def test_adjoints() -> None:
    """The linear map is found; where the true map is gated by the states, the gated one fits better."""
    generator = torch.Generator().manual_seed(1)
    states, errors = (torch.randn(400, 8, generator=generator) for _ in range(2))
    weights = torch.randn(8, 8, generator=generator)
    linear = fit_linear(states, errors @ weights, errors)
    torch.testing.assert_close(linear(states, errors), errors @ weights, rtol=0.1, atol=0.2)
    gated_signals = errors @ weights * (1 + torch.tanh(2 * states[:, :1]))

    def miss(adjoint: Any) -> float:
        return float((adjoint(states, errors) - gated_signals).square().mean())

    assert miss(fit_gated(states, gated_signals, errors)) < 0.5 * miss(
        fit_linear(states, gated_signals, errors)
    )


def test_judge_scores() -> None:
    """Scores that add up to the effects agree wholly; with the sign turned, wholly not."""
    generator = np.random.default_rng(2)
    scores = generator.normal(size=(5, 12)).astype(np.float32)
    membership = np.repeat(np.eye(4, dtype=np.float32), 3, axis=1)
    effects = (scores @ membership.T).astype(np.float64)
    found = judge_scores(scores, membership, effects)
    assert found["spearman"] == pytest.approx(1.0)
    assert found["pooled"] == pytest.approx(1.0, abs=1e-6)
    assert judge_scores(-scores, membership, effects)["spearman"] == pytest.approx(-1.0)


def test_measured_effects(tmp_path) -> None:
    """A positive effect is a loss that rose without the group; a folder of another plan is refused."""
    plan = RefitPlan(rows_of(4), rows_of(1), ["a", "b", "c", "d"])
    assert missing_runs(plan, tmp_path) == [ALL_ROWS, "a", "b", "c", "d"]
    for name, loss in ((ALL_ROWS, 1.0), ("a", 1.5), ("b", 0.75), ("d", 1.0)):
        np.savez(tmp_path / f"run-{name}.npz", losses=np.array([loss], dtype=np.float32), seconds=2.0)
    names, effects, seconds = measured_effects(plan, tmp_path)
    assert names == ["a", "b", "d"]
    assert effects.tolist() == [[0.5, -0.25, 0.0]]
    assert seconds == 2.0
    with pytest.raises(ConfigurationError, match="other rows"):
        missing_runs(RefitPlan(rows_of(3), rows_of(1), ["a", "b", "c"]), tmp_path)
