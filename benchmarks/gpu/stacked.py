r"""Trains many LoRA adapters over one frozen base model in one pass: their matrices stand behind each other, and every batch holds rows of all of them.

    y_m = W x_m + s B_m A_m x_m            A [M, r, I],  B [M, O, r]        member m = 0 ... M - 1

The base's product is one for all rows; only the two thin ones are batched over the members. Members do not touch each other: the loss is the sum of their own losses,
gradients are clipped member by member, and AdamW works number by number. So each member is what `wherefrom.retraining.training.fine_tune` makes of its rows and its
seed, up to rounding (tests/unit/benchmarks/test_stacked.py): the same first weights, order, batches and steps.
"""

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from benchmarks.program import report
from demo.making.story_generate import MAX_NEW_TOKENS, generate_batch
from wherefrom.attribution.batching import pack_rows
from wherefrom.attribution.memory import memory_errors
from wherefrom.attribution.models.model import LanguageModel
from wherefrom.attribution.models.padding import pad_right
from wherefrom.attribution.models.render import TokenRow
from wherefrom.errors import ConfigurationError, OutOfMemory, UnusableModel
from wherefrom.retraining.recipe import Recipe
from wherefrom.retraining.training import batch_order

#: What torch adds to a norm before it divides by it.
_CLIP_EPSILON = 1e-6
#: Tokens, padding included, of one member's share of a pass that only measures losses.
_MEASURE_TOKENS = 1024


@dataclass(frozen=True)
class Member:
    """One adapter: the rows of its batches, the seed of its first weights and order, and rows that stand in batches with a weight of 0 (as `fine_tune` leaves rows out)."""

    seed: int
    rows: tuple[int, ...]
    left_out: frozenset[int] = frozenset()


class StackedLinear(nn.Module):
    """A frozen linear layer with one adapter per member."""

    def __init__(self, base: nn.Linear, low: Tensor, high: Tensor, scale: float) -> None:
        super().__init__()
        self.base = base
        self.low = nn.Parameter(low)  # [M, r, I]
        self.high = nn.Parameter(high)  # [M, O, r]
        self._scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """Outputs `[M B, W, O]` of inputs `[M B, W, I]`; the rows of a member stand together."""
        flat = x.reshape(len(self.low), -1, x.shape[-1]).to(self.low.dtype)  # [M, B W, I]
        states = torch.bmm(flat, self.low.transpose(1, 2))  # [M, B W, r]
        change = torch.bmm(states, self.high.transpose(1, 2)) * self._scale
        output: Tensor = self.base(x)
        return output + change.view(output.shape).to(output.dtype)


