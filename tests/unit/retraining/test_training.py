import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.tiny import micro_language, random_row, shared_micro_model
from wherefrom.attribution.models.model import load_model
from wherefrom.attribution.models.render import TokenRow
from wherefrom.errors import ConfigurationError, EmptyCorpus, UnusableModel
from wherefrom.retraining.recipe import Lora, Recipe
from wherefrom.retraining.training import (
    Training,
    batch_loss,
    batch_order,
    fine_tune,
    mean_losses,
    save_model,
)


def _weights(model: torch.nn.Module) -> list[torch.Tensor]:
    return [weight.detach().clone() for weight in model.parameters()]


def _loop_losses(model: torch.nn.Module, row: TokenRow) -> torch.Tensor:
    """Losses of the completion tokens of one unpadded row, from plain logits."""
    with torch.enable_grad():
        logits = model(input_ids=torch.tensor([row.ids])).logits[0]
        found = [-logits[t - 1].log_softmax(-1)[row.ids[t]] for t in range(row.start, len(row.ids))]
        return torch.stack(found)


def test_mean_losses_equal_a_loop_over_unpadded_rows(rows: list[TokenRow]) -> None:
    """Padding, packing and the cut of the logits change nothing."""
    model = micro_language().model
    expected = [float(_loop_losses(model, row).mean()) for row in rows]
    np.testing.assert_allclose(mean_losses(model, rows, batch_tokens=40), expected, rtol=1e-4)


def test_mean_losses_count_explained_tokens_only() -> None:
    """A query with spans is measured on them."""
    row = random_row(5, 4)
    part = TokenRow(row.ids, row.start, (False, True, True, False))
    expected = float(_loop_losses(micro_language().model, row)[1:3].mean())
    assert mean_losses(micro_language().model, [part])[0] == pytest.approx(expected, rel=1e-4)


def test_only_trained_turns_are_trained_on(rows: list[TokenRow]) -> None:
    """A row of several trained turns counts their tokens alone; what stands between them is read and not learned."""
    row = rows[0]
    flags = tuple(place % 3 != 1 for place in range(row.completion_tokens))
    parts = TokenRow(row.ids, row.start, flags)
    model = micro_language().model
    losses = _loop_losses(model, row)[torch.tensor(flags)]
    whole = _loop_losses(model, rows[1])
    expected = (losses.sum() + whole.sum()) / (len(losses) + len(whole))
    torch.testing.assert_close(
        batch_loss(model, [parts, rows[1]], torch.ones(2)), expected, rtol=1e-4, atol=1e-6
    )
    last = rows[0].completion_tokens - 1
    other = TokenRow((*row.ids[:-1], 9), row.start, (*(True,) * last, False))
    same = TokenRow(row.ids, row.start, (*(True,) * last, False))
    assert float(batch_loss(model, [other], torch.ones(1))) == float(batch_loss(model, [same], torch.ones(1)))


def test_a_weight_of_zero_equals_a_loss_without_the_row(rows: list[TokenRow]) -> None:
    """The others' share of the step stays what it was: the denominator counts the left-out row's tokens."""
    model, batch = micro_language().model, rows[:4]
    found = float(batch_loss(model, batch, torch.tensor([1.0, 0.0, 1.0, 1.0])))
    kept = sum(float(_loop_losses(model, batch[index]).sum()) for index in (0, 2, 3))
    assert found == pytest.approx(kept / sum(row.completion_tokens for row in batch), rel=1e-4)


def test_left_out_rows_are_not_run(rows: list[TokenRow], monkeypatch: pytest.MonkeyPatch) -> None:
    """The model sees the kept rows alone; of a batch without any, it sees all, since the momentum's step needs a gradient of zero."""
    model, batch = copy.deepcopy(micro_language().model).requires_grad_(requires_grad=True), rows[:4]
    seen: list[int] = []
    forward = model.forward

    def counted(**inputs: Any) -> Any:
        seen.append(len(inputs["input_ids"]))
        return forward(**inputs)

    monkeypatch.setattr(model, "forward", counted)
    batch_loss(model, batch, torch.tensor([1.0, 0.0, 0.5, 0.0]))
    nothing = batch_loss(model, batch, torch.zeros(4))
    nothing.backward()
    assert seen == [2, 4]
    assert float(nothing.detach()) == 0.0
    assert all(not weight.grad.any() for weight in model.parameters() if weight.grad is not None)


