r"""Per-example gradients of linear layers, read off one backward pass over a padded batch.

For a linear layer y_t = W x_t (+ c) and the summed loss L = sum of the row's explained token losses, with g_t = dL / dy_t:

    G = dL / dW = sum_t g_t x_t'            over ALL positions of the row, the prompt's too; a bias appends a 1 to x_t

Hooks hand over x `[B, W, I]` and g `[B, W, O]` of one layer after the other while the backward pass goes on, so rows stay apart and no weight
gradient is formed by torch. The last token of a row is read by no position that predicts anything, so it is not fed. g is 0 at padding.
The layers are those of the transformer blocks; embeddings, head and norms are left out. What is done with G is in `factors` and `scores`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import torch
import transformers
from torch import Tensor, nn

from wherefrom.attribution.models.model import LanguageModel
from wherefrom.attribution.models.padding import pad_right
from wherefrom.attribution.models.render import TokenRow
from wherefrom.errors import ConfigurationError, UnusableModel

#: Tokens, padding included, of one pass through the model.
BATCH_TOKENS = 1024

#: Whose labels the loss is taken on: the row's own tokens, or tokens drawn from the model at the same positions.
Labels = Literal["data", "sampled"]

#: Called with a layer's name, its inputs `[B, W, I]`, its output gradients `[B, W, O]` and the mask `[B, W]` of real positions; float32, where the layer is.
Visit = Callable[[str, Tensor, Tensor, Tensor], None]


def block_linears(language: LanguageModel) -> tuple[str, ...]:
    """Names of the linear layers of the transformer blocks, in the model's order.

    Raises:
        UnusableModel: the blocks cannot be found, or hold no linear layer.
    """
    lists = [
        name
        for name, module in language.model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == language.layers
    ]
    prefix = f"{lists[0]}." if lists else ""
    stacked = next(
        (
            name
            for name, one in language.model.named_parameters()
            if prefix and name.startswith(prefix) and one.dim() > 2
        ),
        None,
    )
    if stacked is not None:
        raise UnusableModel(
            f"{language.base_folder}: {stacked} is not a linear layer (mixture of experts, convolution), and EK-FAC over the other layers would miss most weights; build without --full-tier"
        )
    found = tuple(
        name
        for name, module in language.model.named_modules()
        if prefix and name.startswith(prefix) and _is_linear(module)
    )
    if not found:
        raise UnusableModel(
            f"{language.base_folder}: no linear layers in {language.layers} transformer blocks, so EK-FAC has nothing to work on"
        )
    return found


def _is_linear(module: nn.Module | None) -> bool:
    """Whether a module is a linear layer, of torch or (GPT-2) of transformers."""
    return isinstance(module, nn.Linear | transformers.pytorch_utils.Conv1D)


class LinearTaps:
    """Hands over inputs and output gradients of chosen linear layers."""

    def __init__(self, language: LanguageModel, names: Sequence[str] | None = None) -> None:
        self._model, self._device = language.model, language.device
        self.names = tuple(names) if names is not None else block_linears(language)
        known = dict(self._model.named_modules())
        wrong = next(
            (name for name in self.names if not _is_linear(known.get(name))),
            None,
        )
        if wrong is not None or not self.names:
            raise ConfigurationError(f"{language.base_folder} has no linear layer named {wrong!r}")
        self._layers = {name: known[name] for name in self.names}
        parameters = {id(one): one.numel() for layer in self._layers.values() for one in layer.parameters()}
        #: Share of the model's parameters that the layers hold.
        self.coverage = sum(parameters.values()) / language.parameters

    def run(
        self, rows: Sequence[TokenRow], visit: Visit, *, names: Sequence[str], draw: Sequence[int] | None
    ) -> None:
        """One forward and one backward pass over a batch; `visit` is called once per layer, last layer first.

        Args:
            rows: the batch; each row's gradients do not depend on the others (up to rounding).
            visit: see `Visit`; runs without gradients.
            names: the layers to visit. The graph starts at the first of them.
            draw: one seed per row: labels are drawn from the model instead of taken from the row. None: the row's own labels.

        Raises:
            UnusableModel: a layer is used twice in a pass, or not position by position (mixtures of experts).
        """
        ids, attended = pad_right([row.ids[:-1] for row in rows], self._device)
        mask = attended.bool()
        seen: set[str] = set()
        handles = [
            self._layers[name].register_forward_hook(
                partial(_tap, visit=partial(visit, name), name=name, mask=mask, seen=seen)
            )
            for name in names
        ]
        try:
            with torch.enable_grad():
                logits = self._model(input_ids=ids, attention_mask=attended, use_cache=False).logits
                predicted, targets = _explained(rows, logits)
                if draw is not None:
                    targets = _drawn(predicted.detach(), rows, draw)
                torch.nn.functional.cross_entropy(predicted, targets, reduction="sum").backward()
        finally:
            for handle in handles:
                handle.remove()


def _tap(
    module: nn.Module, inputs: Any, output: Tensor, *, visit: Any, name: str, mask: Tensor, seen: set[str]
) -> Tensor:
    """Keep the layer's input until the gradient of its output comes; let the graph start here where it has not."""
    x, mask = inputs[0].detach().float(), mask.to(inputs[0].device)
    if x.shape[:-1] != mask.shape or name in seen:
        raise UnusableModel(
            f"layer {name} is not applied once to every position (inputs {tuple(x.shape)}, batch {tuple(mask.shape)}); "
            "leave it out by naming the layers to use"
        )
    seen.add(name)
    if getattr(module, "bias", None) is not None:
        x = torch.cat([x, x.new_ones(*x.shape[:-1], 1)], dim=-1)  # [B, W, I + 1]
    kept = output if output.requires_grad else output.requires_grad_().clone()
    kept.register_hook(partial(_deliver, x=x, visit=visit, mask=mask))
    return kept


@torch.no_grad()
def _deliver(gradient: Tensor, *, x: Tensor, visit: Any, mask: Tensor) -> None:
    visit(x, gradient.float(), mask)


def _explained(rows: Sequence[TokenRow], logits: Tensor) -> tuple[Tensor, Tensor]:
    """Logits `[S, V]` that predict the explained tokens of all rows, and those tokens `[S]`."""
    found = [
        (index, row.start + step - 1, row.ids[row.start + step])
        for index, row in enumerate(rows)
        for step, explained in enumerate(row.explained)
        if explained
    ]
    table = torch.tensor(found, dtype=torch.long, device=logits.device)  # [S, 3]
    return logits[table[:, 0], table[:, 1]].float(), table[:, 2]


def _drawn(logits: Tensor, rows: Sequence[TokenRow], seeds: Sequence[int]) -> Tensor:
    """One token per position from the model's own distribution, `[S]`; each row has a generator of its own."""
    parts = []
    for part, seed in zip(
        torch.softmax(logits, dim=-1).cpu().split([sum(row.explained) for row in rows]), seeds, strict=True
    ):
        parts.append(torch.multinomial(part, 1, generator=torch.Generator().manual_seed(seed))[:, 0])
    return torch.cat(parts).to(logits.device)  # drawn on the CPU: the same labels on every device
