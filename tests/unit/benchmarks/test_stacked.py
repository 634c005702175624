"""Many adapters trained in one pass are what training each alone gives."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.gpu.stacked import Member, StackedTraining
from demo.making.story_generate import MAX_NEW_TOKENS, generate_batch
from tests.tiny import micro_language, random_row
from wherefrom.errors import ConfigurationError
from wherefrom.retraining.recipe import Lora, Recipe
from wherefrom.retraining.training import fine_tune, mean_losses

ROWS = [random_row(4 + number % 5, 3 + number % 4, seed=number) for number in range(14)]
QUERIES = [random_row(6, 5, seed=90), random_row(3, 4, seed=91)]
#: Steps large enough that members end up far from each other, and gradients that are clipped.
RECIPE = Recipe(
    learning_rate=2e-2, batch_size=3, epochs=2, bucket_batches=2, lora=Lora(rank=4, alpha=8), clip_norm=0.5
)
MEMBERS = (
    Member(3, (0, 1, 2, 5, 6, 9, 13)),
    Member(4, (1, 3, 4, 7, 8, 10, 11)),
    Member(5, (0, 1, 2, 5, 6, 9, 13)),
)


@pytest.fixture(scope="module")
def stacked() -> StackedTraining:
    """All members, trained."""
    training = StackedTraining(micro_language(), ROWS, RECIPE, members=MEMBERS)
    while not training.finished:
        training.step()
    return training


@pytest.mark.parametrize("place", range(len(MEMBERS)))
def test_each_member_is_what_training_alone_gives(stacked, place):
    """Losses of rows and queries, and every matrix, within 1e-4."""
    one = MEMBERS[place]
    alone = fine_tune(micro_language(), [ROWS[row] for row in one.rows], RECIPE, seed=one.seed)
    for asked in (QUERIES, ROWS):
        np.testing.assert_allclose(stacked.losses(asked)[place], mean_losses(alone, asked), atol=1e-4)
    modules = dict(alone.base_model.model.named_modules())
    assert len(stacked.layers) == 21
    for name, layer in stacked.layers.items():
        torch.testing.assert_close(
            layer.low[place], modules[name].lora_A["default"].weight, rtol=0, atol=1e-4
        )
        torch.testing.assert_close(
            layer.high[place], modules[name].lora_B["default"].weight, rtol=0, atol=1e-4
        )


def test_members_differ(stacked):
    """By their rows and by their seeds: the comparison above could fail."""
    found = stacked.losses(QUERIES)
    assert np.abs(found[0] - found[1]).max() > 1e-2
    assert np.abs(found[0] - found[2]).max() > 1e-2
    assert np.abs(found - mean_losses(micro_language().model, QUERIES)).max(axis=1).min() > 1e-2


def test_some_layers_only():
    """Those that the recipe names, by the ends of their names."""
    recipe = RECIPE.model_copy(update={"lora": Lora(rank=2, alpha=4, target_modules=("q_proj", "v_proj"))})
    training = StackedTraining(micro_language(), ROWS, recipe, members=MEMBERS[:2])
    training.step()
    assert {name.rpartition(".")[2] for name in training.layers} == {"q_proj", "v_proj"}


def test_rows_of_weight_zero_are_left_out_as_training_alone_leaves_them_out():
    """Order, batches and each row's share of a step stay; one member whose batch is empty for a step moves by its momentum alone."""
    every = tuple(range(len(ROWS)))
    halves = [frozenset(every[:7]), frozenset(every[7:]), frozenset(every[1:])]
    training = StackedTraining(
        micro_language(), ROWS, RECIPE, members=[Member(3, every, one) for one in halves]
    )
    while not training.finished:
        training.step()
    found = training.losses(QUERIES)
    for place, left_out in enumerate(halves):
        weights = np.array([row not in left_out for row in every], dtype=np.float32)
        alone = fine_tune(micro_language(), ROWS, RECIPE, seed=3, weights=weights)
        np.testing.assert_allclose(found[place], mean_losses(alone, QUERIES), atol=1e-4)


def test_members_answer_as_models_trained_alone(stacked):
    """All members and prompts in one batch, of different lengths; members say different things."""
    prompts = [row.ids[: row.start] for row in (ROWS[0], ROWS[3], QUERIES[0])]
    tokenizer: Any = SimpleNamespace(
        pad_token_id=0,
        eos_token_id=1,
        batch_decode=lambda ids, **_: [" ".join(map(str, one)) for one in ids.tolist()],
    )
    found = stacked.answers(tokenizer, prompts)
    for place, one in enumerate(MEMBERS):
        alone = fine_tune(micro_language(), [ROWS[row] for row in one.rows], RECIPE, seed=one.seed)
        for prompt, answer in zip(prompts, found[place], strict=True):
            (text,) = generate_batch(alone, tokenizer, [prompt], MAX_NEW_TOKENS)
            least = min(len(text.split()), len(answer.split()))
            assert answer.split()[:least] == text.split()[:least]
    assert found[0] != found[1]


@pytest.mark.parametrize(
    ("recipe", "members", "said"),
    [
        (Recipe(), MEMBERS, "recipe with an adapter"),
        (RECIPE, (MEMBERS[0], Member(1, (0, 1))), "the same number of rows"),
        (
            RECIPE.model_copy(update={"lora": Lora(target_modules=("nothing",))}),
            MEMBERS,
            "no such linear layers",
        ),
    ],
)
def test_what_cannot_go_together_is_refused(recipe, members, said):
    """Before anything is trained."""
    with pytest.raises(ConfigurationError, match=said):
        StackedTraining(micro_language(), ROWS, recipe, members=members)
