"""Finds the recipe of a fine-tune in the folder that PEFT and the Trainer of transformers (or TRL) left behind.

What is read, each where it is there: `adapter_config.json`, `training_args.bin` and `trainer_state.json`, in the folder, else in its last `checkpoint-N`.

A folder of several adapters has one in a folder of its own per name, and PEFT's first one, `default`, beside them. Nothing in `training_args.bin` is run
(`inert_pickle`).
"""

import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from wherefrom.errors import ConfigurationError
from wherefrom.json_text import read_json
from wherefrom.records.explain import first_problem
from wherefrom.retraining.adapter_settings import ADAPTER, lora_of
from wherefrom.retraining.inert_pickle import Inert, bounded_bytes, settings_in
from wherefrom.retraining.recipe import Recipe

ARGUMENTS, STATE = "training_args.bin", "trainer_state.json"
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
#: What transformers' sampler of like lengths sorts at a time, in batches.
_GROUPED_BATCHES = 50


@dataclass(frozen=True)
class FoundRecipe:
    """A recipe, and what a reader should know of it."""

    recipe: Recipe
    #: Files that gave something.
    read: tuple[str, ...]
    #: What was assumed, and what the recipe cannot state; sentences.
    notes: tuple[str, ...]


def recipe_of(folder: Path, *, rows: int | None = None, adapter: str | None = None) -> FoundRecipe:
    """The recipe that a folder tells.

    Args:
        folder: output folder of a training, or one of its checkpoints.
        rows: training examples, from which the effective batch size is known where several devices or accumulation made it larger.
        adapter: name of the adapter, where the folder holds several.

    Raises:
        ConfigurationError: the folder holds none of the files, one of them cannot be read or used, or it does not hold that adapter.
    """
    if not folder.is_dir():
        raise ConfigurationError(f"{folder}: folder not found; give the folder that the training wrote")
    places = (folder, *_checkpoints(folder))
    notes: list[str] = []
    config = _adapter_config(places, adapter, notes)
    arguments = _first(places, ARGUMENTS)
    state = _first(places, STATE)
    read = tuple(str(one) for one in (config, arguments, state) if one is not None)
    if arguments is None and state is None:
        raise ConfigurationError(
            f"{folder}: neither {ARGUMENTS} nor {STATE} in it or in a checkpoint-N folder of it; "
            "write the recipe yourself (docs/operations.md, The recipe)"
        )
    settings = {} if arguments is None else settings_in(arguments)
    told = {} if state is None else _json(state)
    fields = _fields(settings, told, notes, rows=rows)
    if config is not None:
        fields["lora"] = lora_of(_json(config), notes)
    if "learning_rate" not in fields:
        raise ConfigurationError(f"{folder}: the learning rate stands in none of {', '.join(read)}")
    return FoundRecipe(_recipe(folder, fields), read, tuple(notes))


def _adapter_config(places: tuple[Path, ...], name: str | None, notes: list[str]) -> Path | None:
    """The file of the adapter's settings; None where the folder holds no adapter.

    Raises:
        ConfigurationError: there are several, none of them the first one of PEFT, or none has that name.
    """
    for place in places:
        held = {
            one.parent.name: one
            for one in sorted(place.glob(f"*/{ADAPTER}"))
            if not _is_checkpoint(one.parent)
        }
        if (place / ADAPTER).is_file():
            held = {"default": place / ADAPTER} | held
        if not held:
            continue
        known = ", ".join(held)
        chosen = name or ("default" if "default" in held or len(held) > 1 else known)
        if chosen not in held:
            what = "several adapters" if name is None else f"no adapter {name!r}"
            raise ConfigurationError(f"{place}: holds {what}; choose one of {known} with --adapter")
        if len(held) > 1:
            notes.append(f"The folder holds the adapters {known}; the recipe is that of {chosen}.")
        return held[chosen]
    if name is not None:
        raise ConfigurationError(f"{places[0]}: holds no adapter, so none is called {name!r}")
    return None


