"""Signals against plain loops; the split pass against the plain one; nothing depends on batch, padding or order."""

import dataclasses
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from tests.numerics.tolerances import FLOAT32
from tests.tiny import VOCABULARY, micro_config, micro_language, random_row
from wherefrom.attribution.models.model import LanguageModel
from wherefrom.attribution.models.render import TokenRow
from wherefrom.attribution.models.signals import Form, SignalReader, Signals, common_prefix

LAYERS = (0, 1, 3)
FORMS: tuple[Form, ...] = ("forward", "activation")
SHARED = (9, 8, 7, 11)
ROWS = [
    random_row(6, 5),
    random_row(13, 9),
    TokenRow(
        (*range(20, 40),), 8, (True, False, True, True, *(False,) * 5, True, True, False), truncated=True
    ),
    random_row(1, 7),
    random_row(30, 1),
    TokenRow((*range(60, 90),), 6, (*(True,) * 5, *(False,) * 8, *(True,) * 4, *(False,) * 3, *(True,) * 4)),
]
SHAPES = {
    "unequal lengths": ROWS,
    "shared prefix": [random_row(5 + step, 4 + 2 * step, shared=SHARED) for step in range(3)],
    "one prompt is the other's beginning": [
        TokenRow((*SHARED, 50, 51), 4, (True,) * 2),
        TokenRow((*SHARED, 60, 61, 62), 5, (True,) * 2),
    ],
    "equal prompts": [TokenRow((*SHARED, 50 + step, 51), 4, (True,) * 2) for step in range(3)],
    "one row": [random_row(6, 5)],
    "several ranges": [
        TokenRow((*SHARED, *range(50, 70)), 4, (*(True,) * 5, *(False,) * 9, *(True,) * 6)),
        TokenRow((*SHARED, *range(30, 40)), 6, (*(True,) * 2, *(False,) * 4, *(True,) * 2)),
        random_row(6, 3, shared=SHARED),
    ],
    "one row without a prompt": [random_row(1, 5)],
    "no prompts": [random_row(1, 5), random_row(1, 2)],
    "one token each": [random_row(1, 1), random_row(2, 1)],
}


def reader(form: Form, *, split: bool | None = None, language: LanguageModel | None = None) -> SignalReader:
    """A reader of the micro model; `split` overrules its own choice of the pass."""
    made = SignalReader(language or micro_language(), form=form, layers=LAYERS, similarity_layer=2)
    if split is not None:
        made.split_pass = split
    return made


def oracle(form: Form, row: TokenRow) -> tuple[Tensor, Tensor, Tensor, float]:
    """Signals of one row, token by token, over the model's own forward pass of that row alone."""
    model = micro_language().model
    embedded = model.get_input_embeddings()(torch.tensor([row.ids[:-1]])).requires_grad_(requires_grad=True)
    out = model(inputs_embeds=embedded, output_hidden_states=True, use_cache=False)
    hidden = [embedded, *out.hidden_states[1:]]
    steps = [step for step, explained in enumerate(row.explained) if explained]
    losses, held, errors = [], [], []
    for step in steps:
        position, target = row.start - 1 + step, row.ids[row.start + step]
        logits = out.logits[0, position]
        losses.append(torch.logsumexp(logits, 0) - logits[target])
        states = [hidden[layer][0, position].detach() for layer in LAYERS]
        held.append(torch.stack([state / (state @ state / len(state)).sqrt() for state in states]))
        surplus = torch.exp(logits - torch.logsumexp(logits, 0)).detach()
        surplus[target] -= 1
        errors.append(sum(surplus[token] * model.lm_head.weight[token] for token in range(VOCABULARY)))
    total = torch.stack(losses).sum()
    pooled = torch.stack([hidden[2][0, row.start - 1 + step].detach() for step in steps]).mean(dim=0)
    loss = float(total.detach()) / len(steps)
    if form == "forward":
        return (
            torch.stack(held),
            torch.stack([torch.as_tensor(error) for error in errors])[:, None],
            pooled,
            loss,
        )
    gradients = torch.autograd.grad(total, [hidden[layer] for layer in LAYERS])
    b = torch.stack(
        [torch.stack([gradient[0, row.start - 1 + step] for gradient in gradients]) for step in steps]
    )
    return torch.stack(held), b, pooled, loss


def assert_same(one: Signals, other: Signals) -> None:
    """All parts of two signals agree."""
    assert one.lengths == other.lengths
    for name in ("a", "b", "pooled", "loss"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), **FLOAT32)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("split", [True, False])
def test_signals_equal_a_loop(form: Form, split: bool) -> None:
    """a, b, pooled state and loss of every explained token are those of the definition, in both passes."""
    read = reader(form, split=split).read(ROWS)
    assert read.lengths == tuple(sum(row.explained) for row in ROWS)
    for index, row in enumerate(ROWS):
        a, b, pooled, loss = oracle(form, row)
        start = sum(read.lengths[:index])
        part = slice(start, start + read.lengths[index])
        torch.testing.assert_close(read.a[part], a, **FLOAT32)
        torch.testing.assert_close(read.b[part], b, **FLOAT32)
        torch.testing.assert_close(read.pooled[index], pooled, **FLOAT32)
        assert float(read.loss[index]) == pytest.approx(loss, rel=1e-4)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", SHAPES)
