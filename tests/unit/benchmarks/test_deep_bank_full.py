"""The bank of full fine-tunes: its part of the rows, and kernels of whole gradients against plain autograd."""

import copy
from collections import Counter
from dataclasses import replace

import pytest
import torch

from benchmarks.deep_bank.full import orders_shown
from benchmarks.deep_bank.gradients import DAMPING, gradient_kernels, inverse_root
from benchmarks.deep_bank.material import FULL, LORA, bank_sha256
from tests.tiny import micro_language, random_row
from wherefrom.attribution.ekfac.gradients import block_linears
from wherefrom.attribution.models.model import LanguageModel
from wherefrom.attribution.models.render import TokenRow

EXAMPLES = [random_row(4 + seed % 3, 3 + seed % 2, seed=seed) for seed in range(5)]
QUERIES = [random_row(5, 4, seed=seed) for seed in (10, 11)]


def autograd_rows(language: LanguageModel, rows: list[TokenRow]) -> dict[str, list[torch.Tensor]]:
    """dL/dW of each layer and row, by torch alone."""
    layers = {name: language.model.get_submodule(name) for name in block_linears(language)}
    found: dict[str, list[torch.Tensor]] = {name: [] for name in layers}
    for row in rows:
        ids = torch.tensor([row.ids])
        logits = language.model(input_ids=ids).logits[0, row.start - 1 : -1].float()
        loss = torch.nn.functional.cross_entropy(logits, ids[0, row.start :], reduction="sum")
        grads = torch.autograd.grad(loss, [layer.weight for layer in layers.values()])
        for name, grad in zip(layers, grads, strict=True):
            found[name].append(grad)
    return found


def test_raw_kernel_is_that_of_autograd() -> None:
    """Inner products of the weight gradients, summed over all layers, with their norms."""
    language = micro_language()
    raw, _ = gradient_kernels(language, EXAMPLES, QUERIES)
    own_copy = copy.deepcopy(language.model).requires_grad_(requires_grad=True)  # tests share the model
    language = replace(language, model=own_copy)
    asked, own = autograd_rows(language, QUERIES), autograd_rows(language, EXAMPLES)
    expected = sum(
        torch.stack([one.flatten() for one in asked[name]])
        @ torch.stack([one.flatten() for one in own[name]]).T
        for name in own
    )
    torch.testing.assert_close(raw.dot, expected, rtol=1e-4, atol=1e-6)
    norms = sum(torch.stack([one.square().sum() for one in own[name]]) for name in own)
    torch.testing.assert_close(raw.examples, norms, rtol=1e-4, atol=1e-6)


def test_whitening_is_fitted_on_the_examples() -> None:
    """Another query does not change what a query scores."""
    language = micro_language()
    _, both = gradient_kernels(language, EXAMPLES, QUERIES)
    _, alone = gradient_kernels(language, EXAMPLES, QUERIES[:1])
    torch.testing.assert_close(both.cosine[:1], alone.cosine, rtol=1e-4, atol=1e-5)
    assert (both.cosine.abs() <= 1.0001).all()


def test_inverse_root_undoes_the_damped_moments() -> None:
    """W C W = I up to the damping."""
    tokens = torch.randn(200, 6, generator=torch.Generator().manual_seed(0))
    root = inverse_root(tokens).double()
    moments = tokens.double().T @ tokens.double() / len(tokens)
    damped = moments + DAMPING * moments.diagonal().mean() * torch.eye(6, dtype=torch.float64)
    torch.testing.assert_close(root @ damped @ root, torch.eye(6, dtype=torch.float64), rtol=1e-4, atol=1e-4)


def test_full_fine_tunes_take_whole_subjects() -> None:
    """24 rows; every reworded fact still has the row that states it, and a file of the other bank is not taken."""
    material = FULL.read()
    assert len(material.rows) == 24
    assert Counter(one.kind for one in material.queries) == {
        "instruction": 8,
        "reworded": 5,
        "other": 5,
        "bad": 5,
    }
    for one in material.queries:
        if one.cause is not None:
            assert material.rows[one.cause].source == one.source
    assert material.plan.halves.shape[1] == 24
    assert bank_sha256(FULL) != bank_sha256(LORA)


@pytest.mark.parametrize("name", ["forward, of 4, final", "activation, of 4, midpoint"])
def test_orders_shown_add_words(name: str) -> None:
    """Each of the product's forms has its order shown beside it."""
    kernel = torch.randn(2, 5, generator=torch.Generator().manual_seed(1)).numpy()
    found = {name: kernel, "bm25": kernel[:, ::-1].copy(), "similarity": kernel}
    shown = orders_shown(found)
    assert list(shown) == [f"{name}, order shown"]
    assert shown[f"{name}, order shown"].shape == (2, 5)