def _fields(
    settings: Mapping[str, Any], state: Mapping[str, Any], notes: list[str], *, rows: int | None
) -> dict[str, Any]:
    """What arguments and state tell, as fields of a recipe; what they agree on comes from the arguments."""
    steps, epochs = _number(state, "max_steps"), _epochs(settings, state)
    fields: dict[str, Any] = {"bucket_batches": 1} | _of_arguments(settings, notes)
    if epochs is not None:
        fields["epochs"] = _whole_epochs(epochs, notes)
    if settings:
        fields |= _schedule(settings, steps, notes)
        if "max_tokens" not in fields:
            notes.append(
                f"The longest row is not stated; the recipe cuts rows at {Recipe().max_tokens} tokens."
            )
    fields |= _batch(settings, state, notes, rows=rows, epochs=epochs)
    if "learning_rate" not in fields:
        fields |= _of_log(state.get("log_history"), steps, notes)
    done = _number(state, "global_step")
    if done and steps and done < steps:
        notes.append(f"The state is of step {done:g} of {steps:g}; the recipe trains all of them.")
    return fields


def _recipe(folder: Path, fields: Mapping[str, Any]) -> Recipe:
    try:
        return Recipe.model_validate(fields)
    except ValidationError as error:
        place, what = first_problem(error)
        raise ConfigurationError(f"{folder}: {place}: {what}; write the recipe yourself") from error


def _checkpoints(folder: Path) -> list[Path]:
    """Checkpoints of a folder, the last one first."""
    found = [
        (int(match.group(1)), one)
        for one in folder.iterdir()
        if (match := _CHECKPOINT.fullmatch(one.name)) is not None and one.is_dir()
    ]
    return [one for _, one in sorted(found, reverse=True)]


def _is_checkpoint(folder: Path) -> bool:
    return _CHECKPOINT.fullmatch(folder.name) is not None


def _first(places: tuple[Path, ...], name: str) -> Path | None:
    return next((place / name for place in places if (place / name).is_file()), None)


