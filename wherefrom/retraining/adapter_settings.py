"""The settings of a LoRA adapter as PEFT saves them, and as a recipe states them."""

import math
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from wherefrom.errors import ConfigurationError
from wherefrom.records.explain import first_problem
from wherefrom.retraining.recipe import Lora

ADAPTER = "adapter_config.json"
#: Fields of a recipe's adapter by PEFT's names. A training without them leaves them empty or false.
_STATED = {
    "use_rslora": "rslora",
    "use_dora": "dora",
    "rank_pattern": "rank_pattern",
    "alpha_pattern": "alpha_pattern",
    "layers_to_transform": "layers_to_transform",
    "modules_to_save": "modules_to_save",
}
#: Settings that do not change how an adapter is trained, or only beside another one.
_NEUTRAL = frozenset({
    "r", "lora_alpha", "lora_dropout", "target_modules", "peft_type", "task_type", "auto_mapping", "base_model_name_or_path",
    "revision", "inference_mode", "peft_version", "fan_in_fan_out", "megatron_core", "qalora_group_size", "runtime_config",
    "layers_pattern",
})  # fmt: skip
#: What PEFT writes where a setting is not used, beside empty and false.
_USUAL = {"bias": "none", "init_lora_weights": True}


def lora_of(content: Mapping[str, Any], notes: list[str] | None = None) -> Lora:
    """The adapter as a recipe states it.

    Args:
        content: what stands in `adapter_config.json`.
        notes: gets a sentence about whatever a reader should check.

    Raises:
        ConfigurationError: it is no LoRA adapter, or its settings cannot be used.
    """
    kind = content.get("peft_type")
    if kind != "LORA":
        raise ConfigurationError(
            f"{ADAPTER}: an adapter of the kind {kind}; a recipe trains LoRA or all weights"
        )
    if notes is not None:
        notes += _notes(content)
    targets = content.get("target_modules")
    names = (targets,) if isinstance(targets, str) else _names(targets)
    fields = {_STATED[name]: _value(content[name]) for name in _stated(content)}
    try:
        return Lora(
            rank=content.get("r", 8), alpha=content.get("lora_alpha", 8), target_modules=names, **fields
        )
    except ValidationError as error:
        place, what = first_problem(error)
        raise ConfigurationError(f"{ADAPTER}: {place}: {what}") from error


def _stated(content: Mapping[str, Any]) -> list[str]:
    """Settings in use that a recipe states; the number of the first block is 0."""
    return [name for name in _STATED if (value := content.get(name)) or (value == 0 and value is not False)]


def _value(value: Any) -> Any:
    """A setting as a recipe has it: one number or name stands for a list of one."""
    return (value,) if isinstance(value, str) or (isinstance(value, int) and value is not True) else value


def _names(targets: Any) -> tuple[str, ...]:
    return tuple(sorted(map(str, targets))) if isinstance(targets, list | tuple) else ()


def _notes(content: Mapping[str, Any]) -> list[str]:
    found = []
    if stated := _stated(content):
        found.append(f"The adapter uses {', '.join(stated)}; the recipe says so.")
    other = [
        name
        for name, value in content.items()
        if value and name not in _NEUTRAL and name not in _STATED and value != _USUAL.get(name)
    ]
    if other:
        found.append(
            f"The adapter uses {', '.join(sorted(other))}, which a recipe cannot state; it trains without."
        )
    dropout = content.get("lora_dropout")
    if isinstance(dropout, int | float) and math.isfinite(dropout) and dropout > 0:
        found.append(f"The adapter was trained with dropout {dropout:g}; a recipe trains without it.")
    return found
