"""Gradients of A and s B at the final weights, against loops over autograd's own; their sketches, whitening and use in the order shown."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.numerics.test_adapted import KINDS, ROWS, _change_lengths
from tests.numerics.tolerances import FLOAT32
from tests.tiny import shared_micro_model, write_adapter
from wherefrom.attribution.gradient_sketch import FINAL_DAMPING, NUMBERS, FinalGradients, GradientSketch
from wherefrom.attribution.models import final_gradients
from wherefrom.attribution.models.final_gradients import FinalGradientReader
from wherefrom.attribution.models.lora import AdaptedLinear, read_lora
from wherefrom.attribution.models.model import LanguageModel, load_model
from wherefrom.attribution.models.render import TokenRow
from wherefrom.errors import BundleCorrupt

CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=["plain", "patterns", "wide", "dora"])
def adapter(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One adapter of each kind that is read."""
    folder = tmp_path_factory.mktemp(request.param) / "adapter"
    write_adapter(folder, shared_micro_model(), **KINDS[request.param])
    _change_lengths(folder)
    return folder


@pytest.fixture(scope="module")
def language(adapter: Path) -> LanguageModel:
    """The model with its adapter merged."""
    return load_model(shared_micro_model(), adapter)


def errors_and_inputs(language: LanguageModel, row: TokenRow) -> dict[str, tuple[Tensor, Tensor]]:
    """Each linear layer's input and the loss' gradient of its output at every token, by hooks over an unpadded row."""
    seen: dict[str, Tensor] = {}
    made: dict[str, Tensor] = {}

    def keep(name: str, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        output.retain_grad()
        seen[name], made[name] = inputs[0], output

    handles = [
        module.register_forward_hook(lambda _m, inputs, output, name=name: keep(name, inputs, output))
        for name, module in language.model.named_modules()
        if isinstance(module, torch.nn.Linear)
    ]
    ids = torch.tensor([row.ids])
    embeds = language.model.get_input_embeddings()(ids).detach().requires_grad_(requires_grad=True)
    logits = language.model(inputs_embeds=embeds).logits[0]
    flagged = [row.start + step for step, flag in enumerate(row.explained) if flag]
    loss = torch.nn.functional.cross_entropy(
        logits[[place - 1 for place in flagged]], ids[0, flagged], reduction="sum"
    )
    loss.backward()
    for handle in handles:
        handle.remove()
    return {
        name: (seen[name][0].detach(), made[name].grad[0])  # type: ignore[index]  # retained above
        for name in made
    }


def loop(
    language: LanguageModel, adapted: tuple[AdaptedLinear, ...], row: TokenRow, *, prompt_tokens: int | None
) -> Tensor:
    """Sketches `[M, D]` of one row, token by token over the whole row, those that do not count left out."""
    first = 0 if prompt_tokens is None else max(0, row.start - 1 - prompt_tokens)
    caught = errors_and_inputs(language, row)
    shapes = [
        shape
        for one in adapted
        for shape in ((one.rank, one.read_low.shape[1]), (len(one.read_high), one.rank))
    ]
    sketch, found = GradientSketch(shapes, CPU), []
    for place, one in enumerate(adapted):
        low, high = torch.zeros(shapes[2 * place]), torch.zeros(shapes[2 * place + 1])
        for seen, error in list(zip(*caught[one.name], strict=True))[first:]:
            moved = error if one.lengths is None else error * one.lengths
            low += torch.outer(one.read_high.T @ error, seen)
            high += torch.outer(moved, one.read_low @ seen)
        found += [sketch.of(2 * place, low[None])[0], sketch.of(2 * place + 1, high[None])[0]]
    return torch.stack(found)


@pytest.mark.parametrize("prompt_tokens", [None, 0, 2])
def test_sketches_are_those_of_a_loop(
    language: LanguageModel, adapter: Path, monkeypatch: pytest.MonkeyPatch, prompt_tokens: int | None
) -> None:
    """Padded batches, batches in parts and models without a split pass included; spans restrict the loss and not the positions."""
    adapted = read_lora(language.model, adapter)
    reader = FinalGradientReader(language, adapted, similarity_layer=1, prompt_tokens=prompt_tokens)
    expected = torch.stack([loop(language, reader.adapted, row, prompt_tokens=prompt_tokens) for row in ROWS])
    close = partial(torch.testing.assert_close, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    found = reader.sketches(ROWS)
    close(found, expected)
    assert reader.split_pass
    monkeypatch.setattr(final_gradients, "GRAPH_TOKENS", 8)
    torch.testing.assert_close(reader.sketches(ROWS), found, **FLOAT32)
    reader.split_pass = False
    close(reader.sketches(ROWS), expected)


def test_the_graph_holds_the_tokens_that_count(language: LanguageModel, adapter: Path) -> None:
    """A long prompt that rows share is run once and without gradients, so it costs no memory for the way back."""
    reader = FinalGradientReader(
        language, read_lora(language.model, adapter), similarity_layer=1, prompt_tokens=2
    )
    rows = [TokenRow((*range(40), last, 3, 4), 41, (True, True)) for last in (7, 8)]
    seen: list[tuple[bool, tuple[int, ...]]] = []
    layer = dict(language.model.named_modules())[reader.names[0]]
    handle = layer.register_forward_hook(
        lambda _m, inputs, _o: seen.append((torch.is_grad_enabled(), tuple(inputs[0].shape[:2])))
    )
    reader.sketches(rows)
    handle.remove()
    assert seen == [(False, (1, 38)), (True, (2, 4))]


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_the_gradients_are_those_of_the_trained_matrices(tmp_path):
    """With plain LoRA that is not merged, autograd's own gradients of A and B have the sketches (B's over the scale)."""
    peft = pytest.importorskip("peft")
    adapter = write_adapter(tmp_path / "adapter", shared_micro_model(), **KINDS["plain"])
    language = load_model(shared_micro_model(), adapter)
    adapted = read_lora(language.model, adapter)
    reader = FinalGradientReader(language, adapted, similarity_layer=1)
    base = load_model(shared_micro_model(), None)
    model = peft.PeftModel.from_pretrained(base.model, str(adapter), is_trainable=True)
    row = TokenRow(
        ROWS[0].ids, 1, (True,) * (len(ROWS[0].ids) - 1)
    )  # from the first token on, nothing before it pushes
    ids = torch.tensor([row.ids])
    logits = model(input_ids=ids).logits[0]
    torch.nn.functional.cross_entropy(logits[:-1], ids[0, 1:], reduction="sum").backward()
    gradients = {name: one.grad for name, one in model.named_parameters() if one.grad is not None}
    found = reader.sketches([row])[0]
    for place, one in enumerate(reader.adapted):
        stem = f"base_model.model.{one.name}.lora_"
        low, high = gradients[f"{stem}A.default.weight"], gradients[f"{stem}B.default.weight"]
        scale = one.high.norm() / dict(model.named_parameters())[f"{stem}B.default.weight"].norm()
        for number, matrix in ((2 * place, low), (2 * place + 1, high / scale)):
            expected = reader._sketch.of(number, matrix[None])[0]  # the drawn signs
            torch.testing.assert_close(found[number], expected.detach(), rtol=1e-3, atol=1e-6)


def test_inner_products_survive_the_sketch():
    """On average over many matrices; the same numbers every time."""
    random = torch.Generator().manual_seed(0)
    count = 400
    one, other = torch.randn(2, count, 16, 40, generator=random)
    other = 0.6 * one + 0.8 * other
    sketch = GradientSketch([(16, 40)] * count, CPU)
    pairs = [
        float(sketch.of(place, one[place][None])[0] @ sketch.of(place, other[place][None])[0])
        for place in range(count)
    ]
    assert np.mean(pairs) / 640 == pytest.approx(0.6, abs=0.02)
    assert np.std(pairs) / 640 == pytest.approx((1 + 0.36) ** 0.5 / NUMBERS**0.5, rel=0.15)
    first = GradientSketch([(1, 8)], CPU).of(0, torch.eye(8)[:, None])
    assert first.abs().argmax(dim=1).tolist() == FIRST_PLACES
    assert first.sum(dim=1).tolist() == FIRST_SIGNS


#: Where the first eight numbers of the first matrix go, and with which sign: bundles depend on it.
FIRST_PLACES = [0, 28, 53, 12, 84, 53, 6, 95]
FIRST_SIGNS = [-1.0, 1.0, -1.0, -1.0, 1.0, -1.0, -1.0, -1.0]


def test_stored_sketches_score_like_a_damped_fisher_matrix(tmp_path):
    """f(q) . f(z) with the whole empirical Fisher matrix of each, up to int8."""
    random = torch.Generator().manual_seed(1)
    rows, query = torch.randn(40, 3, NUMBERS, generator=random), torch.randn(1, 3, NUMBERS, generator=random)
    FinalGradients.write(tmp_path, lambda: rows.split(16), count=40)
    stored = FinalGradients.load(tmp_path, CPU)
    expected = torch.zeros(40)
    for place in range(3):
        own = rows[:, place].double()
        fisher = own.T @ own / 40
        damped = fisher + FINAL_DAMPING * fisher.trace() / NUMBERS * torch.eye(NUMBERS)
        expected += (own @ torch.linalg.solve(damped, query[0, place].double())).float()
    found = stored.scores(stored.whitened(query)[0], np.arange(40))
    torch.testing.assert_close(
        torch.from_numpy(found), expected, rtol=0.02, atol=0.05 * float(expected.std())
    )
    some = stored.scores(stored.whitened(query)[0], np.array([3, 1]))
    np.testing.assert_allclose(some, found[[3, 1]], rtol=1e-5)
    assert stored.bytes_per_example == 3 * (NUMBERS + 4)


def test_a_damaged_file_is_named(tmp_path):
    """As of every other part of a bundle."""
    FinalGradients.write(tmp_path, lambda: [torch.ones(2, 1, NUMBERS)], count=2)
    (tmp_path / "final.npy").write_bytes(b"no array")
    with pytest.raises(BundleCorrupt, match="final gradients"):
        FinalGradients.load(tmp_path, CPU)