class StackedTraining:
    """Fine-tunes of all members, step by step."""

    def __init__(
        self, language: LanguageModel, rows: Sequence[TokenRow], recipe: Recipe, *, members: Sequence[Member]
    ) -> None:
        """Prepare; `language` itself is not changed.

        Raises:
            ConfigurationError: the recipe has no adapter, or members have different numbers of rows, so that their steps would not go together.
        """
        if recipe.lora is None:
            raise ConfigurationError("many models are trained at once only by a recipe with an adapter")
        if len({len(one.rows) for one in members}) != 1:
            raise ConfigurationError("all members need the same number of rows")
        self._rows, self._recipe, self._device = rows, recipe, language.device
        self._members = tuple(members)
        self._model = model = copy.deepcopy(language.model).eval()
        self._layers = stack_adapters(model, recipe, [one.seed for one in members])
        self._decoder = getattr(model, model.base_model_prefix)
        self._head = model.get_output_embeddings()
        self._trained = [one for layer in self._layers.values() for one in (layer.low, layer.high)]
        self._optimizer = torch.optim.AdamW(
            self._trained,
            lr=recipe.learning_rate,
            betas=recipe.betas,
            eps=recipe.epsilon,
            weight_decay=recipe.weight_decay,
            fused=True,
        )
        orders = [
            batch_order([len(rows[row].ids) for row in one.rows], recipe, seed=one.seed) for one in members
        ]
        #: Of each step, the rows of each member's batch.
        self.batches = [
            [[one.rows[place] for place in batch] for one, batch in zip(members, step, strict=True)]
            for step in zip(*orders, strict=True)
        ]
        self.done = 0

    @property
    def finished(self) -> bool:
        """Whether all steps were made."""
        return self.done == len(self.batches)

    @property
    def layers(self) -> Mapping[str, StackedLinear]:
        """The adapted layers by name."""
        return self._layers

    def step(self) -> None:
        """One step of every member.

        Raises:
            UnusableModel: a loss is not finite.
        """
        recipe, batches = self._recipe, self.batches[self.done]
        for group in self._optimizer.param_groups:
            group["lr"] = recipe.learning_rate * recipe.factor(self.done, len(self.batches))
        tokens = [sum(self._rows[row].explained_tokens for row in batch) for batch in batches]
        losses, rows_of = self._token_losses([self._rows[row] for batch in batches for row in batch])
        shares = torch.tensor(
            [
                0.0 if row in member.left_out else 1.0 / count
                for member, count, batch in zip(self._members, tokens, batches, strict=True)
                for row in batch
            ],
            device=losses.device,
        )
        loss = (losses * shares[rows_of]).sum()
        if not bool(torch.isfinite(loss)):
            raise UnusableModel(
                f"step {self.done + 1} of {len(self.batches)}: the loss of a member is not finite; lower the learning rate"
            )
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if recipe.clip_norm is not None:
            clip_members(self._trained, recipe.clip_norm)
        self._optimizer.step()
        self.done += 1

    def answers(self, tokenizer: Any, prompts: Sequence[Sequence[int]]) -> list[list[str]]:
        """Each member's greedy answer to each prompt, given as tokens; all of them are made in one pass."""
        every = [prompt for _ in self._members for prompt in prompts]
        texts = generate_batch(self._model, tokenizer, every, MAX_NEW_TOKENS)
        return [texts[first : first + len(prompts)] for first in range(0, len(every), len(prompts))]

    @torch.no_grad()
    def losses(self, rows: Sequence[TokenRow]) -> npt.NDArray[np.float32]:
        """Mean loss of each row's explained tokens under every member, nats, `[M, N]`."""
        found = np.empty((len(self._members), len(rows)), dtype=np.float32)
        for pack in pack_rows([len(row.ids) for row in rows], _MEASURE_TOKENS):
            chosen = [rows[index] for index in pack]
            losses, rows_of = self._token_losses(chosen * len(self._members))
            sums = losses.new_zeros(len(self._members) * len(chosen)).index_add_(0, rows_of, losses)
            counts = losses.new_tensor([row.explained_tokens for row in chosen])
            found[:, pack] = (sums.view(-1, len(chosen)) / counts).cpu().numpy()
        return found

    def _token_losses(self, rows: Sequence[TokenRow]) -> tuple[Tensor, Tensor]:
        """Losses of all explained tokens `[S]` and the row of each `[S]`; the head sees only the places that predict them."""
        ids, mask = pad_right([row.ids for row in rows], self._device)
        places = [
            (index, row.start + step - 1)
            for index, row in enumerate(rows)
            for step, counts in enumerate(row.explained)
            if counts
        ]
        row_of, column = torch.tensor(places).T.to(self._device)
        states = self._decoder(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        logits = self._head(states[row_of, column]).float()  # [S, V]
        targets = ids[row_of, column + 1]
        return torch.nn.functional.cross_entropy(logits, targets, reduction="none"), row_of


def train_groups(
    members: Sequence[Member],
    train: Callable[[int, Sequence[Member]], None],
    *,
    name: str,
    together: int,
    until: float,
) -> int:
    """Train members group after group, while the next group still ends in time.

    Args:
        members: in their order; a group ends where the next one has another number of rows.
        train: trains and saves a group; gets the place of its first member, too.
        name: what is trained, for what is said.
        together: members of a group; halved where their pass does not fit into memory.
        until: `time.monotonic` at which everything must be over.

    Returns:
        How many were trained.

    Raises:
        OutOfMemory: not even two members fit.
    """
    done, slowest = 0, 0.0
    while done < len(members) and time.monotonic() + slowest * together < until:
        _, alike = next(groupby(members[done : done + together], key=lambda one: len(one.rows)))
        group, started = list(alike), time.monotonic()
        try:
            with memory_errors(f"a group of {len(group)} models"):
                train(done, group)
        except OutOfMemory:
            if together <= 2:
                raise
            together = max(2, together // 4 * 2)
            torch.cuda.empty_cache()
            report([f"{name}: a group of {len(group)} does not fit; going on with {together}"])
            continue
        slowest = max(slowest, (time.monotonic() - started) / len(group))
        done += len(group)
        report([f"{name}: {done} of {len(members)}, {slowest:.2f} s a model"])
    return done


def stack_adapters(model: nn.Module, recipe: Recipe, seeds: Sequence[int]) -> dict[str, StackedLinear]:
    """Put new adapters of all seeds over the layers that the recipe names; the model is changed and frozen.

    Raises:
        ConfigurationError: the recipe has no adapter, or the model has no such layers.
    """
    if recipe.lora is None:
        raise ConfigurationError("the recipe has no adapter")
    model.requires_grad_(requires_grad=False)
    targets, rank = recipe.lora.target_modules, recipe.lora.rank
    head = model.get_output_embeddings()  # type: ignore[operator]  # of transformers
    chosen = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and module is not head
        and (targets == ("all-linear",) or any(name == one or name.endswith(f".{one}") for one in targets))
    }
    if not chosen:
        raise ConfigurationError(
            f"lora.target_modules {', '.join(targets)}: this model has no such linear layers"
        )
    lows = [first_weights(list(chosen.values()), rank, seed=seed) for seed in seeds]
    found = {}
    for place, (name, module) in enumerate(chosen.items()):
        low = torch.stack([one[place] for one in lows]).to(module.weight.device)
        high = low.new_zeros(len(seeds), module.out_features, rank)
        found[name] = StackedLinear(module, low, high, recipe.lora.alpha / rank)
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, found[name])
    return found


def first_weights(layers: Sequence[nn.Linear], rank: int, *, seed: int) -> list[Tensor]:
    """The first A of each layer, `[r, I]`, as peft draws it under this seed: both of its matrices first, then A once more."""
    found = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in layers:
            low = nn.Linear(layer.in_features, rank, bias=False)
            nn.Linear(rank, layer.out_features, bias=False)
            nn.init.kaiming_uniform_(low.weight, a=math.sqrt(5))
            found.append(low.weight.detach())
    return found


@torch.no_grad()
def clip_members(weights: Sequence[Tensor], longest: float) -> None:
    """Shorten each member's gradient, over all weights together, to a norm; members stand along the first axis."""
    gradients = [one.grad for one in weights if one.grad is not None]
    squares = torch.stack([one.flatten(1).square().sum(dim=1) for one in gradients]).sum(dim=0)  # [M]
    shares = (longest / (squares.sqrt() + _CLIP_EPSILON)).clamp(max=1.0)
    for one in gradients:
        one.mul_(shares[:, None, None])