def test_a_left_out_row_leaves_no_trace(rows: list[TokenRow], recipe: Recipe) -> None:
    """Whatever a row of weight 0 says, the trained weights are the same bytes; with weight 1 they are not."""
    other = [
        TokenRow((*row.ids[:-1], 7), row.start, row.explained) if index == 3 else row
        for index, row in enumerate(rows)
    ]
    weights = np.ones(len(rows), dtype=np.float32)
    weights[3] = 0.0
    language = micro_language()
    one, two = (fine_tune(language, some, recipe, seed=1, weights=weights) for some in (rows, other))
    seen = fine_tune(language, other, recipe, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(_weights(one), _weights(two), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(_weights(one), _weights(seen), strict=True))


def test_one_step_follows_plain_adamw(rows: list[TokenRow]) -> None:
    """A single step of the recipe equals torch's AdamW on the loop's loss."""
    recipe = Recipe(learning_rate=1e-3, batch_size=4, epochs=1, warmup_share=0.0, weight_decay=0.1)
    language = load_model(shared_micro_model())
    trained = fine_tune(language, rows[:4], recipe, seed=0)
    model = language.model.requires_grad_(True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.1)
    losses = torch.cat([_loop_losses(model, row) for row in rows[:4]])
    losses.mean().backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    for found, expected in zip(_weights(trained), _weights(model), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=2e-5)


def test_moments_are_those_of_the_adapters_own_gradients(rows: list[TokenRow]) -> None:
    """After one step they are the gradient and its square, by the shares that are new; by module, of trained weights alone."""
    lora = Lora(rank=2, alpha=4, target_modules=("q_proj",))
    recipe = Recipe(batch_size=4, epochs=1, clip_norm=None, lora=lora)
    training = Training(load_model(shared_micro_model()), rows[:4], recipe, seed=0)
    model = training.copy().trained().requires_grad_(True)
    batch_loss(model, rows[:4], torch.ones(4)).backward()
    training.step(torch.ones(4))
    found = training.moments()
    assert len(found) == 2 * 3
    for name, (mean, square) in found.items():
        gradient = model.get_submodule(name).weight.grad
        torch.testing.assert_close(mean, 0.1 * gradient, rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(square, 0.02 * gradient.square(), rtol=1e-3, atol=1e-9)


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(
    rows: list[TokenRow], recipe: Recipe
) -> None:
    """Training is deterministic; the seed decides the order. The base model is not touched."""
    language = micro_language()
    before = _weights(language.model)
    one, again, other = (_weights(fine_tune(language, rows, recipe, seed=seed)) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(before, _weights(language.model), strict=True))


def test_training_lowers_the_loss_of_what_it_saw(rows: list[TokenRow]) -> None:
    """Sign and scale of the steps: rows that were trained on lose much of their loss."""
    recipe = Recipe(learning_rate=3e-3, batch_size=8, epochs=6)
    model = fine_tune(micro_language(), rows, recipe, seed=0)
    assert mean_losses(model, rows).mean() < 0.85 * mean_losses(micro_language().model, rows).mean()


def test_batches_hold_every_row_once_per_epoch_and_rows_of_like_length() -> None:
    """Within a chunk lengths rise from batch to batch."""
    recipe = Recipe(batch_size=4, epochs=2, bucket_batches=3)
    lengths = [5 + 7 * number % 23 for number in range(26)]
    batches = batch_order(lengths, recipe, seed=3)
    assert len(batches) == recipe.steps(26) == 14
    for epoch in (batches[:7], batches[7:]):
        assert sorted(row for batch in epoch for row in batch) == list(range(26))
        chunk = [lengths[row] for batch in epoch[:3] for row in batch]
        assert chunk == sorted(chunk)
    assert batches[:7] != batches[7:]


def test_an_adapter_is_trained_alone_and_merges_into_a_model_that_loads(
    rows: list[TokenRow], recipe: Recipe, tmp_path: Path
) -> None:
    """LoRA changes losses, leaves the base weights, is deterministic, and its merged folder has the same losses."""
    lora = recipe.model_copy(update={"lora": Lora(rank=2, alpha=4, target_modules=("q_proj", "v_proj"))})
    language = micro_language()
    model, again = (fine_tune(language, rows, lora, seed=1) for _ in range(2))
    losses = mean_losses(model, rows)
    assert np.array_equal(losses, mean_losses(again, rows))
    assert not np.array_equal(losses, mean_losses(language.model, rows))
    save_model(model, language.tokenizer, tmp_path / "merged")
    np.testing.assert_allclose(mean_losses(load_model(tmp_path / "merged").model, rows), losses, rtol=1e-4)


def test_an_adapter_for_unknown_layers_is_refused(rows: list[TokenRow], recipe: Recipe) -> None:
    """The text names the layers that were asked for."""
    lora = recipe.model_copy(update={"lora": Lora(target_modules=("c_attn",))})
    with pytest.raises(ConfigurationError, match="c_attn"):
        fine_tune(micro_language(), rows, lora, seed=0)


def test_weights_that_do_not_fit_are_refused(rows: list[TokenRow], recipe: Recipe) -> None:
    """Another number of them, negative ones, NaN; and a corpus without rows."""
    wrong = [np.ones(3), -np.ones(len(rows)), np.full(len(rows), np.nan)]
    for weights in wrong:
        with pytest.raises(ConfigurationError, match="24 finite numbers"):
            fine_tune(micro_language(), rows, recipe, seed=0, weights=weights.astype(np.float32))
    with pytest.raises(EmptyCorpus):
        fine_tune(micro_language(), [], recipe, seed=0)


def test_a_training_that_diverges_says_so(rows: list[TokenRow], recipe: Recipe) -> None:
    """No bank of NaN is written."""
    wild = recipe.model_copy(update={"learning_rate": 1e30, "clip_norm": None})
    with pytest.raises(UnusableModel, match="lower the recipe's learning_rate"):
        fine_tune(micro_language(), rows, wild, seed=0)
