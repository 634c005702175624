"""Merges an adapter into the weights of its model.

    W' = W + s B A        s = alpha / r, with rank-stabilised scaling alpha / sqrt(r)

Plain LoRA (arXiv:2106.09685) on linear layers, which is nearly every adapter, is merged here in a fraction of a second, to the same bytes as by peft; importing and
wrapping a model with peft takes seconds of every worker's start. Every other kind is left to peft, and what it computes after merging is compared with what it computed
before. An adapter that changes nothing is refused: what it was trained on would be explained by weights that never saw it.
"""

import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from wherefrom.attribution.models.embeddings import adapts_tied, fit_embeddings, settle_tying, untie
from wherefrom.attribution.models.files import ADAPTER_CONFIGURATION, ADAPTER_WEIGHTS
from wherefrom.errors import UnusableModel
from wherefrom.json_text import read_json

_PREFIX = "base_model.model."
_LOW, _HIGH = ".lora_A.weight", ".lora_B.weight"
#: Parts of the names of tensors that change nothing by themselves, and of those that do (B).
_PASSIVE = (".lora_A", "lora_embedding_A", "lora_magnitude_vector")
_ACTIVE = (".lora_B", "lora_embedding_B")
#: Largest difference of a logit between an adapted and a merged model, as a share of the largest logit.
_MERGE_TOLERANCE = 1e-3
_PROBE_TOKENS = 12
#: Buffer in which a layer keeps D of DoRA `[O]` once the adapter is merged into it (see `lora`).
DORA_LENGTHS = "dora_lengths"
#: Entries of the configuration that do not change what is merged.
_WITHOUT_EFFECT = frozenset(
    {
        "auto_mapping",
        "base_model_name_or_path",
        "inference_mode",
        "lora_dropout",
        "megatron_core",
        "peft_version",
        "qalora_group_size",
        "revision",
        "task_type",
    }
)
#: Entries that `_Plain` reads.
_READ = frozenset(
    {"peft_type", "target_modules", "r", "lora_alpha", "use_rslora", "bias", "init_lora_weights"}
)


@dataclass(frozen=True)
class _Plain:
    """What a plain LoRA adapter's configuration says."""

    targets: tuple[str, ...]
    scale: float

    @classmethod
    def read(cls, content: dict[str, Any]) -> "_Plain | None":
        """The configuration, or None where it asks for more than plain LoRA; an unknown entry that is set counts as more."""
        more = [
            name for name, value in content.items() if name not in _WITHOUT_EFFECT | _READ and bool(value)
        ]
        targets, rank, alpha = (content.get(name) for name in ("target_modules", "r", "lora_alpha"))
        usual = (
            not more
            and content.get("peft_type") == "LORA"
            and content.get("bias", "none") == "none"
            and content.get("init_lora_weights", True) in (True, False, "gaussian")
        )
        if not usual or not isinstance(targets, list) or not targets:
            return None
        if not isinstance(rank, int) or rank < 1 or not isinstance(alpha, int | float):
            return None
        return cls(tuple(targets), float(alpha / (math.sqrt(rank) if content.get("use_rslora") else rank)))

    def meant(self, model: nn.Module) -> dict[str, nn.Linear] | None:
        """The layers of a model that the adapter adapts, by name; None where some are not linear layers."""
        modules = {
            name: module
            for name, module in model.named_modules()
            if any(name == one or name.endswith("." + one) for one in self.targets)
        }
        linear = {name: module for name, module in modules.items() if type(module) is nn.Linear}
        return linear if len(linear) == len(modules) else None


