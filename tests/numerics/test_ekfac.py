"""EK-FAC against per-example autograd gradients and explicit Kronecker products; nothing depends on batch, padding or order."""

import dataclasses
import functools
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor

from tests.numerics.tolerances import FLOAT32
from tests.tiny import VOCABULARY, micro_config, quiet, random_row, write_micro_model
from wherefrom.attribution.ekfac import factors as fitting
from wherefrom.attribution.ekfac.factors import DAMPING, EkfacFactors, fit_ekfac
from wherefrom.attribution.ekfac.gradients import LinearTaps, block_linears
from wherefrom.attribution.ekfac.scores import EkfacScorer, EkfacScores, build_ekfac
from wherefrom.attribution.models.model import LanguageModel, load_model
from wherefrom.attribution.models.render import TokenRow
from wherefrom.errors import BundleCorrupt, BundleMismatch, ConfigurationError, UnusableModel

#: Twelve examples of unequal lengths; one explains some of its tokens only.
ROWS = [random_row(3 + 2 * (step % 4), 2 + 3 * (step % 5), seed=step) for step in range(11)] + [
    TokenRow((*range(20, 34),), 6, (True, False, True, True, False, False, True, False), truncated=True)
]
QUERIES = [random_row(4, 6, seed=50), random_row(9, 3, seed=51), ROWS[2]]
#: float32 eigenbases and sums against float64 ones: error allowed as a share of the largest value.
SHARE = 2e-4

SHAPES: dict[str, Callable[[], "transformers.PreTrainedConfig"]] = {
    "llama": lambda: micro_config(hidden_size=16, intermediate_size=24, num_hidden_layers=2),
    "biases in three layers": lambda: transformers.Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        eos_token_id=1,
    ),
    "convolutions with biases": lambda: transformers.GPT2Config(
        vocab_size=VOCABULARY, n_embd=12, n_layer=2, n_head=2, n_positions=64, eos_token_id=1, bos_token_id=1
    ),
}


@functools.cache
def language(shape: str = "llama") -> LanguageModel:
    """A model of two narrow blocks with random weights."""
    with tempfile.TemporaryDirectory() as folder:
        return load_model(write_micro_model(Path(folder) / "model", SHAPES[shape]()))


@functools.cache
def factors(shape: str = "llama") -> EkfacFactors:
    """Factors of that model on the rows."""
    return fit_ekfac(language(shape), ROWS, progress=quiet)


@functools.cache
def oracle_gradients(shape: str, row: TokenRow) -> dict[str, Tensor]:
    """The gradient of one row's summed loss for each layer, `[O, I]` float64, by autograd over the weights."""
    model = language(shape).model
    layers = {name: model.get_submodule(name) for name in block_linears(language(shape))}
    weights = [weight for layer in layers.values() for weight in layer.parameters()]
    for weight in weights:
        weight.requires_grad_(requires_grad=True)
    logits = model(input_ids=torch.tensor([row.ids[:-1]]), use_cache=False).logits[0]
    loss = torch.zeros(())
    for step, explained in enumerate(row.explained):
        if explained:
            position = row.start + step
            loss = loss - torch.log_softmax(logits[position - 1], dim=0)[row.ids[position]]
    found = iter(torch.autograd.grad(loss, weights))
    gradients = {}
    for name, layer in layers.items():
        parts = [
            (next(found), other.dim()) for other in layer.parameters()
        ]  # a layer's weight comes before its bias
        block = parts[0][0].T if isinstance(layer, transformers.pytorch_utils.Conv1D) else parts[0][0]
        gradients[name] = torch.cat([block] + [bias[:, None] for bias, _ in parts[1:]], dim=1).double()
    for weight in weights:
        weight.requires_grad_(requires_grad=False)
    return gradients


@functools.cache
def oracle_moments(shape: str) -> dict[str, tuple[Tensor, Tensor]]:
    """A and S of each layer in float64, one row and one token at a time."""
    sums: dict[str, list[Any]] = {}

    def visit(name: str, x: Tensor, g: Tensor, _mask: Tensor) -> None:
        entry = sums.setdefault(name, [0.0, 0.0, 0])
        for held, wrong in zip(x[0].double(), g[0].double(), strict=True):
            entry[0] = entry[0] + torch.outer(held, held)
            entry[1] = entry[1] + torch.outer(wrong, wrong)
            entry[2] += 1

    taps = LinearTaps(language(shape))
    for row in ROWS:
        taps.run([row], visit, names=taps.names, draw=None)
    return {name: (a / count, s / count) for name, (a, s, count) in sums.items()}


