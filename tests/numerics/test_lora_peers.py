"""Methods on LoRA gradients, as written for the comparison on the deep bank, against loops over autograd gradients and the papers' own formulas."""

import functools
import tempfile
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks.deep_bank.material import RECIPE
from benchmarks.peers.deep.gradients import cosines, datainf, fisher, gradients_of, products_of, total_of
from benchmarks.peers.deep.less import Moments, checkpoints, step_cosines
from benchmarks.peers.deep.rept import signatures
from benchmarks.peers.deep.subject import AdapterSubject, beside, lora_linears
from tests.numerics.tolerances import FLOAT32
from tests.tiny import micro_config, random_row, write_adapter, write_micro_model
from wherefrom.attribution.ekfac.gradients import LinearTaps
from wherefrom.attribution.models.adapted import AdapterReader
from wherefrom.attribution.models.files import ModelFolders
from wherefrom.attribution.models.lora import read_lora
from wherefrom.attribution.models.model import LanguageModel, load_model
from wherefrom.attribution.models.render import TokenRow

ROWS = [random_row(3 + 2 * (step % 4), 2 + 3 * (step % 5), seed=step) for step in range(7)]
QUERIES = [random_row(4, 6, seed=50), random_row(9, 3, seed=51)]
#: Sums over gradients in another order: error allowed as a share of the largest value.
SHARE = 2e-4


@functools.cache
def _kept() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="wherefrom-tests-")


@functools.cache
def folders() -> ModelFolders:
    """Two narrow blocks with random weights, and an adapter of two kinds of layers."""
    folder = Path(_kept().name)
    config = micro_config(hidden_size=16, intermediate_size=24, num_hidden_layers=2)
    model = write_micro_model(folder / "model", config)
    return ModelFolders(
        model, write_adapter(folder / "adapter", model, target_modules=["v_proj", "down_proj"])
    )


@functools.cache
def language(strength: float = 1.0) -> LanguageModel:
    """The model with its adapter beside the weights."""
    return beside(folders(), strength)


@functools.cache
def taps() -> LinearTaps:
    """A and B of every adapted layer."""
    return LinearTaps(language(), lora_linears(language()))


def loss_of(model: LanguageModel, row: TokenRow) -> Tensor:
    """Summed loss of one row's completion."""
    logits = model.model(input_ids=torch.tensor([row.ids])).logits[0]
    loss = torch.zeros(())
    for step in range(len(row.explained)):
        place = row.start + step
        loss = loss - torch.log_softmax(logits[place - 1], dim=-1)[row.ids[place]]
    return loss


@functools.cache
def by_autograd(row: TokenRow) -> dict[str, Tensor]:
    """Gradient of one row alone at every matrix, flat."""
    weights = {name: language().model.get_submodule(name).weight for name in taps().names}
    for weight in weights.values():
        weight.requires_grad_(True)
    found = torch.autograd.grad(loss_of(language(), row), list(weights.values()))
    for weight in weights.values():
        weight.requires_grad_(False)
    return {name: one.flatten() for name, one in zip(weights, found, strict=True)}


def close(found: Tensor, expected: Tensor) -> None:
    """Equal up to the order of sums."""
    torch.testing.assert_close(found, expected, rtol=0, atol=SHARE * float(expected.abs().max()))


def test_the_adapter_beside_the_weights_is_the_audited_model() -> None:
    """At strength 1 it computes what the merged model does; at .5 it is the point that the form `adapter` reads; A and B are found in every adapted layer."""
    merged = load_model(folders().model, folders().adapter)
    adapted = read_lora(merged.model, folders().adapter or Path())
    assert len(taps().names) == 2 * len(adapted) == 8
    for strength in (1.0, 0.5):
        reader = AdapterReader(merged, adapted, similarity_layer=1, strength=strength)
        expected = reader.read(ROWS).loss
        found = [loss_of(language(strength), row) / row.explained_tokens for row in ROWS]
        torch.testing.assert_close(torch.stack(found), expected, **FLOAT32)


def test_gradients_are_those_of_each_row_alone() -> None:
    """At A and at B, whatever rows share a batch."""
    found = gradients_of(taps(), ROWS)
    for name in taps().names:
        close(found[name], torch.stack([by_autograd(row)[name] for row in ROWS]))


def test_scores_are_the_papers_formulas() -> None:
    """Products and cosines over all matrices; DataInf by its authors' loop over training examples, for any damping."""
    found = products_of(gradients_of(taps(), QUERIES), gradients_of(taps(), ROWS))
    flat = [
        torch.stack([torch.cat(list(by_autograd(row).values())) for row in rows]) for rows in (QUERIES, ROWS)
    ]
    close(total_of(found).float(), flat[0] @ flat[1].T)
    close(cosines(found), torch.nn.functional.cosine_similarity(flat[0][:, None], flat[1][None], dim=2))
    for damping in (0.1, 10.0):
        close(
            datainf(found, damping), torch.tensor([[_datainf(q, z, damping) for z in ROWS] for q in QUERIES])
        )