def _json(file: Path) -> dict[str, Any]:
    try:
        content = read_json(bounded_bytes(file))
    except ValueError as error:
        raise ConfigurationError(f"{file}: not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ConfigurationError(f"{file}: an object was expected")
    return content


def _number(settings: Mapping[str, Any], name: str) -> float | None:
    """A finite number; None where it is missing or something else."""
    value = settings.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    usual = abs(value) <= sys.float_info.max if isinstance(value, int) else math.isfinite(value)
    return float(value) if usual else None


def _word(settings: Mapping[str, Any], name: str) -> str | None:
    """A text, or the value of a member of an enum; None where it is missing or something else."""
    value = settings.get(name)
    if isinstance(value, Inert):
        value = value.arguments[0] if value.arguments else None
    return value if isinstance(value, str) else None


def _of_arguments(settings: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    """Fields that the arguments of the Trainer state."""
    fields: dict[str, Any] = {}
    plain = {
        "learning_rate": "learning_rate",
        "adam_epsilon": "epsilon",
        "weight_decay": "weight_decay",
    }
    for name, field in plain.items():
        if (value := _number(settings, name)) is not None:
            fields[field] = value
    betas = _number(settings, "adam_beta1"), _number(settings, "adam_beta2")
    if None not in betas:
        fields["betas"] = betas
    if (norm := _number(settings, "max_grad_norm")) is not None:
        fields["clip_norm"] = norm or None
    longest = _number(settings, "max_length") or _number(settings, "max_seq_length")
    if longest is not None:
        fields["max_tokens"] = int(longest)
    if (
        settings.get("group_by_length") is True
        or _word(settings, "train_sampling_strategy") == "group_by_length"
    ):
        fields["bucket_batches"] = _GROUPED_BATCHES
    _note_what_differs(settings, notes)
    return fields


def _epochs(settings: Mapping[str, Any], state: Mapping[str, Any]) -> float | None:
    """Passes over the corpus; a number of steps that was asked for counts before them."""
    steps, reached, done = (_number(state, name) for name in ("max_steps", "epoch", "global_step"))
    if (_number(settings, "max_steps") or 0) > 0 and steps and reached and done:
        return steps * reached / done
    return _number(settings, "num_train_epochs") or _number(state, "num_train_epochs")


def _whole_epochs(epochs: float, notes: list[str]) -> int:
    whole = max(1, math.ceil(epochs - 1e-6))
    if abs(whole - epochs) > 1e-3:
        notes.append(f"The training ran {epochs:g} epochs; a recipe has whole ones, so it says {whole}.")
    return whole


def _schedule(settings: Mapping[str, Any], steps: float | None, notes: list[str]) -> dict[str, Any]:
    """Rise and fall of the learning rate."""
    name = _word(settings, "lr_scheduler_type") or "linear"
    constant = name.startswith("constant")
    if not constant and name != "linear":
        notes.append(
            f"The learning rate followed the schedule `{name}`; a recipe decays it in a line to zero."
        )
    warmup = 0.0 if name == "constant" else _warmup_share(settings, steps, notes)
    return {"final_share": 1.0 if constant else 0.0, "warmup_share": warmup}


def _warmup_share(settings: Mapping[str, Any], steps: float | None, notes: list[str]) -> float:
    """Share of the steps in which the learning rate rises; a number of steps, or since transformers 5 a share below 1, counts before a ratio."""
    asked = _number(settings, "warmup_steps") or 0.0
    if asked <= 0:
        return min(1.0, max(0.0, _number(settings, "warmup_ratio") or 0.0))
    if asked < 1:
        return asked
    if not steps:
        notes.append(
            f"The learning rate rose for {asked:g} steps; without {STATE} their share is not known, and the recipe says 0."
        )
        return 0.0
    return min(1.0, asked / steps)


def _note_what_differs(settings: Mapping[str, Any], notes: list[str]) -> None:
    optimiser = _word(settings, "optim")
    if optimiser is not None and not optimiser.startswith("adamw"):
        notes.append(f"The optimiser was `{optimiser}`; a recipe trains with AdamW.")
    if settings.get("packing") is True:
        notes.append("Rows were packed together; a recipe trains each row for itself.")
    if (smoothing := _number(settings, "label_smoothing_factor")) is not None and smoothing > 0:
        notes.append("Labels were smoothed; a recipe does not smooth them.")
    if _number(settings, "neftune_noise_alpha"):
        notes.append("Noise was added to the embeddings (NEFTune); a recipe adds none.")
    if settings.get("completion_only_loss") is False and settings.get("assistant_only_loss") is not True:
        notes.append("Prompts were trained too; a recipe trains completions alone.")


def _batch(
    settings: Mapping[str, Any],
    state: Mapping[str, Any],
    notes: list[str],
    *,
    rows: int | None,
    epochs: float | None,
) -> dict[str, Any]:
    """Rows of a step over all devices, as far as they are known."""
    one = _number(settings, "per_device_train_batch_size") or _number(state, "train_batch_size")
    if one is not None:
        one = max(1.0, one * (_number(settings, "gradient_accumulation_steps") or 1))
    steps = _number(state, "max_steps")
    if rows is not None and epochs and steps:
        return {"batch_size": _batch_over_devices(rows, epochs, steps=steps, one=one)}
    if rows is None or not state:
        advice = f"Without {STATE} the batch size is that of one device; check it."
        notes.append(
            "The batch size is that of one device; give --rows if there were several." if state else advice
        )
    return {} if one is None else {"batch_size": int(one)}


def _batch_over_devices(rows: int, epochs: float, *, steps: float, one: float | None) -> int:
    """The batch that takes so many steps: that of one device, else the least multiple of it, else what the division says."""
    if one is not None:
        for devices in range(1, 1 + math.ceil(rows / one)):
            if math.ceil(math.ceil(rows / (one * devices)) * epochs - 1e-6) == steps:
                return int(one * devices)
    return max(1, round(rows * epochs / steps))


def _of_log(history: Any, steps: float | None, notes: list[str]) -> dict[str, Any]:
    """The highest logged learning rate, when it was reached, and what was left of it."""
    logged = [
        (step, rate)
        for one in (history if isinstance(history, list) else [])
        if isinstance(one, Mapping)
        and (rate := _number(one, "learning_rate")) is not None
        and (step := _number(one, "step")) is not None
    ]
    if not logged:
        return {}
    peak_step, peak = max(logged, key=lambda one: (one[1], -one[0]))
    last = logged[-1][1]
    notes.append(
        "Learning rate, warm-up and decay are read off the log, whose lines may miss the highest point."
    )
    fields: dict[str, Any] = {"learning_rate": peak, "final_share": min(1.0, last / peak) if peak else 0.0}
    if steps:
        fields["warmup_share"] = min(1.0, peak_step / steps) if peak_step > logged[0][0] else 0.0
    return fields
