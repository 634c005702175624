"""Finds the recipe of a fine-tune in the folder that PEFT and the Trainer of transformers (or TRL) left behind.

What is read, each where it is there: `adapter_config.json`, `training_args.bin` and `trainer_state.json`, in the folder, else in its last `checkpoint-N`.

`training_args.bin` is a pickle, and a pickle can run any code when it is opened as usual. Here no name in it is looked up: whatever it wants to make becomes an
inert record of its arguments (`_Inert`), so nothing runs.
"""

import io
import math
import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from wherefrom.errors import ConfigurationError
from wherefrom.json_text import read_json
from wherefrom.records.explain import first_problem
from wherefrom.retraining.recipe import Lora, Recipe

ADAPTER, ARGUMENTS, STATE = "adapter_config.json", "training_args.bin", "trainer_state.json"
#: Larger files of settings are refused.
MOST_BYTES = 16 << 20
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
#: Settings of an adapter that a recipe cannot state; empty or false where they are not used.
_NOT_STATED = (
    "use_dora",
    "use_rslora",
    "modules_to_save",
    "rank_pattern",
    "alpha_pattern",
    "layers_to_transform",
)


@dataclass(frozen=True)
class FoundRecipe:
    """A recipe, and what a reader should know of it."""

    recipe: Recipe
    #: Files that gave something.
    read: tuple[str, ...]
    #: What was assumed, and what the recipe cannot state; sentences.
    notes: tuple[str, ...]


def recipe_of(folder: Path, *, rows: int | None = None) -> FoundRecipe:
    """The recipe that a folder tells.

    Args:
        folder: output folder of a training, or one of its checkpoints.
        rows: training examples, from which the effective batch size is known where several devices or accumulation made it larger.

    Raises:
        ConfigurationError: the folder holds none of the files, or one of them cannot be read or used.
    """
    if not folder.is_dir():
        raise ConfigurationError(f"{folder}: folder not found; give the folder that the training wrote")
    places = (folder, *_checkpoints(folder))
    adapter = _first(places, ADAPTER)
    arguments = _first(places, ARGUMENTS)
    state = _first(places, STATE)
    read = tuple(str(one) for one in (adapter, arguments, state) if one is not None)
    if arguments is None and state is None:
        raise ConfigurationError(
            f"{folder}: neither {ARGUMENTS} nor {STATE} in it or in a checkpoint-N folder of it; "
            "write the recipe yourself (docs/operations.md, The recipe)"
        )
    notes: list[str] = []
    fields: dict[str, Any] = {"bucket_batches": 1}
    settings = {} if arguments is None else _settings(arguments)
    fields |= _of_arguments(settings, notes)
    if state is not None:
        fields |= _of_state(_json(state), fields, notes, rows=rows)
    elif rows is None:
        notes.append(f"Without {STATE} the batch size is that of one device; check it.")
    if adapter is not None:
        fields["lora"] = _lora(_json(adapter), notes)
    if "learning_rate" not in fields:
        raise ConfigurationError(f"{folder}: the learning rate stands in none of {', '.join(read)}")
    return FoundRecipe(_recipe(folder, fields), read, tuple(notes))


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


def _first(places: tuple[Path, ...], name: str) -> Path | None:
    return next((place / name for place in places if (place / name).is_file()), None)


def _bounded(file: Path) -> bytes:
    """The content of a small file.

    Raises:
        ConfigurationError: it is too large for a file of settings, or cannot be read.
    """
    try:
        if file.stat().st_size > MOST_BYTES:
            raise ConfigurationError(f"{file}: larger than {MOST_BYTES >> 20} MiB, so it holds no settings")
        return file.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read ({error.strerror})") from error


