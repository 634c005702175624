r"""The directions in which a LoRA adapter moved its model: A and s B of every adapted linear layer.

    y = W x + s B A x        s = alpha / r, with rank-stabilised scaling alpha / sqrt(r)

DoRA (arXiv:2402.09353) also gives every output a length m of its own:

    y = D (W x + s B A x)        D = m / |W + s B A| per output, kept by `models.adapter` when it merges

The gradient of a matrix between s B and A, D held fixed as in DoRA's own training, has v = (D s B)' dL/dy in place of (s B)' dL/dy.

Whatever a training example did to the model went through these r directions per layer, so the form `adapter` reads the model there and nowhere
else (`models.adapted`). Ranks above `READ_RANK` are read in the leading directions of s B A:

    s B = Q_B R_B,  A' = Q_A R_A,  R_B R_A' = U S V'         B_16 = Q_B U_16 S_16^(1/2),   A_16 = S_16^(1/2) V_16' Q_A'
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from wherefrom.attribution.models.adapter import DORA_LENGTHS
from wherefrom.attribution.models.files import ADAPTER_CONFIGURATION, ADAPTER_WEIGHTS
from wherefrom.errors import UnusableModel
from wherefrom.json_text import read_json

#: Directions of one layer that are read at most.
READ_RANK = 16
#: With so many adapted blocks a model is deep, and only the upper half of them is read. Measured on 30 blocks (docs/quality/deep-model.md).
DEEP_BLOCKS = 12
_PREFIX = "base_model.model."
_BLOCK = re.compile(r"\.(\d+)\.")
_LENGTHS = ".lora_magnitude_vector"
_LOW, _HIGH = ".lora_A.weight", ".lora_B.weight"
#: Settings that make an adapter more than s B A on linear layers.
_MORE = (
    "use_qalora",
    "use_bdlora",
    "modules_to_save",
    "layer_replication",
    "trainable_token_indices",
    "lora_bias",
)


@dataclass(frozen=True)
class AdaptedLinear:
    """One adapted linear layer."""

    #: Name of the layer in the model.
    name: str
    #: A `[r, I]` and s B `[O, r]`, float32 whatever the layer's dtype, where the layer is.
    low: Tensor
    high: Tensor
    #: The directions that are read: the same, or the leading ones where there are more than `READ_RANK`.
    read_low: Tensor
    read_high: Tensor
    #: D of DoRA `[O]` and the layer's bias, which D does not scale; None for LoRA.
    lengths: Tensor | None = None
    bias: Tensor | None = None

    @property
    def rank(self) -> int:
        """Directions that are read."""
        return len(self.read_low)

    def added(self, states: Tensor, output: Tensor) -> Tensor:
        """What the adapter adds to the layer's output, `[..., O]` float32.

        LoRA adds s B u. With DoRA, z = D (W x + s B u) is what W' = D (W + s B A) gives, and W x = z / D - s B u, so z - W x = s B u + (1 - 1 / D) z.

        Args:
            states: u = A x, `[..., r]`.
            output: of the layer with its adapter merged, `[..., O]`.
        """
        update = nn.functional.linear(states, self.high)
        if self.lengths is None:
            return update
        whole = output.float() if self.bias is None else output.float() - self.bias
        return update + (1.0 - 1.0 / self.lengths) * whole

    @classmethod
    def of(
        cls,
        name: str,
        low: Tensor,
        high: Tensor,
        *,
        rank: int = READ_RANK,
        lengths: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> "AdaptedLinear":
        """A layer with A `[r, I]` and s B `[O, r]`, read in at most `rank` directions."""
        moved = high if lengths is None else lengths[:, None] * high
        reading = (low, moved) if len(low) <= rank else leading(low, moved, rank=rank)
        return cls(name, low, high, *reading, lengths=lengths, bias=bias)


def block_of(name: str) -> int | None:
    """Number of the block that a layer stands in, by its name, such as `model.layers.3.self_attn.q_proj`; None outside of the blocks."""
    found = _BLOCK.search(name)
    return None if found is None else int(found.group(1))


def first_block_read(names: Iterable[str]) -> int | None:
    """The first block whose adapted layers are read by default; None for all.

    Args:
        names: of all adapted layers.
    """
    blocks = sorted({block for block in map(block_of, names) if block is not None})
    return blocks[len(blocks) // 2] if len(blocks) >= DEEP_BLOCKS else None


def adapted_names(adapter_dir: Path) -> list[str]:
    """Names of the layers that a LoRA adapter adapts, sorted."""
    return sorted(_adapted_names(load_file(adapter_dir / ADAPTER_WEIGHTS)))


def leading(low: Tensor, high: Tensor, *, rank: int) -> tuple[Tensor, Tensor]:
    """The `rank` strongest directions of high @ low, as factors of their own `[rank, I]` and `[O, rank]`."""
    basis_high, small_high = torch.linalg.qr(high.double())  # [O, r], [r, r]
    basis_low, small_low = torch.linalg.qr(low.double().T)  # [I, r], [r, r]
    left, strengths, right = torch.linalg.svd(small_high @ small_low.T)
    roots = strengths[:rank].sqrt()
    found_low = roots[:, None] * (right[:rank] @ basis_low.T)
    found_high = (basis_high @ left[:, :rank]) * roots
    return found_low.float(), found_high.float()


def read_lora(model: Any, adapter_dir: Path) -> tuple[AdaptedLinear, ...]:
    """The layers of a model that an adapter adapts, in the order of the model.

    Args:
        model: the model, whether the adapter is merged into it or not.
        adapter_dir: folder of the adapter.

    Raises:
        UnusableModel: the adapter is more, or other, than LoRA on linear layers; the text says what.
    """
    what = other_kind(model, adapter_dir)
    if what is not None:
        raise UnusableModel(
            f"{adapter_dir}: the form `adapter` reads LoRA on linear layers, and {what}; choose --form activation or forward"
        )
    content, stored = _configuration(adapter_dir), load_file(adapter_dir / ADAPTER_WEIGHTS)
    names = _adapted_names(stored)
    found = []
    for name, module in model.named_modules():
        if name not in names:
            continue
        device = module.weight.device
        low, high = (stored[f"{_PREFIX}{name}{end}"].to(device, torch.float32) for end in (_LOW, _HIGH))
        if (len(high), low.shape[1]) != _shape(module) or high.shape[1] != len(low):
            raise UnusableModel(f"{adapter_dir}: A and B of {name} do not fit the layer's shape")
        lengths, bias = _dora(module, adapter_dir) if content.get("use_dora") else (None, None)
        scaled = _scale(content, name, len(low)) * high
        found.append(AdaptedLinear.of(name, low, scaled, lengths=lengths, bias=bias))
    if not found or len(found) < len(names):
        raise UnusableModel(
            f"{adapter_dir}: {len(names) - len(found)} of {len(names)} adapted layers are not in this model"
        )
    return tuple(found)


def other_kind(model: Any, adapter_dir: Path) -> str | None:
    """What makes an adapter more, or other, than LoRA on linear layers, in words behind "it"; None where it is just that.

    Args:
        model: the model, whether the adapter is merged into it or not.
        adapter_dir: folder of the adapter.
    """
    content = _configuration(adapter_dir)
    if content.get("peft_type") != "LORA":
        return f"it is of kind {content.get('peft_type')}"
    more = [name for name in _MORE if content.get(name)]
    if more:
        return f"it sets {more[0]}"
    stored = load_file(adapter_dir / ADAPTER_WEIGHTS)
    ends = (_LOW, _HIGH, _LENGTHS) if content.get("use_dora") else (_LOW, _HIGH)
    odd = sorted(name for name in stored if not name.endswith(ends))
    if odd:
        return f"it holds {odd[0]}"
    return _odd_layer(model, _adapted_names(stored), dora=bool(content.get("use_dora")))


def _odd_layer(model: Any, names: set[str], *, dora: bool) -> str | None:
    """The adapted layer that is no plain linear layer, in words."""
    head = model.get_output_embeddings()
    for name, module in model.named_modules():
        if name in names and _shape(module) is None:
            return f"{name} is a {type(module).__name__}"
        if name in names and module is head:
            return f"{name} is the output head"
        if name in names and dora and not isinstance(module, nn.Linear):
            return f"{name} is a {type(module).__name__} with DoRA"
    return None


def _dora(module: Any, adapter_dir: Path) -> tuple[Tensor, Tensor | None]:
    """D and the bias of a layer.

    Raises:
        UnusableModel: the adapter is not merged into this model.
    """
    lengths = getattr(module, DORA_LENGTHS, None)
    if lengths is None:
        raise UnusableModel(
            f"{adapter_dir}: DoRA is read off a model that the adapter is merged into, and this is the base model"
        )
    return lengths.float(), None if module.bias is None else module.bias.float()


def _configuration(adapter_dir: Path) -> dict[str, Any]:
    content: dict[str, Any] = read_json((adapter_dir / ADAPTER_CONFIGURATION).read_text(encoding="utf-8"))
    return content


def _adapted_names(stored: Mapping[str, Tensor]) -> set[str]:
    return {name.removeprefix(_PREFIX).removesuffix(_LOW) for name in stored if name.endswith(_LOW)}


def _shape(module: Any) -> tuple[int, int] | None:
    """Outputs and inputs of a linear layer; None for any other. GPT-2's `Conv1D` is one whose weight lies the other way round (`fan_in_fan_out`)."""
    if isinstance(module, nn.Linear):
        return module.out_features, module.in_features
    if isinstance(module, Conv1D):
        return int(module.weight.shape[1]), int(module.weight.shape[0])
    return None


def _scale(content: dict[str, Any], name: str, rank: int) -> float:
    """The factor s of one layer; a pattern for alpha goes before the general value, as in PEFT."""
    alpha = content.get("lora_alpha", 8)
    for pattern, value in (content.get("alpha_pattern") or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", name):
            alpha = value
            break
    return float(alpha / (math.sqrt(rank) if content.get("use_rslora") else rank))