def merge_adapter(model: Any, adapter_dir: Path) -> Any:
    """Merge an adapter into a model in float32; the model itself is changed and returned.

    Raises:
        UnusableModel: the adapter does not fit the model, does not merge into weights, or was never trained.
        ValueError, OSError, SafetensorError: a file cannot be read.
    """
    content = read_json((adapter_dir / ADAPTER_CONFIGURATION).read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise UnusableModel(f"{adapter_dir}: {ADAPTER_CONFIGURATION} is not a JSON object")
    plain = _Plain.read(content)
    stored = load_file(adapter_dir / ADAPTER_WEIGHTS)
    _refuse_untrained(stored, adapter_dir)
    fit_embeddings(model, stored, prefix=_PREFIX, adapter_dir=adapter_dir)
    layers = None if plain is None else plain.meant(model)
    factors_only = all(name.startswith(_PREFIX) and name.endswith((_LOW, _HIGH)) for name in stored)
    if plain is None or layers is None or not factors_only:
        model = _merge_by_peft(model, adapter_dir, stored)
    else:
        if any(layer is model.get_output_embeddings() for layer in layers.values()):
            untie(model)
        _merge_plain(layers, stored, scale=plain.scale, adapter_dir=adapter_dir)
    settle_tying(model)
    return model


def fit_to_adapter(model: Any, adapter_dir: Path) -> None:
    """Give a base model the embeddings' size of an adapter that is not merged.

    Raises:
        UnusableModel: the adapter lacks embeddings of further tokens.
        OSError, SafetensorError: its weights cannot be read.
    """
    stored = load_file(adapter_dir / ADAPTER_WEIGHTS)
    fit_embeddings(model, stored, prefix=_PREFIX, adapter_dir=adapter_dir)


def _refuse_untrained(stored: dict[str, Tensor], adapter_dir: Path) -> None:
    """Refuse an adapter as it is before its first step: every B is zero, and nothing else is trained."""
    active = [weight for name, weight in stored.items() if any(part in name for part in _ACTIVE)]
    others = [name for name in stored if not any(part in name for part in _ACTIVE + _PASSIVE)]
    if active and not others and not any(bool(weight.any()) for weight in active):
        raise UnusableModel(
            f"{adapter_dir}: the adapter was never trained: B is zero in all of its {len(active)} layers, so the model is its base model"
        )


def _merge_plain(
    layers: dict[str, nn.Linear], stored: dict[str, Tensor], *, scale: float, adapter_dir: Path
) -> None:
    """Add s B A to each adapted layer; all names and shapes are checked before any weight is changed.

    The sum goes to new memory: the loaded weights are a private map of the file, and changing them in place copies it page by page, three times slower.
    """
    given = {name.removeprefix(_PREFIX).removesuffix(_LOW).removesuffix(_HIGH) for name in stored}
    _refuse_unknown(sorted(f"{_PREFIX}{name}{_LOW}" for name in given - layers.keys()), adapter_dir)
    updates = [_factors(name, layer, stored, adapter_dir) for name, layer in layers.items()]
    with torch.no_grad():
        for layer, (low, high) in zip(layers.values(), updates, strict=True):
            update = (high.float() @ low.float()).mul_(scale)
            layer.weight.data = update.add_(layer.weight)  # the same parameter: what is tied to it stays so


def _factors(
    name: str, layer: nn.Linear, stored: dict[str, Tensor], adapter_dir: Path
) -> tuple[Tensor, Tensor]:
    """A `[r, I]` and B `[O, r]` of a layer."""
    low, high = (stored.get(f"{_PREFIX}{name}{end}") for end in (_LOW, _HIGH))
    if low is None or high is None:
        raise UnusableModel(
            f"{adapter_dir}: the adapter lacks weights for layers of this model, such as {name}"
        )
    if (len(high), *low.shape[1:]) != tuple(layer.weight.shape) or high.shape[1:] != low.shape[:1]:
        raise UnusableModel(
            f"{adapter_dir}: size mismatch for {name}: A {tuple(low.shape)} and B {tuple(high.shape)} do not make "
            f"the layer's {tuple(layer.weight.shape)}"
        )
    return low, high


def _merge_by_peft(model: Any, adapter_dir: Path, stored: dict[str, Tensor]) -> Any:
    from peft import PeftModel, get_peft_model_state_dict  # noqa: PLC0415 - slow to import, seldom needed

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning)  # peft's advice to those who train
        warnings.filterwarnings("ignore", category=FutureWarning)  # peft's own use of transformers
        warnings.filterwarnings("error", message="Found missing adapter keys")
        try:
            adapted = PeftModel.from_pretrained(model, str(adapter_dir), local_files_only=True)
        except UserWarning as error:
            raise UnusableModel(
                f"{adapter_dir}: the adapter lacks weights for layers of this model"
            ) from error
        known = get_peft_model_state_dict(adapted, save_embedding_layers=False).keys()
        _refuse_unknown(sorted(name for name in stored.keys() - known if ".lora_" in name), adapter_dir)
        if not hasattr(adapted.base_model, "merge_and_unload"):
            raise UnusableModel(
                f"{adapter_dir}: only adapters that merge into the weights, such as LoRA, can be explained"
            )
        return _merged_and_compared(adapted.eval(), adapter_dir)


def _merged_and_compared(adapted: Any, adapter_dir: Path) -> Any:
    """The model with the adapter in its weights, computing what it computed with the adapter beside them."""
    expected = _logits(adapted)
    with adapted.disable_adapter():
        alone = _logits(adapted)
    if torch.equal(alone, expected):
        raise UnusableModel(
            f"{adapter_dir}: the adapter was never trained: the model computes the same with it and without it"
        )
    if adapts_tied(adapted):
        untie(adapted)
    lengths = _dora_lengths(adapted)
    merged = adapted.merge_and_unload()
    for name, value in lengths.items():
        merged.get_submodule(name).register_buffer(DORA_LENGTHS, value, persistent=False)
    bound = _MERGE_TOLERANCE * max(1.0, float(expected.abs().max()))
    if float((_logits(merged) - expected).abs().max()) > bound:
        raise UnusableModel(
            f"{adapter_dir}: merging the adapter into the weights changes its results, so it cannot be explained"
        )
    return merged


@torch.no_grad()
def _dora_lengths(adapted: Any) -> dict[str, Tensor]:
    """D = m / |W + s B A| of every linear layer with DoRA, by its name in the merged model."""
    found: dict[str, Tensor] = {}
    for name, module in adapted.base_model.model.named_modules():
        for key, vector in getattr(module, "lora_magnitude_vector", {}).items():
            base = module.get_base_layer()
            if not isinstance(base, nn.Linear):
                continue
            update = module.lora_B[key].weight @ module.lora_A[key].weight
            weight = base.weight + module.scaling[key] * update
            found[name] = vector.weight / torch.linalg.norm(weight, dim=1)
    return found


@torch.no_grad()
def _logits(model: Any) -> Tensor:
    """Logits of a short run of tokens spread over the vocabulary."""
    count = len(model.get_input_embeddings().weight)
    ids = torch.linspace(0, count - 1, min(_PROBE_TOKENS, count)).long()[None]
    logits: Tensor = model(input_ids=ids, use_cache=False).logits
    return logits


def _refuse_unknown(unknown: list[str], adapter_dir: Path) -> None:
    if unknown:
        raise UnusableModel(
            f"{adapter_dir}: {len(unknown)} tensors of the adapter do not exist in this model, such as {unknown[0]}"
        )
