"""The form `adapter` against loops: what the adapter saw and should have said, half-way through the fine-tune."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.numerics.test_signals import architectures
from tests.numerics.tolerances import FLOAT32
from tests.tiny import (
    VOCABULARY,
    changed_json,
    micro_language,
    random_row,
    shared_micro_model,
    write_adapter,
    write_micro_model,
)
from wherefrom.attribution.models.adapted import AdapterReader
from wherefrom.attribution.models.lora import AdaptedLinear, leading, read_lora
from wherefrom.attribution.models.model import LanguageModel, load_model
from wherefrom.attribution.models.render import TokenRow
from wherefrom.attribution.models.trajectory import model_between
from wherefrom.errors import UnusableModel

ALL_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
KINDS: dict[str, dict[str, Any]] = {
    "plain": {"target_modules": ALL_LINEAR},
    "rslora": {"use_rslora": True},
    "patterns": {
        "target_modules": ALL_LINEAR,
        "rank_pattern": {"q_proj": 2, "down_proj": 6},
        "alpha_pattern": {"layers.1.self_attn.v_proj": 3},
    },
    "wide": {"r": 24},
    "dora": {"target_modules": ALL_LINEAR, "use_dora": True},
    "wide dora": {"r": 24, "use_dora": True},
}
ROWS = [
    TokenRow((5, 6, 7, 8, 9, 10), 3, (True, True, True)),
    TokenRow((5, 6, 11, 12), 2, (True, True)),
    TokenRow((9, 8, 7, 6, 20, 30, 31), 4, (True, False, True)),
]


@pytest.fixture(scope="module", params=KINDS)
def adapter(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One adapter of each kind that is read."""
    folder = tmp_path_factory.mktemp(request.param) / "adapter"
    write_adapter(folder, shared_micro_model(), **KINDS[request.param])
    _change_lengths(folder)
    return folder


def _change_lengths(adapter: Path) -> None:
    """As trained: a new DoRA adapter has the lengths that its weights have anyway."""
    stored = load_file(adapter / "adapter_model.safetensors")
    random = torch.Generator().manual_seed(6)
    for name, value in stored.items():
        if name.endswith("lora_magnitude_vector"):
            stored[name] = value * (0.7 + 0.6 * torch.rand(value.shape, generator=random))
    save_file(stored, adapter / "adapter_model.safetensors")


