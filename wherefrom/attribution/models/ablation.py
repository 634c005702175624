"""A model without the adapter in some of its layers; the weights stay as they are, so nothing has to be put back."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from wherefrom.attribution.models.lora import AdaptedLinear


@contextmanager
def without_adapter(model: Any, layers: Sequence[AdaptedLinear]) -> Iterator[None]:
    """While it is open, a model with its adapter merged computes as if the adapter were zero in these layers."""
    with ExitStack() as stack:
        for layer in layers:
            handle = model.get_submodule(layer.name).register_forward_hook(_taking_away(layer))
            stack.callback(handle.remove)
        yield


def _taking_away(layer: AdaptedLinear) -> Any:
    def hook(_module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        states = torch.nn.functional.linear(inputs[0].float(), layer.low)
        return output - layer.added(states, output).to(output.dtype)

    return hook