def test_the_fisher_matrix_is_inverted_as_a_whole() -> None:
    """Against dense matrices in float64, for any damping."""
    found = products_of(gradients_of(taps(), QUERIES), gradients_of(taps(), ROWS))
    for damping in (0.01, 1.0):
        expected = torch.zeros(len(QUERIES), len(ROWS), dtype=torch.float64)
        for name in taps().names:
            asked, held = (
                torch.stack([by_autograd(row)[name].double() for row in rows]) for rows in (QUERIES, ROWS)
            )
            dense = held.T @ held / len(held)
            dense += damping * float(held.square().sum(dim=1).mean()) * torch.eye(len(dense))
            expected += asked @ torch.linalg.solve(dense, held.T)
        close(fisher(found, damping), expected.float())


def _datainf(query: TokenRow, row: TokenRow, damping: float) -> float:
    total = 0.0
    for name in taps().names:
        asked, held = by_autograd(query)[name], by_autograd(row)[name]
        each = [by_autograd(one)[name] for one in ROWS]
        ridge = damping * float(torch.stack([one.square().mean() for one in each]).mean())
        inverse = torch.zeros_like(asked)
        for one in each:
            share = (asked @ one) / (ridge + one @ one)
            inverse += (asked - share * one) / (len(each) * ridge)
        total += float(inverse @ held)
    return total


def test_less_compares_queries_with_steps_of_adam() -> None:
    """Cosines over all matrices with Adam's direction for each row's mean loss."""
    drawn = torch.Generator().manual_seed(3)
    moments = {
        name: Moments(torch.randn(one.shape, generator=drawn), torch.rand(one.shape, generator=drawn))
        for name, one in ((name, language().model.get_submodule(name).weight) for name in taps().names)
    }
    found = step_cosines(taps(), ROWS, moments, gradients_of(taps(), QUERIES))
    first, second = RECIPE.betas
    for place, row in enumerate(ROWS):
        steps = []
        for name in taps().names:
            gradient = by_autograd(row)[name] / row.explained_tokens
            mean = first * moments[name].mean.flatten() + (1 - first) * gradient
            square = second * moments[name].square.flatten() + (1 - second) * gradient**2
            steps.append(mean / torch.sqrt(square + RECIPE.epsilon))
        step = torch.cat(steps)
        for asked, query in enumerate(QUERIES):
            gradient = torch.cat(list(by_autograd(query).values()))
            expected = torch.nn.functional.cosine_similarity(gradient, step, dim=0)
            assert float(found[asked, place]) == pytest.approx(float(expected), abs=1e-5)


def test_less_reads_the_ends_of_the_epochs() -> None:
    """As often as there are epochs, each with the mean learning rate since the last; the last state is the trained model's."""
    rows = (*ROWS, *QUERIES, *ROWS[:3])
    subject = AdapterSubject(
        ModelFolders(folders().model), Path(_kept().name), (), (), rows, tuple(QUERIES), (), strength=1.0
    )
    rates, moved = [], []
    for one in checkpoints(subject, RECIPE):
        rates.append(one.rate)
        moved.append(
            float(one.language.model.get_submodule(lora_linears(one.language)[1]).weight.abs().sum())
        )
        assert set(one.moments) == set(lora_linears(one.language))
        assert all((part.square >= 0).all() and part.square.any() for part in one.moments.values())
    steps = RECIPE.steps(len(rows))
    expected = [RECIPE.learning_rate * RECIPE.factor(step, steps) for step in range(steps)]
    each = steps // RECIPE.epochs
    assert rates == pytest.approx(
        [sum(expected[each * k : each * (k + 1)]) / each for k in range(RECIPE.epochs)]
    )
    assert len(set(moved)) == RECIPE.epochs


def test_a_signature_is_read_at_the_prompts_last_token() -> None:
    """Hidden state and gradient of the mean loss there, at every layer, one row at a time."""
    found = signatures(language(), tuple(ROWS))
    for place, row in enumerate(ROWS):
        inputs = language().model.get_input_embeddings()(torch.tensor([row.ids])).detach().requires_grad_()
        read = language().model(inputs_embeds=inputs, output_hidden_states=True)
        logits = torch.log_softmax(read.logits[0, row.start - 1 : -1], dim=-1)
        loss = -logits.gather(1, torch.tensor(row.ids[row.start :])[:, None]).mean()
        gradients = torch.autograd.grad(loss, read.hidden_states)
        last = row.start - 1
        close(found.states[place], torch.stack([one[0, last].detach() for one in read.hidden_states]))
        close(found.gradients[place], torch.stack([one[0, last] for one in gradients]))


def test_published_and_balanced_signatures() -> None:
    """Cosines of the halves laid end to end; balanced, both count the same."""
    found = signatures(language(), tuple(ROWS))
    whole, halves = found.at(1, balanced=False), found.at(1, balanced=True)
    expected = torch.cat([found.states[:, 1], found.gradients[:, 1]], dim=1)
    close(whole, torch.nn.functional.normalize(expected, dim=1))
    width = found.states.shape[2]
    torch.testing.assert_close(halves[:, :width].norm(dim=1), halves[:, width:].norm(dim=1), **FLOAT32)
    assert 1 <= found.transition() < language().layers + 1
