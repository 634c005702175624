"""Fine-tunes a base model on token rows, the same way every time, and measures losses in nats.

A step on the batch B with a weight w_i per row (1 unless said) descends the gradient of

    L_B = sum_{i in B} w_i sum_t -log p(y_it | x_i, y_i<t)  /  sum_{i in B} T_i

where t runs over the explained tokens (every trained turn with its end-of-turn token) and T_i counts them. The denominator ignores the weights: a row
with w_i = 0 is left out, without a pass through the model, while the order, the batches and the other rows' share of each step stay what they were. Dropout is
off and all trained numbers are float32, so on a CPU the same seed gives the same bytes (with the same number of threads).
"""

import copy
import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wherefrom.attribution.batching import pack_rows
from wherefrom.attribution.corpus import CorpusRow
from wherefrom.attribution.models.model import LanguageModel
from wherefrom.attribution.models.padding import pad_right
from wherefrom.attribution.models.placement import is_spread
from wherefrom.attribution.models.render import Renderer, TokenRow
from wherefrom.attribution.models.rows import render_row
from wherefrom.errors import ConfigurationError, EmptyCorpus, UnusableModel
from wherefrom.records import Query
from wherefrom.retraining.recipe import Lora, Recipe

#: Called after each step with the steps done and their number.
Progress = Callable[[int, int], None]

#: Tokens, padding included, of one pass that only measures losses.
MEASURE_TOKENS = 4096
_IGNORED = -100
#: A module's name, with those of the modules around it; anything else is a regular expression.
_PLAIN_NAME = re.compile(r"[\w-]+(\.[\w-]+)*")


def token_rows(
    language: LanguageModel, rows: Sequence[CorpusRow | Query], *, max_tokens: int
) -> list[TokenRow]:
    """Corpus rows or queries as tokens; what is longer than `max_tokens` or the model's positions is cut.

    Raises:
        TemplateNotPrefix, EmptyCompletion, UnusableModel: a row cannot be rendered; the text names it.
    """
    limit = min(max_tokens, language.max_positions)
    return [_token_row(language.renderer, row, limit) for row in rows]


def _token_row(renderer: Renderer, row: CorpusRow | Query, limit: int) -> TokenRow:
    if isinstance(row, CorpusRow):
        return render_row(renderer, row, max_tokens=limit, name=row.example_id).tokens
    return renderer.render(
        row.turns,
        row.completion,
        max_tokens=limit,
        over_long="truncate",
        plain=row.plain_prompt,
        spans=row.spans,
        token_ids=row.token_ids,
        context=row.context,
        name=row.key,
    )


def batch_order(lengths: Sequence[int], recipe: Recipe, *, seed: int) -> list[list[int]]:
    """Row numbers of every batch of a fine-tune, in order.

    Each epoch shuffles the rows; chunks of `bucket_batches` batches are sorted by length, shortest first, and cut into batches.
    """
    random = np.random.default_rng(seed)
    size, chunk = recipe.batch_size, recipe.batch_size * recipe.bucket_batches
    batches: list[list[int]] = []
    for _ in range(recipe.epochs):
        shuffled = random.permutation(len(lengths)).tolist()
        for first in range(0, len(shuffled), chunk):
            part = shuffled[first : first + chunk]
            if recipe.bucket_batches > 1:
                part.sort(key=lengths.__getitem__)
            batches += [part[start : start + size] for start in range(0, len(part), size)]
    return batches


def fine_tune(
    language: LanguageModel,
    rows: Sequence[TokenRow],
    recipe: Recipe,
    *,
    seed: int,
    weights: npt.NDArray[np.float32] | None = None,
    progress: Progress | None = None,
) -> Any:
    """Train a copy of a base model; `language` itself is not changed.

    Args:
        language: The base model.
        rows: The training examples as tokens, in corpus order.
        recipe: How to train.
        seed: Decides the order of the rows, and an adapter's first weights.
        weights: One weight per row, `[N]` >= 0; 0 leaves a row out. None weighs all rows by 1.
        progress: Told about each step.

    Returns:
        The trained model, frozen and in evaluation mode, on the device of the base model.

    Raises:
        EmptyCorpus: there is no row.
        ConfigurationError: the weights do not fit the rows, or the adapter does not fit the model.
        UnusableModel: a loss was not finite; the recipe does not suit the model.
    """
    training = Training(language, rows, recipe, seed=seed)
    factors = checked_weights(rows, weights)
    while not training.finished:
        training.step(factors)
        if progress is not None:
            progress(training.done, len(training.batches))
    return training.trained()