def loop(model: Any, adapted: tuple[AdaptedLinear, ...], row: TokenRow) -> list[tuple[Tensor, Tensor]]:
    """U and v of one row's completion tokens for each layer, by plain hooks and one backward pass of the explained tokens' loss over an unpadded row."""
    seen: dict[str, Tensor] = {}
    made: dict[str, Tensor] = {}
    modules = dict(model.named_modules())

    def hook(name: str) -> Callable[..., None]:
        def keep(_module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            output.retain_grad()
            seen[name], made[name] = inputs[0].detach()[0], output

        return keep

    handles = [modules[one.name].register_forward_hook(hook(one.name)) for one in adapted]
    embedded = (
        model.get_input_embeddings()(torch.tensor([row.ids])).detach().requires_grad_(requires_grad=True)
    )
    logits = model(inputs_embeds=embedded).logits[0]
    flagged = [place for place, flag in enumerate(row.explained) if flag]
    places = [row.start - 1 + place for place in flagged]
    targets = torch.tensor([row.ids[row.start + place] for place in flagged])
    torch.nn.functional.cross_entropy(logits[places], targets, reduction="sum").backward()
    for handle in handles:
        handle.remove()
    found = []
    for one in adapted:
        gradient = made[one.name].grad
        if gradient is None:
            raise AssertionError(f"{one.name} got no gradient")
        read = slice(row.start - 1, len(row.ids) - 1)
        found.append((seen[one.name][read] @ one.read_low.T, gradient[0][read] @ one.read_high))
    return found


def test_signals_equal_a_loop_over_the_halfway_model(adapter: Path) -> None:
    """Read off the audited model in a padded batch; the oracle makes the half-way model and goes row by row."""
    final = load_model(shared_micro_model(), adapter)
    adapted = read_lora(final.model, adapter)
    read = AdapterReader(final, adapted, similarity_layer=2).read(ROWS)
    halfway = model_between(micro_language(), final, 0.5)
    assert read.lengths == (3, 2, 3)
    for row, u, v in zip(ROWS, read.a.split(read.lengths), read.b.split(read.lengths), strict=True):
        for group, (expected_u, expected_v) in enumerate(loop(halfway.model, adapted, row)):
            rank = expected_u.shape[1]
            torch.testing.assert_close(u[:, group, :rank], expected_u, **FLOAT32)
            torch.testing.assert_close(v[:, group, :rank], expected_v, **FLOAT32)
            assert not u[:, group, rank:].any()


@pytest.mark.parametrize("split", [True, False])
def test_upper_blocks_alone_are_read_as_with_the_others(adapter: Path, *, split: bool) -> None:
    """The lower blocks are weakened too, but nothing is kept of them, and no graph is built in them."""
    final = load_model(shared_micro_model(), adapter)
    adapted = read_lora(final.model, adapter)
    whole = AdapterReader(final, adapted, similarity_layer=2)
    upper = AdapterReader(final, adapted, similarity_layer=2, first_block=1)
    whole.split_pass = upper.split_pass = split
    kept = [place for place, one in enumerate(adapted) if ".layers.0." not in one.name]
    assert 0 < len(kept) < len(adapted)
    assert upper.names == tuple(adapted[place].name for place in kept)
    with_graph: list[bool] = []
    watch = final.model.model.layers[0].register_forward_hook(
        lambda _module, _inputs, output: with_graph.append(
            (output[0] if isinstance(output, tuple) else output).requires_grad
        )
    )
    found = upper.read(ROWS)
    watch.remove()
    assert with_graph
    assert not any(with_graph)
    expected = whole.read(ROWS)
    width = max(upper.ranks)
    torch.testing.assert_close(found.a, expected.a[:, kept, :width], **FLOAT32)
    torch.testing.assert_close(found.b, expected.b[:, kept, :width], **FLOAT32)
    torch.testing.assert_close(found.loss, expected.loss, **FLOAT32)
    torch.testing.assert_close(found.pooled, expected.pooled, **FLOAT32)


def test_blocks_without_adapted_layers_are_refused(adapter: Path) -> None:
    """A bundle of another adapter would read nothing."""
    final = load_model(shared_micro_model(), adapter)
    with pytest.raises(UnusableModel, match="no layer from block 9 on"):
        AdapterReader(final, read_lora(final.model, adapter), similarity_layer=2, first_block=9)


def test_a_span_restricts_the_loss_and_not_the_tokens(adapter: Path) -> None:
    """Tokens before the span carry its loss through attention; those behind it have no error; the mean loss is the span's."""
    final = load_model(shared_micro_model(), adapter)
    reader = AdapterReader(final, read_lora(final.model, adapter), similarity_layer=2)
    whole = TokenRow((9, 8, 7, 6, 20, 30, 31), 2, (True,) * 5)
    span = dataclasses.replace(whole, explained=(False, False, True, True, False))
    everything, asked = reader.read([whole]), reader.read([span])
    assert asked.lengths == (5,)
    torch.testing.assert_close(asked.a, everything.a, **FLOAT32)
    strengths = asked.b.abs().amax(dim=(1, 2))
    assert (strengths[:4] > 1e-3 * strengths.max()).all()
    assert not asked.b[4].any()
    halfway = model_between(micro_language(), final, 0.5).model
    logits = halfway(torch.tensor([whole.ids])).logits[0]
    expected = torch.nn.functional.cross_entropy(logits[[3, 4]], torch.tensor([20, 30]))
    torch.testing.assert_close(asked.loss[0], expected, **FLOAT32)


def test_the_audited_model_is_left_as_it_was(adapter: Path) -> None:
    """Weights, hooks and answers of the model are the same after a reading."""
    final = load_model(shared_micro_model(), adapter)
    ids = torch.tensor([ROWS[0].ids])
    before = final.model(ids).logits
    adapted = read_lora(final.model, adapter)
    AdapterReader(final, adapted, similarity_layer=2).read(ROWS)
    assert torch.equal(final.model(ids).logits, before)
    assert not any(final.model.get_submodule(one.name)._forward_hooks for one in adapted)


def test_the_audited_model_is_left_as_it_was_by_a_reading_that_fails(adapter: Path) -> None:
    """An exception in the middle of the pass leaves no hook behind, so that the next answer is of the whole adapter."""
    final = load_model(shared_micro_model(), adapter)
    ids = torch.tensor([ROWS[0].ids])
    before = final.model(ids).logits
    adapted = read_lora(final.model, adapter)
    reader = AdapterReader(final, adapted, similarity_layer=2)
    failing = final.model.model.layers[1].mlp.register_forward_hook(_no_memory)
    with pytest.raises(RuntimeError, match="not enough memory"):
        reader.read(ROWS)
    failing.remove()
    assert torch.equal(final.model(ids).logits, before)
    assert not any(final.model.get_submodule(one.name)._forward_hooks for one in adapted)
    assert torch.isfinite(reader.read(ROWS).b).all()


def _no_memory(*_: Any) -> None:
    raise RuntimeError("not enough memory: you tried to allocate 1 bytes")


def test_strength_one_reads_the_audited_model(adapter: Path) -> None:
    """At strength 1 nothing is given back, at strength 0 the base model is read."""
    final = load_model(shared_micro_model(), adapter)
    adapted = read_lora(final.model, adapter)
    for strength, model in ((1.0, final.model), (0.0, micro_language().model)):
        read = AdapterReader(final, adapted, similarity_layer=2, strength=strength).read(ROWS[:1])
        for group, (u, v) in enumerate(loop(model, adapted, ROWS[0])):
            torch.testing.assert_close(read.a[:, group, : u.shape[1]], u, **FLOAT32)
            torch.testing.assert_close(read.b[:, group, : v.shape[1]], v, **FLOAT32)


def test_core_is_the_projected_gradient_where_a_and_b_are_orthonormal(tmp_path: Path) -> None:
    """sum_t v_t u_t' has the entries of B' G A' for the weight's full gradient G, so inner products are those of the projected gradients.

    A weight's gradient counts every position, so every token of these rows is explained but the first, which nothing predicts.
    """
    rows = [TokenRow((5, 6, 7, 8, 9), 1, (True,) * 4), TokenRow((5, 11, 12), 1, (True,) * 2)]
    adapter = write_adapter(tmp_path / "adapter", shared_micro_model(), r=4, lora_alpha=4)
    _orthonormal(adapter)
    final = load_model(shared_micro_model(), adapter)
    adapted = read_lora(final.model, adapter)
    read = AdapterReader(final, adapted, similarity_layer=2).read(rows)
    halfway = model_between(micro_language(), final, 0.5).model
    cores = [
        torch.einsum("tgi,tgj->gij", v, u)
        for u, v in zip(read.a.split(read.lengths), read.b.split(read.lengths), strict=True)
    ]
    for group, layer in enumerate(adapted):
        gradients = [_weight_gradient(halfway, layer.name, row) for row in rows]
        projected = [layer.high @ layer.high.T @ one @ layer.low.T @ layer.low for one in gradients]
        torch.testing.assert_close(cores[0][group], layer.high.T @ gradients[0] @ layer.low.T, **FLOAT32)
        expected = (projected[0] * projected[1]).sum()
        torch.testing.assert_close((cores[0][group] * cores[1][group]).sum(), expected, **FLOAT32)


def test_signals_do_not_depend_on_the_batch_or_the_pass(adapter: Path) -> None:
    """One row alone, in a batch, and by the plain pass gives the same signals."""
    final = load_model(shared_micro_model(), adapter)
    reader = AdapterReader(final, read_lora(final.model, adapter), similarity_layer=2)
    assert reader.split_pass
    rows = [*ROWS, random_row(9, 5, seed=3)]
    together = reader.read(rows)
    reader.split_pass = False
    alone = [reader.read([row]) for row in rows]
    for name in ("a", "b", "pooled", "loss"):
        expected = torch.cat([getattr(one, name) for one in alone])
        torch.testing.assert_close(getattr(together, name), expected, **FLOAT32)


def test_ranks_above_the_limit_keep_the_strongest_directions() -> None:
    """The 16 directions that are read hold the best approximation of s B A of that rank."""
    generator = torch.Generator().manual_seed(4)
    low, high = (torch.randn(shape, generator=generator) for shape in ((24, 40), (30, 24)))
    found = AdaptedLinear.of("one", low, high)
    left, strengths, right = torch.linalg.svd(high @ low, full_matrices=False)
    best = (left[:, :16] * strengths[:16]) @ right[:16]
    assert found.rank == 16
    torch.testing.assert_close(found.read_high @ found.read_low, best, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.high @ found.low, high @ low)
    exact = leading(low[:5], high[:, :5], rank=5)
    torch.testing.assert_close(exact[1] @ exact[0], high[:, :5] @ low[:5], rtol=1e-4, atol=1e-4)


def test_a_narrow_adapter_is_read_as_it_is() -> None:
    """Up to 16 directions nothing is turned."""
    low, high = torch.randn(16, 20), torch.randn(18, 16)
    found = AdaptedLinear.of("one", low, high)
    assert found.read_low is low
    assert found.read_high is high


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"peft_type": "IA3"}, "of kind IA3"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
    ],
)
def test_other_adapters_are_refused_with_a_word(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    """The error names what the adapter is, and the forms that do."""
    adapter = write_adapter(tmp_path / "adapter", shared_micro_model())
    changed_json(adapter / "adapter_config.json", changes)
    with pytest.raises(UnusableModel, match=rf"{words}; choose --form activation"):
        read_lora(micro_language().model, adapter)


@pytest.mark.parametrize(
    ("name", "kinds"), [("head", ["q_proj", "lm_head"]), ("embeddings", ["embed_tokens", "v_proj"])]
)
def test_adapted_heads_and_embeddings_are_refused(name: str, kinds: list[str], tmp_path: Path) -> None:
    """They have no place in the pass that is read; half of an adapter would explain half of the training."""
    adapter = write_adapter(tmp_path / "adapter", shared_micro_model(), target_modules=kinds)
    with pytest.raises(UnusableModel, match="the form `adapter` reads LoRA on linear layers"):
        read_lora(micro_language().model, adapter)


@pytest.mark.parametrize("name", ["qwen 2", "gpt-neox", "gemma 3 with a window", "llama, tied"])
def test_otherarchitectures(name: str) -> None:
    """Fused attention, tied heads, windows, scaled embeddings: the pass that the probe chose equals the loop."""
    torch.manual_seed(3)
    config = architectures()[name]
    model = transformers.AutoModelForCausalLM.from_config(config).eval().requires_grad_(requires_grad=False)
    language = dataclasses.replace(micro_language(), model=model)
    head = model.get_output_embeddings()
    adapted = tuple(
        AdaptedLinear.of(name, torch.randn(3, one.in_features), 0.1 * torch.randn(one.out_features, 3))
        for name, one in model.named_modules()
        if isinstance(one, torch.nn.Linear) and one is not head
    )
    rows = [random_row(4, 5), random_row(40, 7), random_row(20, 20)]
    read = AdapterReader(language, adapted, similarity_layer=2, strength=1.0).read(rows)
    for row, u, v in zip(rows, read.a.split(read.lengths), read.b.split(read.lengths), strict=True):
        for group, (expected_u, expected_v) in enumerate(loop(model, adapted, row)):
            torch.testing.assert_close(u[:, group], expected_u, rtol=1e-3, atol=1e-4)
            torch.testing.assert_close(v[:, group], expected_v, rtol=1e-3, atol=1e-4)


def test_layers_that_lie_the_other_way_round(tmp_path: Path) -> None:
    """GPT-2's layers keep their weights transposed (`fan_in_fan_out`): an adapter as PEFT writes it equals the loop over the half-way model."""
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=64,
        n_embd=32,
        n_layer=2,
        n_head=4,
        bos_token_id=None,
        eos_token_id=1,
    )
    base = write_micro_model(tmp_path / "gpt2", config)
    adapter = write_adapter(
        tmp_path / "lora", base, target_modules=["c_attn", "c_fc", "c_proj"], fan_in_fan_out=True
    )
    final = load_model(base, adapter)
    adapted = read_lora(final.model, adapter)
    assert len(adapted) == 8
    read = AdapterReader(final, adapted, similarity_layer=1).read(ROWS)
    halfway = model_between(load_model(base), final, 0.5).model
    for row, u, v in zip(ROWS, read.a.split(read.lengths), read.b.split(read.lengths), strict=True):
        for group, (expected_u, expected_v) in enumerate(loop(halfway, adapted, row)):
            torch.testing.assert_close(u[:, group], expected_u, **FLOAT32)
            torch.testing.assert_close(v[:, group], expected_v, **FLOAT32)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft's own use of transformers