@functools.cache
def oracle_curvature(shape: str) -> dict[str, Tensor]:
    """H + damping of each layer as an explicit matrix `[O I, O I]`, built from Kronecker products."""
    curvature = {}
    for name, (a, s) in oracle_moments(shape).items():
        basis = torch.kron(torch.linalg.eigh(s)[1], torch.linalg.eigh(a)[1])  # columns: vec of Q_S,i Q_A,j'
        eigenvalues = torch.zeros(len(basis), dtype=torch.float64)
        for row in ROWS:
            eigenvalues += (basis.T @ oracle_gradients(shape, row)[name].flatten()) ** 2
        eigenvalues /= len(ROWS)
        curvature[name] = basis @ torch.diag(eigenvalues + DAMPING * eigenvalues.mean()) @ basis.T
    return curvature


def oracle_scores(shape: str) -> EkfacScores:
    """g_q' (H + lambda)^-1 g_z of every pair, by solving linear systems."""
    dot = torch.zeros(len(QUERIES), len(ROWS), dtype=torch.float64)
    of_queries, of_rows = (
        torch.zeros(len(QUERIES), dtype=torch.float64),
        torch.zeros(len(ROWS), dtype=torch.float64),
    )
    for name, matrix in oracle_curvature(shape).items():
        asked = torch.stack([oracle_gradients(shape, row)[name].flatten() for row in QUERIES])
        known = torch.stack([oracle_gradients(shape, row)[name].flatten() for row in ROWS])
        dot += asked @ torch.linalg.solve(matrix, known.T)
        of_queries += (asked * torch.linalg.solve(matrix, asked.T).T).sum(dim=1)
        of_rows += (known * torch.linalg.solve(matrix, known.T).T).sum(dim=1)
    return EkfacScores(dot, of_queries.sqrt(), of_rows.sqrt())


def assert_near(found: Tensor, expected: Tensor, share: float = SHARE) -> None:
    """Every entry is within a share of the largest one."""
    assert found.shape == expected.shape
    error = (found.double() - expected.double()).abs().max() / expected.abs().max()
    assert float(error) < share, f"off by {float(error):.1e} of the largest value"


@pytest.mark.parametrize("shape", SHAPES)
def test_tapped_gradients_equal_autograd(shape: str) -> None:
    """sum_t g_t x_t' of every row of a padded batch is the row's own weight (and bias) gradient."""
    taps, found = LinearTaps(language(shape)), {}

    def visit(name: str, x: Tensor, g: Tensor, _mask: Tensor) -> None:
        found[name] = torch.einsum("bto,bti->boi", g, x)

    taps.run(ROWS, visit, names=taps.names, draw=None)
    assert set(found) == set(oracle_gradients(shape, ROWS[0]))
    for index, row in enumerate(ROWS):
        for name, gradient in oracle_gradients(shape, row).items():
            assert_near(found[name][index], gradient)


@pytest.mark.parametrize("shape", SHAPES)
def test_scores_equal_explicit_kronecker_algebra(shape: str) -> None:
    """Dot products and norms are those of solving with the explicit matrix."""
    found, expected = (
        EkfacScorer(language(shape), factors(shape)).scores(QUERIES, ROWS),
        oracle_scores(shape),
    )
    assert_near(found.dot, expected.dot)
    assert_near(found.norms, expected.norms)
    assert_near(found.query_norms, expected.query_norms)
    assert_near(found.cosine, expected.cosine)
    assert_near(found.cosine, found.dot / torch.outer(found.query_norms, found.norms))


def test_eigenvalues_are_mean_squares() -> None:
    """The trace of the curvature is the mean squared gradient norm, and A and S are diagonal in the bases."""
    for name, layer in factors().layers.items():
        squares = [oracle_gradients("llama", row)[name].square().sum() for row in ROWS]
        assert float(layer.eigenvalues.sum()) == pytest.approx(float(torch.stack(squares).mean()), rel=1e-4)
        for basis, moments in zip((layer.q_a, layer.q_s), oracle_moments("llama")[name], strict=True):
            turned = basis.double().T @ moments @ basis.double()
            assert_near(turned, torch.diag(turned.diagonal()))
    assert factors().facts.tokens == sum(len(row.ids) - 1 for row in ROWS)
    assert factors().parameters == sum(
        language().model.get_submodule(name).weight.numel() for name in block_linears(language())
    )


def test_both_orders_of_rotation_agree() -> None:
    """Rotating tokens or rotating their gradient is the same; short and long rows take different ways."""
    layer = next(iter(factors().layers.values()))
    for width in (2, 400):
        x, g = torch.randn(3, width, len(layer.q_a)), torch.randn(3, width, len(layer.q_s))
        expected = layer.q_s.T @ torch.einsum("bto,bti->boi", g, x) @ layer.q_a
        torch.testing.assert_close(layer.rotate(x, g), expected, rtol=1e-3, atol=1e-3)


