"""The recipe of a fine-tune: what must be known to train a model again as it was trained.

The learning rate of step k = 0 ... K - 1 is `learning_rate * factor(k)`, with W = max(1, round(warmup_share * K)):

    factor(k) = (k + 1) / W                                              k < W
    factor(k) = 1 - (1 - final_share) (k - W + 1) / (K - W)              k >= W

The defaults are the recipe of the yardstick's small model. A recipe is a JSON file; what it leaves out has the default.
"""

from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from wherefrom.atomic import write_text
from wherefrom.errors import ConfigurationError
from wherefrom.records import Frozen, sha256_of_json
from wherefrom.records.explain import first_problem

_Share = Annotated[float, Field(ge=0.0, le=1.0)]
_AtLeastOne = Annotated[int, Field(ge=1)]
_Beta = Annotated[float, Field(ge=0.0, lt=1.0)]


class Lora(Frozen):
    """A low-rank adapter (arXiv:2106.09685) that is trained instead of the weights; no dropout."""

    rank: int = Field(default=16, ge=1)
    alpha: int = Field(default=32, ge=1)
    #: Names of the linear layers that get an adapter, as PEFT understands them: `all-linear` for all but the head, or one regular expression.
    target_modules: tuple[str, ...] = Field(default=("all-linear",), min_length=1)
    #: Scale by alpha / sqrt(rank) instead of alpha / rank (arXiv:2312.03732).
    rslora: bool = False
    #: Train the length of every column of the weights too (arXiv:2402.09353).
    dora: bool = False
    #: Ranks and alphas of single layers, by name or regular expression.
    rank_pattern: dict[str, _AtLeastOne] = Field(default_factory=dict)
    alpha_pattern: dict[str, _AtLeastOne] = Field(default_factory=dict)
    #: Numbers of the blocks that get an adapter; empty for all.
    layers_to_transform: tuple[int, ...] = ()
    #: Modules that are trained whole beside the adapter, such as the embeddings.
    modules_to_save: tuple[str, ...] = ()


#: Fields of an adapter that every release has had.
_FIRST_LORA_FIELDS = frozenset({"rank", "alpha", "target_modules"})


class Recipe(Frozen):
    """AdamW with warm-up and linear decay, over batches of rows of like length."""

    learning_rate: float = Field(default=8e-4, gt=0.0, allow_inf_nan=False)
    betas: tuple[_Beta, _Beta] = (0.9, 0.98)
    epsilon: float = Field(default=1e-8, gt=0.0)
    weight_decay: float = Field(default=0.0, ge=0.0)
    #: Share of the steps in which the learning rate rises.
    warmup_share: _Share = 0.1
    #: Share of the learning rate that is left at the last step.
    final_share: _Share = 0.05
    #: Largest norm of the gradient over all weights; None does not clip.
    clip_norm: float | None = Field(default=1.0, gt=0.0)
    batch_size: int = Field(default=16, ge=1)
    epochs: int = Field(default=3, ge=1)
    #: Rows are sorted by length, shortest first, within chunks of this many batches; 1 leaves them as they were shuffled.
    bucket_batches: int = Field(default=16, ge=1)
    #: None trains all weights.
    lora: Lora | None = None
    #: Longer rows are cut; the completion keeps at least half.
    max_tokens: int = Field(default=1024, ge=8)

    def sha256(self) -> str:
        """Hash of all its values; fields that later releases added count where they are set, so finished retrainings stay valid."""
        content = self.model_dump(mode="json")
        if self.lora is not None:
            usual = Lora().model_dump(mode="json")
            content["lora"] = {
                name: value
                for name, value in content["lora"].items()
                if name in _FIRST_LORA_FIELDS or value != usual[name]
            }
        return sha256_of_json(content)

    def steps(self, rows: int) -> int:
        """Optimiser steps of a fine-tune on that many rows."""
        return self.epochs * -(-rows // self.batch_size)

    def factor(self, step: int, steps: int) -> float:
        """Share of the learning rate at a step, counted from 0; see the module's text."""
        warmup = max(1, round(self.warmup_share * steps))
        if step < warmup:
            return (step + 1) / warmup
        return 1.0 - (1.0 - self.final_share) * (step - warmup + 1) / (steps - warmup)


def read_recipe(file: Path) -> Recipe:
    """Read a recipe from its JSON file.

    Raises:
        ConfigurationError: there is no such file, or a field is unknown or has a value that cannot be used.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{file}: the recipe cannot be read ({error.strerror})") from error
    try:
        return Recipe.model_validate_json(content)
    except ValidationError as error:
        place, what = first_problem(error)
        raise ConfigurationError(
            f"{file}: {place or 'the file'}: {what}; known fields: {', '.join(Recipe.model_fields)}"
        ) from error


def write_recipe(file: Path, recipe: Recipe) -> None:
    """Write a recipe as JSON, whole or not at all."""
    write_text(file, recipe.model_dump_json(indent=2) + "\n")