def test_one_of_several_adapters(tmp_path: Path) -> None:
    """PEFT saves each named adapter into a folder of its own; the one that is named is read."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(7)
    model = transformers.AutoModelForCausalLM.from_pretrained(str(shared_micro_model()))
    first = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"], init_lora_weights=False)
    second = LoraConfig(task_type="CAUSAL_LM", r=3, target_modules=["v_proj"], init_lora_weights=False)
    several = get_peft_model(model, first, adapter_name="polite")
    several.add_adapter("rude", second)
    several.save_pretrained(str(tmp_path))
    for name, kind, rank in (("polite", "q_proj", 2), ("rude", "v_proj", 3)):
        final = load_model(shared_micro_model(), tmp_path / name)
        adapted = read_lora(final.model, tmp_path / name)
        assert [one.rank for one in adapted] == [rank] * 3
        assert all(one.name.endswith(kind) for one in adapted)


def test_an_adapter_of_another_model_is_refused(tmp_path: Path) -> None:
    """Layers that the model lacks are no reason to read half of it."""
    adapter = write_adapter(tmp_path / "adapter", shared_micro_model())
    file = adapter / "adapter_model.safetensors"
    tensors = {name.replace("layers.2.", "layers.7."): one for name, one in load_file(file).items()}
    save_file(tensors, file)
    with pytest.raises(UnusableModel, match="2 of 6 adapted layers are not in this model"):
        read_lora(micro_language().model, adapter)


def test_a_layer_that_is_run_twice_is_refused(tmp_path: Path) -> None:
    """Nobody could say which of its passes the signals belong to."""
    adapter = write_adapter(tmp_path / "adapter", shared_micro_model())
    final = load_model(shared_micro_model(), adapter)
    reader = AdapterReader(final, read_lora(final.model, adapter), similarity_layer=2)
    blocks = final.model.model.layers
    blocks[1].self_attn.q_proj.forward = _twice(final, blocks[1].self_attn.q_proj)
    with pytest.raises(UnusableModel, match="not run once for every token"):
        reader.read(ROWS)


def _twice(language: LanguageModel, module: Any) -> Callable[[Tensor], Tensor]:
    """A layer's forward pass that runs the first block's layer as well."""
    other, plain = language.model.model.layers[0].self_attn.q_proj, type(module).forward
    return lambda states: plain(module, states) + 0.0 * other(states)


def _weight_gradient(model: Any, name: str, row: TokenRow) -> Tensor:
    """Gradient `[O, I]` of the row's summed loss for one layer's weight."""
    weight = model.get_submodule(name).weight
    weight.requires_grad = True
    logits = model(torch.tensor([row.ids])).logits[0, row.start - 1 : -1]
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor(row.ids[row.start :]), reduction="sum")
    found: Tensor = torch.autograd.grad(loss, weight)[0]
    weight.requires_grad = False
    return found


def _orthonormal(adapter: Path) -> None:
    """Give A orthonormal rows and B orthonormal columns."""
    file = adapter / "adapter_model.safetensors"
    tensors = {}
    for name, one in load_file(file).items():
        tall = one.T if ".lora_A." in name else one
        basis = torch.linalg.qr(tall)[0]
        tensors[name] = (basis.T if ".lora_A." in name else basis).contiguous()
    save_file(tensors, file)
    assert json.loads((adapter / "adapter_config.json").read_text())["lora_alpha"] == 4