def test_batches_and_order_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """One row per pass or all in one, in any order: the same factors' scores and the same scores."""
    together = EkfacScorer(language(), factors()).scores(QUERIES, ROWS)
    monkeypatch.setattr(fitting, "BATCH_TOKENS", 1)
    alone = EkfacScorer(language(), factors()).scores(QUERIES, ROWS)
    assert_near(alone.dot, together.dot, 1e-5)
    order = [7, 0, 11, 3, 1, 2, 10, 9, 8, 4, 6, 5]
    refitted = fit_ekfac(language(), [ROWS[index] for index in order], progress=quiet)
    moved = EkfacScorer(language(), refitted).scores(QUERIES[::-1], [ROWS[index] for index in order])
    assert_near(moved.dot, together.dot[torch.tensor([2, 1, 0])][:, order])
    assert_near(moved.norms, together.norms[order])


def test_turns_do_not_matter() -> None:
    """With memory for one layer at a time, the scores are the same."""
    wide, narrow = (
        EkfacScorer(language(), factors(), memory_bytes=size).scores(QUERIES, ROWS) for size in (1 << 30, 1)
    )
    torch.testing.assert_close(narrow.dot, wide.dot, **FLOAT32)
    torch.testing.assert_close(narrow.norms, wide.norms, **FLOAT32)


def test_layers_add_up() -> None:
    """The scores are the sums of the layers' own, and layers can be chosen."""
    scorer = EkfacScorer(language(), factors())
    parts = scorer.layer_scores(QUERIES, ROWS)
    assert list(parts) == list(block_linears(language()))
    assert_near(
        torch.stack([part.dot for part in parts.values()]).sum(dim=0), scorer.scores(QUERIES, ROWS).dot
    )
    chosen = [name for name in parts if name.endswith("mlp.down_proj")]
    some = fit_ekfac(language(), ROWS, modules=chosen, progress=quiet)
    assert 0 < some.facts.coverage < factors().facts.coverage < 1
    assert_near(
        EkfacScorer(language(), some).scores(QUERIES, ROWS).dot,
        torch.stack([parts[name].dot for name in chosen]).sum(dim=0),
    )


def test_stored_norms_give_the_same_scores() -> None:
    """The cheap path for an audit's candidates agrees with the full one."""
    full = EkfacScorer(language(), factors()).scores(QUERIES, ROWS)
    scorer = EkfacScorer(language(), factors().with_norms(full.norms, DAMPING))
    torch.testing.assert_close(scorer.norms(ROWS), full.norms, **FLOAT32)
    numbers = np.array([3, 9, 4, 5])
    cheap = scorer.stored_scores(QUERIES, [ROWS[number] for number in numbers], numbers)
    assert_near(cheap.dot, full.dot[:, numbers])
    assert_near(cheap.cosine, full.cosine[:, numbers])
    with pytest.raises(ConfigurationError, match="no norms"):
        EkfacScorer(language(), factors()).stored_scores(QUERIES, ROWS, np.arange(12))
    with pytest.raises(ConfigurationError, match="no norms at damping 1"):
        EkfacScorer(language(), factors().with_norms(full.norms, DAMPING), damping=1.0).stored_scores(
            QUERIES, ROWS, np.arange(12)
        )


def test_a_copy_of_the_query_is_its_best_proponent() -> None:
    """Sign rule: cosine 1 with itself, dot the squared norm, and nothing scores higher."""
    found = EkfacScorer(language(), factors()).scores(QUERIES, ROWS)
    assert int(found.cosine[2].argmax()) == 2
    assert float(found.cosine[2, 2]) == pytest.approx(1.0, abs=1e-5)
    assert float(found.dot[2, 2]) == pytest.approx(float(found.query_norms[2]) ** 2, rel=1e-4)
    assert float(found.cosine.abs().max()) <= 1 + 1e-5


def test_more_weight_on_a_proponent_lowers_the_loss() -> None:
    """Sign rule, measured: a step on a training example moves the query's loss against the sign of their dot product."""
    model = language().model
    query, gradients = QUERIES[0], [oracle_gradients("llama", row) for row in ROWS]

    def loss() -> float:
        logits = model(input_ids=torch.tensor([query.ids[:-1]]), use_cache=False).logits[0, query.start - 1 :]
        targets = torch.tensor(query.ids[query.start :])
        return float(torch.nn.functional.cross_entropy(logits.double(), targets, reduction="sum"))

    before, dots, changes = loss(), EkfacScorer(language(), factors()).scores([query], ROWS).dot[0], []
    for gradient in gradients:
        steps = {}
        for name, matrix in oracle_curvature("llama").items():
            step = torch.linalg.solve(matrix, gradient[name].flatten()).view_as(gradient[name])
            steps[name] = 2e-4 * step.float()
            model.get_submodule(name).weight.data -= steps[name]
        changes.append(loss() - before)
        for name, step in steps.items():
            model.get_submodule(name).weight.data += step
    strong = dots.abs() > 0.2 * dots.abs().max()
    assert int(strong.sum()) >= 3
    assert torch.equal(torch.tensor(changes)[strong] < 0, dots[strong] > 0)