def test_split_pass_equals_plain_pass(form: Form, shape: str) -> None:
    """Shared prefixes, cached prompts and padding between prompt and region change nothing."""
    assert reader(form).split_pass, "the split pass must be in use for a Llama, or this test says nothing"
    assert_same(reader(form, split=True).read(SHAPES[shape]), reader(form, split=False).read(SHAPES[shape]))


@pytest.mark.parametrize("form", FORMS)
def test_batch_and_order_do_not_matter(form: Form) -> None:
    """A row's signals are the same alone, in a batch, and in the batch in another order."""
    order = [3, 0, 5, 4, 2, 1]
    together, moved = reader(form).read(ROWS), reader(form).read([ROWS[index] for index in order])
    for index, row in enumerate(ROWS):
        alone = reader(form).read([row])
        for batch, place in ((together, index), (moved, order.index(index))):
            start = sum(batch.lengths[:place])
            part = slice(start, start + batch.lengths[place])
            torch.testing.assert_close(batch.a[part], alone.a, **FLOAT32)
            torch.testing.assert_close(batch.b[part], alone.b, **FLOAT32)
            torch.testing.assert_close(batch.loss[place], alone.loss[0], **FLOAT32)


#: Looked at without building a configuration: that would import half of transformers while tests are collected.
ARCHITECTURES = (
    "llama, tied",
    "mistral with a window",
    "gemma 3 with a window",
    "qwen 2",
    "gpt-2",
    "gpt-neox",
)


def architectures() -> dict[str, "transformers.PreTrainedConfig"]:
    """Small configurations of many kinds of models."""
    shape: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "pad_token_id": 0,
        "bos_token_id": None,
        "eos_token_id": 1,
    }
    grouped = shape | {"num_key_value_heads": 2}
    window = ["sliding_attention", "full_attention", "sliding_attention"]
    return {
        "llama, tied": micro_config(tie_word_embeddings=True),
        "mistral with a window": transformers.MistralConfig(**grouped, sliding_window=20),
        "gemma 3 with a window": transformers.Gemma3TextConfig(
            **grouped, head_dim=8, sliding_window=20, layer_types=window
        ),
        "qwen 2": transformers.Qwen2Config(**grouped),
        "gpt-2": transformers.GPT2Config(
            vocab_size=VOCABULARY,
            n_embd=32,
            n_layer=3,
            n_head=4,
            n_positions=128,
            bos_token_id=1,
            eos_token_id=1,
        ),
        "gpt-neox": transformers.GPTNeoXConfig(**shape),
    }


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_other_architectures(name: str) -> None:
    """The pass that the probe chose equals the plain pass, also for prompts far longer than the probe's."""
    config = architectures()[name]
    torch.manual_seed(3)
    model = transformers.AutoModelForCausalLM.from_config(config).eval().requires_grad_(requires_grad=False)
    language = dataclasses.replace(micro_language(), model=model)
    rows = [random_row(4, 5), random_row(60, 7), random_row(30, 30)]
    assert_same(
        reader("activation", language=language).read(rows),
        reader("activation", split=False, language=language).read(rows),
    )


def test_padding_gets_no_place_behind_the_longest() -> None:
    """A long prompt beside a long completion: each fits, both padded together would not; no index beyond the table of positions."""
    torch.manual_seed(3)
    config = architectures()["gpt-2"]
    model = transformers.AutoModelForCausalLM.from_config(config).eval().requires_grad_(requires_grad=False)
    language = dataclasses.replace(micro_language(), model=model)
    rows = [random_row(115, 8), random_row(40, 80)]
    made = reader("activation", language=language)
    assert made.split_pass
    assert_same(made.read(rows), reader("activation", split=False, language=language).read(rows))


def test_windows_over_cache_columns_take_the_plain_pass() -> None:
    """GPT-Neo counts the cache's padding in its window: a row beside a longer one has the values that it has alone."""
    torch.manual_seed(3)
    config = transformers.GPTNeoConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_layers=3,
        num_heads=4,
        attention_types=[[["global", "local", "local"], 1]],
        window_size=24,
        max_position_embeddings=256,
        bos_token_id=1,
        eos_token_id=1,
    )
    model = transformers.AutoModelForCausalLM.from_config(config).eval().requires_grad_(requires_grad=False)
    language = dataclasses.replace(micro_language(), model=model)
    made = reader("forward", language=language)
    assert not made.split_pass
    short, long = random_row(40, 8), random_row(100, 8)
    alone, beside = made.read([short]), made.read([short, long])
    torch.testing.assert_close(beside.a[:8], alone.a, **FLOAT32)


def test_common_prefix() -> None:
    """The longest beginning that all share."""
    assert common_prefix([(1, 2, 3), (1, 2), (1, 2, 4)]) == 2
    assert common_prefix([(1, 2, 3)]) == 3
    assert common_prefix([(), (1,)]) == 0
    assert common_prefix([(2,), (1,)]) == 0
