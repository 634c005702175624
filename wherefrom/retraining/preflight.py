"""What can be said of a recipe before anything is trained: whether it suits the bundle's model, and what a measurement will cost. Needs no torch."""

import statistics
from pathlib import Path
from typing import Any

import numpy as np

from wherefrom.attribution.bundles.manifest import Manifest
from wherefrom.errors import ConfigurationError
from wherefrom.json_text import read_json
from wherefrom.records import ExpectedCost
from wherefrom.retraining.adapter_settings import ADAPTER, lora_of
from wherefrom.retraining.recipe import Lora, Recipe

#: Trainings of one measurement: base, group and three controls under three seeds.
TRAININGS = 15
#: Floating point operations per parameter and token: forward and backward; an adapter needs no gradients of the weights.
_FULL_OPERATIONS, _LORA_OPERATIONS = 6, 4
#: What one thread of a processor does in a second where no training was timed yet (measured: 8.6e10 on SmolLM2-135M).
_OPERATIONS_PER_S = 5e10
#: Copies of all weights in float32 that a measurement holds at once: the base model, and two trainings with their gradients and Adam's two moments.
_FULL_COPIES, _LORA_COPIES = 9, 3


def check_recipe(recipe: Recipe, manifest: Manifest, *, base: Path, adapter: Path | None) -> None:
    """Return where the recipe suits the model that a bundle explains.

    Args:
        recipe: How it was fine-tuned, as the operator says.
        manifest: The bundle.
        base: Folder of the model before the fine-tune.
        adapter: Folder of the adapter that the bundle explains; None for whole weights.

    Raises:
        ConfigurationError: it does not suit; the text says what to change.
    """
    if not (base / "config.json").is_file():
        raise ConfigurationError(
            f"{base}: no model (config.json is missing); set WHEREFROM_BASE_MODEL_DIR to the folder of the model before the fine-tune"
        )
    if adapter is None:
        return
    if recipe.lora is None:
        raise ConfigurationError(
            f"the recipe trains all weights, and bundle {manifest.name} explains a LoRA adapter: add `lora` to the recipe, or write it with "
            "`wherefrom recipe`"
        )
    differing = _differences(recipe.lora, _adapter_of(adapter))
    if differing:
        raise ConfigurationError(
            f"the recipe's adapter is not the one of bundle {manifest.name}: {'; '.join(differing)}. Correct `lora` in the recipe"
        )


def _adapter_of(folder: Path) -> Lora:
    """The settings in an adapter's folder.

    Raises:
        ConfigurationError: they cannot be read, or it is no LoRA adapter.
    """
    file = folder / ADAPTER
    try:
        content = read_json(file.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{file}: cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise ConfigurationError(f"{file}: an object was expected")
    return lora_of(content)


def _differences(stated: Lora, found: Lora) -> list[str]:
    """What the recipe says of the adapter and the adapter's folder denies."""
    texts = []
    for name in Lora.model_fields:
        one, other = getattr(stated, name), getattr(found, name)
        if name == "target_modules":
            same = _same_targets(one, other)
        elif isinstance(one, tuple):
            same = sorted(one) == sorted(other)
        else:
            same = one == other
        if not same:
            texts.append(f"lora.{name} is {_text(one)}, the adapter's is {_text(other)}")
    return texts


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) or "empty" if isinstance(value, tuple) else str(value)


def _same_targets(stated: tuple[str, ...], found: tuple[str, ...]) -> bool:
    """Whether two lists of layers may be the same; a word or an expression for many layers cannot be compared without the model."""
    if any(
        not name.replace("_", "").replace(".", "").isalnum() or name == "all-linear"
        for name in (*stated, *found)
    ):
        return True
    return {name.rpartition(".")[2] for name in stated} == {name.rpartition(".")[2] for name in found}


def expected_cost(recipe: Recipe, manifest: Manifest, *, runs: Path, threads: int) -> ExpectedCost:
    """What one measurement will take, all trainings new; about.

    Args:
        recipe: How each training goes.
        manifest: The bundle.
        runs: Folder of the bundle's finished trainings, whose seconds count where there are some.
        threads: Threads of the processor.
    """
    size, lora = manifest.model.parameters, recipe.lora is not None
    tokens = manifest.corpus.tokens * recipe.epochs
    operations = (_LORA_OPERATIONS if lora else _FULL_OPERATIONS) * size * tokens
    timed = _timed(runs)
    each = statistics.median(timed) if timed else operations / (_OPERATIONS_PER_S * max(1, threads))
    return ExpectedCost(
        trainings=TRAININGS,
        seconds=each * TRAININGS,
        memory_bytes=4 * size * (_LORA_COPIES if lora else _FULL_COPIES),
        tokens=tokens,
        timed=bool(timed),
    )


def _timed(runs: Path) -> list[float]:
    """Seconds of the finished trainings of a folder; files that cannot be read are the measurer's concern."""
    found = []
    for file in sorted(runs.glob("seed*.npz"))[:100]:
        try:
            with np.load(file, allow_pickle=False) as content:
                found.append(float(content["seconds"]))
        except (OSError, ValueError, KeyError):
            continue
    return found