def test_sampled_labels_differ_and_repeat() -> None:
    """Labels drawn from the model give other factors, the same ones every time and in any batch."""
    first = fit_ekfac(language(), ROWS, labels="sampled", progress=quiet)
    again = fit_ekfac(language(), ROWS, labels="sampled", progress=quiet)
    for name, layer in first.layers.items():
        assert torch.equal(layer.eigenvalues, again.layers[name].eigenvalues)
        ours = factors().layers[name].eigenvalues
        assert float((layer.eigenvalues - ours).abs().sum() / ours.sum()) > 0.1
    assert first.facts.labels == "sampled"


def test_round_trip(tmp_path: Path) -> None:
    """What is stored in a bundle gives the same scores, norms included."""
    built = build_ekfac(language(), ROWS, tmp_path, progress=quiet)
    read = EkfacFactors.load(tmp_path)
    assert read.facts == built.facts
    assert list(read.layers) == list(factors().layers)
    assert read.norms is not None
    one, other = (EkfacScorer(language(), each).scores(QUERIES, ROWS) for each in (read, factors()))
    assert_near(one.dot, other.dot, 1e-5)
    torch.testing.assert_close(read.norms, one.norms, **FLOAT32)


def test_broken_files_are_told(tmp_path: Path) -> None:
    """A missing file, a missing layer and unknown facts are told as a corrupt bundle."""
    with pytest.raises(BundleCorrupt, match="cannot be read"):
        EkfacFactors.load(tmp_path)
    factors().save(tmp_path)
    facts = json.loads((tmp_path / "ekfac.json").read_text(encoding="utf-8"))
    for change in ({"layers": ["nowhere"]}, {"colour": "red"}):
        (tmp_path / "ekfac.json").write_text(json.dumps(facts | change), encoding="utf-8")
        with pytest.raises(BundleCorrupt, match="cannot be read"):
            EkfacFactors.load(tmp_path)


def test_wrong_input_is_refused() -> None:
    """No rows, no such layer, no such labels, no damping, and factors of another model."""
    with pytest.raises(ConfigurationError, match="no rows"):
        fit_ekfac(language(), [], progress=quiet)
    with pytest.raises(ConfigurationError, match="no linear layer named"):
        fit_ekfac(language(), ROWS, modules=["model.norm"], progress=quiet)
    with pytest.raises(ConfigurationError, match="labels must be one of"):
        fit_ekfac(language(), ROWS, labels="guessed", progress=quiet)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(ConfigurationError, match="damping"):
        EkfacScorer(language(), factors(), damping=0.0)
    with pytest.raises(BundleMismatch, match="cover"):
        EkfacScorer(language("biases in three layers"), factors())


def test_layers_that_cannot_be_tapped_are_told() -> None:
    """A model without blocks of linear layers, and a layer that runs twice in a pass."""
    with pytest.raises(UnusableModel, match="no linear layers"):
        block_linears(dataclasses.replace(language(), layers=99))
    twice = load_shared_layer()
    with pytest.raises(UnusableModel, match="not applied once"):
        fit_ekfac(twice, ROWS, progress=quiet)


def load_shared_layer() -> LanguageModel:
    """A model whose second block uses the first one's output projection."""
    with tempfile.TemporaryDirectory() as folder:
        loaded = load_model(write_micro_model(Path(folder) / "model", SHAPES["llama"]()))
    blocks = loaded.model.model.layers
    blocks[1].mlp.down_proj = blocks[0].mlp.down_proj
    return loaded


def test_a_layer_without_gradients_has_no_influence() -> None:
    """Where no example has a gradient, nothing is divided by nothing."""
    layer = fitting.LayerFactors(torch.eye(3), torch.eye(2), torch.zeros(2, 3))
    assert torch.equal(layer.inverse(DAMPING), torch.zeros(2, 3))


def test_rows_of_one_token() -> None:
    """The shortest rows that can be explained score finitely."""
    rows = [random_row(1, 1), random_row(2, 1)]
    found = EkfacScorer(language(), factors()).scores(rows, rows)
    assert bool(torch.isfinite(found.cosine).all())
    assert float(found.cosine[0, 0]) == pytest.approx(1.0, abs=1e-5)


def test_mixtures_of_experts_are_refused() -> None:
    """Their experts are no linear layers: factors over attention alone would be called all layers."""
    config = transformers.MixtralConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=2,
        eos_token_id=1,
    )
    model = transformers.AutoModelForCausalLM.from_config(config)
    with pytest.raises(UnusableModel, match="mixture of experts"):
        block_linears(dataclasses.replace(language(), model=model))