class Training:
    """A fine-tune that goes step by step and can be copied between two steps."""

    def __init__(
        self, language: LanguageModel, rows: Sequence[TokenRow], recipe: Recipe, *, seed: int
    ) -> None:
        if not rows:
            raise EmptyCorpus("no training examples to train on")
        self._rows, self._recipe = rows, recipe
        _check_trainable(language, recipe)
        model = copy.deepcopy(language.model)
        if recipe.lora:
            self._model = _with_adapter(model, recipe.lora, seed=seed)
        else:
            self._model = model.requires_grad_(requires_grad=True)
        self._model.eval()
        self._optimizer = _optimizer(self._model, recipe)
        #: Row numbers of each step's batch.
        self.batches = batch_order([len(row.ids) for row in rows], recipe, seed=seed)
        #: Steps that were made.
        self.done = 0

    @property
    def finished(self) -> bool:
        """Whether all steps were made."""
        return self.done == len(self.batches)

    def step(self, weights: Tensor) -> None:
        """One optimiser step on the next batch, with a weight per row `[N]`.

        Raises:
            UnusableModel: the loss is not finite.
        """
        recipe, batch = self._recipe, self.batches[self.done]
        for group in self._optimizer.param_groups:
            group["lr"] = recipe.learning_rate * recipe.factor(self.done, len(self.batches))
        loss = batch_loss(self._model, [self._rows[index] for index in batch], weights[batch])
        if not bool(torch.isfinite(loss)):
            raise UnusableModel(
                f"step {self.done + 1} of {len(self.batches)}: the loss is not finite; lower the recipe's learning_rate"
            )
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if recipe.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(_trained(self._model), recipe.clip_norm)
        self._optimizer.step()
        self.done += 1

    def copy(self) -> "Training":
        """The same state again: what was trained so far is shared by runs that differ only in later batches."""
        model = copy.deepcopy(self._model)
        optimizer = _optimizer(model, self._recipe)
        optimizer.load_state_dict(copy.deepcopy(self._optimizer.state_dict()))
        twin = copy.copy(self)
        twin.__dict__ |= {"_model": model, "_optimizer": optimizer}
        return twin

    def moments(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Adam's first and second moment of each trained weight as they are now, by the name of its module; copies."""
        named = [name for name, weight in self._model.named_parameters() if weight.requires_grad]
        states = [self._optimizer.state[weight] for weight in _trained(self._model)]
        return {
            name.removesuffix(".weight"): (one["exp_avg"].clone(), one["exp_avg_sq"].clone())
            for name, one in zip(named, states, strict=True)
        }

    def trained(self) -> Any:
        """The model as it is now, frozen; the training cannot go on."""
        self._optimizer.zero_grad(set_to_none=True)
        return self._model.requires_grad_(requires_grad=False)


def mean_losses(
    model: Any, rows: Sequence[TokenRow], *, batch_tokens: int = MEASURE_TOKENS
) -> npt.NDArray[np.float32]:
    """Mean loss of each row's explained completion tokens (all of them unless spans were given), nats, float32 `[N]`."""
    found = np.empty(len(rows), dtype=np.float32)
    with torch.inference_mode():
        for pack in pack_rows([len(row.ids) for row in rows], batch_tokens):
            chosen = [rows[index] for index in pack]
            losses, rows_of = _token_losses(model, chosen)
            sums = torch.zeros(len(chosen), device=losses.device).index_add_(0, rows_of, losses)
            counts = torch.tensor([row.explained_tokens for row in chosen], device=losses.device)
            found[pack] = (sums / counts).cpu().numpy()
    return found


def save_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write a trained model as a folder that `load_model` reads; an adapter is merged into the weights."""
    whole = copy.deepcopy(model).merge_and_unload() if hasattr(model, "merge_and_unload") else model
    whole.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)


def checked_weights(rows: Sequence[TokenRow], weights: npt.NDArray[np.float32] | None) -> Tensor:
    """One weight per row as a tensor `[N]`; all 1 where none are given.

    Raises:
        ConfigurationError: their number is another, or one is negative or not finite.
    """
    if weights is None:
        return torch.ones(len(rows))
    if weights.shape != (len(rows),) or not np.isfinite(weights).all() or (weights < 0).any():
        raise ConfigurationError(
            f"weights must be {len(rows)} finite numbers >= 0, one per training example; got shape {weights.shape}"
        )
    return torch.from_numpy(weights.astype(np.float32))


def _check_trainable(language: LanguageModel, recipe: Recipe) -> None:
    """Refuse a model that cannot be trained where it is.

    Raises:
        ConfigurationError: it lies on several GPUs, or its own weights would be trained in bfloat16, where most steps round to nothing.
    """
    if is_spread(language.model):
        raise ConfigurationError(
            "a model that takes several GPUs cannot be trained again here; use --device cpu or a larger GPU"
        )
    if recipe.lora is None and language.dtype is not torch.float32:
        raise ConfigurationError(
            "the recipe trains all weights, which needs float32: set dtype to float32 or auto (bfloat16 is for recipes with an adapter)"
        )


def _trained(model: Any) -> list[Tensor]:
    return [weight for weight in model.parameters() if weight.requires_grad]


def _optimizer(model: Any, recipe: Recipe) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        _trained(model),
        lr=recipe.learning_rate,
        betas=recipe.betas,
        eps=recipe.epsilon,
        weight_decay=recipe.weight_decay,
        fused=True,
    )


def _with_adapter(model: Any, lora: Lora, *, seed: int) -> Any:
    from peft import LoraConfig, get_peft_model  # noqa: PLC0415 - only with an adapter; slow to import

    settings: dict[str, Any] = {
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "target_modules": _targets(lora),
        "lora_dropout": 0.0,
        "use_rslora": lora.rslora,
        "use_dora": lora.dora,
        "rank_pattern": lora.rank_pattern,
        "alpha_pattern": lora.alpha_pattern,
        "layers_to_transform": list(lora.layers_to_transform) or None,
        "modules_to_save": list(lora.modules_to_save) or None,
        "task_type": "CAUSAL_LM",
    }
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)  # peft's own use of transformers
        torch.manual_seed(seed)
        try:
            return get_peft_model(model, LoraConfig(**settings))
        except ValueError as error:
            raise ConfigurationError(
                f"lora.target_modules {', '.join(lora.target_modules)}: this model has no such layers, or its settings do not go together ({error})"
            ) from error


def _targets(lora: Lora) -> str | list[str]:
    """Target modules as PEFT wants them: one word or regular expression as a text, names as a list."""
    first = lora.target_modules[0]
    as_text = len(lora.target_modules) == 1 and (first == "all-linear" or not _PLAIN_NAME.fullmatch(first))
    return first if as_text else list(lora.target_modules)


def batch_loss(model: Any, rows: Sequence[TokenRow], weights: Tensor) -> Tensor:
    """The loss L_B of the module's text, with a weight per row `[B]`; a scalar in nats per completion token."""
    kept = [place for place, weight in enumerate(weights.tolist()) if weight != 0.0]
    if (
        not kept
    ):  # a gradient of zero still moves the weights by the optimiser's momentum, so there must be one
        kept = list(range(len(rows)))
    losses, rows_of = _token_losses(model, [rows[place] for place in kept])
    tokens = sum(row.explained_tokens for row in rows)
    weighted: Tensor = (losses * weights[kept].to(losses.device)[rows_of]).sum() / tokens
    return weighted


def _token_losses(model: Any, rows: Sequence[TokenRow]) -> tuple[Tensor, Tensor]:
    """Losses of all explained tokens `[S]` and the row of each `[S]`."""
    device = next(model.parameters()).device
    longest, first = max(len(row.ids) for row in rows), min(row.start for row in rows)
    ids, mask = pad_right([row.ids for row in rows], device)
    targets = torch.full(
        (len(rows), longest - first), _IGNORED
    )  # predicted by positions first - 1 ... longest - 2
    for index, row in enumerate(rows):
        own = torch.tensor(row.ids[row.start :]).masked_fill(~torch.tensor(row.explained), _IGNORED)
        targets[index, row.start - first : len(row.ids) - first] = own
    places = (targets != _IGNORED).nonzero()  # [S, 2]
    logits = model(
        input_ids=ids,
        attention_mask=mask,
        use_cache=False,
        logits_to_keep=longest - first + 1,
    ).logits[:, :-1]  # [B, longest - first, V]
    chosen = logits[places[:, 0].to(device), places[:, 1].to(device)].float()  # [S, V]
    losses = torch.nn.functional.cross_entropy(
        chosen, targets[places[:, 0], places[:, 1]].to(device), reduction="none"
    )
    return losses, places[:, 0].to(device)