def _json(file: Path) -> dict[str, Any]:
    try:
        content = read_json(_bounded(file))
    except ValueError as error:
        raise ConfigurationError(f"{file}: not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ConfigurationError(f"{file}: an object was expected")
    return content


class _Inert:
    """Stands for whatever a pickle names; keeps what it was called with and given, and does nothing."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self.arguments = (*arguments, *named.values())
        self.state: Any = {}

    def __setstate__(self, state: Any) -> None:
        self.arguments = ()
        self.state = state

    def __hash__(self) -> int:
        return id(self)

    def append(self, _one: Any) -> None:
        """As of a list."""

    extend = append

    def __setitem__(self, _key: Any, _value: Any) -> None:
        """As of a dictionary."""


class _NamesNothing(pickle.Unpickler):
    """Opens a pickle without looking up or running anything that it names."""

    def find_class(self, _module: str, _name: str) -> Any:
        return _Inert

    def persistent_load(self, _identifier: Any) -> Any:
        return _Inert()


def _settings(file: Path) -> dict[str, Any]:
    """The attributes of the arguments in `training_args.bin`.

    Raises:
        ConfigurationError: the file is none that the Trainer writes.
    """
    content = _bounded(file)
    try:
        opened = _NamesNothing(io.BytesIO(_pickle_in(content))).load()
    except (zipfile.BadZipFile, pickle.UnpicklingError, ValueError, TypeError, AttributeError, LookupError, EOFError) as error:  # fmt: skip
        raise ConfigurationError(
            f"{file}: not written by the Trainer of transformers ({error}); move it away, or write the recipe yourself"
        ) from error
    state = opened.state if isinstance(opened, _Inert) else None
    if not isinstance(state, dict):
        raise ConfigurationError(f"{file}: not the arguments of a training")
    return {str(key): value for key, value in state.items()}


def _pickle_in(content: bytes) -> bytes:
    """The one pickle in an archive of torch.save.

    Raises:
        ValueError: there is none, or it is too large.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = [one for one in archive.infolist() if one.filename.endswith("/data.pkl")]
        if len(names) != 1 or names[0].file_size > MOST_BYTES:
            raise ValueError("no archive of torch.save")
        return archive.read(names[0])


def _number(settings: Mapping[str, Any], name: str) -> float | None:
    """A finite number; None where it is missing or something else."""
    value = settings.get(name)
    usual = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if usual and value is not None else None


def _word(settings: Mapping[str, Any], name: str) -> str | None:
    """A text, or the value of a member of an enum; None where it is missing or something else."""
    value = settings.get(name)
    if isinstance(value, _Inert):
        value = value.arguments[0] if value.arguments else None
    return value if isinstance(value, str) else None


def _of_arguments(settings: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    """Fields that the arguments of the Trainer state."""
    fields: dict[str, Any] = {}
    plain = {
        "learning_rate": "learning_rate",
        "adam_epsilon": "epsilon",
        "weight_decay": "weight_decay",
        "warmup_ratio": "warmup_share",
    }
    for name, field in plain.items():
        if (value := _number(settings, name)) is not None:
            fields[field] = value
    betas = _number(settings, "adam_beta1"), _number(settings, "adam_beta2")
    if None not in betas:
        fields["betas"] = betas
    if (norm := _number(settings, "max_grad_norm")) is not None:
        fields["clip_norm"] = norm or None
    batch = _number(settings, "per_device_train_batch_size")
    if batch is not None:
        fields["batch_size"] = int(batch * (_number(settings, "gradient_accumulation_steps") or 1))
    if (epochs := _number(settings, "num_train_epochs")) is not None:
        fields["epochs"] = _whole_epochs(epochs, notes)
    longest = _number(settings, "max_length") or _number(settings, "max_seq_length")
    if longest is not None:
        fields["max_tokens"] = int(longest)
    if settings:
        fields["final_share"] = _final_share(settings, notes)
        _note_what_differs(settings, notes)
    return fields


def _whole_epochs(epochs: float, notes: list[str]) -> int:
    whole = max(1, math.ceil(epochs - 1e-6))
    if abs(whole - epochs) > 1e-3:
        notes.append(f"The training ran {epochs:g} epochs; a recipe has whole ones, so it says {whole}.")
    return whole


def _final_share(settings: Mapping[str, Any], notes: list[str]) -> float:
    name = _word(settings, "lr_scheduler_type") or "linear"
    if name.startswith("constant"):
        return 1.0
    if name != "linear":
        notes.append(
            f"The learning rate followed the schedule `{name}`; a recipe decays it in a line to zero."
        )
    return 0.0


def _note_what_differs(settings: Mapping[str, Any], notes: list[str]) -> None:
    optimiser = _word(settings, "optim")
    if optimiser is not None and not optimiser.startswith("adamw"):
        notes.append(f"The optimiser was `{optimiser}`; a recipe trains with AdamW.")
    if settings.get("packing") is True:
        notes.append("Rows were packed together; a recipe trains each row for itself.")
    if (smoothing := _number(settings, "label_smoothing_factor")) is not None and smoothing > 0:
        notes.append("Labels were smoothed; a recipe does not smooth them.")


def _of_state(
    state: Mapping[str, Any], known: Mapping[str, Any], notes: list[str], *, rows: int | None
) -> dict[str, Any]:
    """Fields that the state of the training adds: what really ran."""
    fields: dict[str, Any] = {}
    epochs, steps = _number(state, "num_train_epochs"), _number(state, "max_steps")
    if epochs is not None and "epochs" not in known:
        fields["epochs"] = _whole_epochs(epochs, notes)
    if epochs and steps and rows is not None:
        fields["batch_size"] = max(1, round(rows * epochs / steps))
    elif "batch_size" not in known and (batch := _number(state, "train_batch_size")) is not None:
        fields["batch_size"] = int(batch)
    if rows is None:
        notes.append("The batch size is that of one device; give --rows if there were several.")
    if "learning_rate" not in known:
        fields |= _of_log(state.get("log_history"), steps, notes)
    return fields


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


def _lora(content: Mapping[str, Any], notes: list[str]) -> Lora:
    """The adapter as a recipe states it.

    Raises:
        ConfigurationError: it is no LoRA adapter, or its settings cannot be used.
    """
    kind = content.get("peft_type")
    if kind != "LORA":
        raise ConfigurationError(
            f"{ADAPTER}: an adapter of the kind {kind}; a recipe trains LoRA or all weights"
        )
    used = [name for name in _NOT_STATED if content.get(name)]
    if used:
        notes.append(
            f"The adapter uses {', '.join(used)}; a recipe trains a plain LoRA of rank {content.get('r')}."
        )
    if dropout := _number(content, "lora_dropout"):
        notes.append(f"The adapter was trained with dropout {dropout:g}; a recipe trains without it.")
    targets = content.get("target_modules")
    names = (targets,) if isinstance(targets, str) else tuple(sorted(map(str, targets or ())))
    try:
        return Lora(rank=content.get("r", 8), alpha=content.get("lora_alpha", 8), target_modules=names)
    except ValidationError as error:
        place, what = first_problem(error)
        raise ConfigurationError(f"{ADAPTER}: {place}: {what}") from error
