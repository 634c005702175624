"""The embeddings and the head of a model that gets an adapter: their sizes, and whether they are one weight.

An adapter that was trained with further tokens holds larger embeddings than its base model. An adapter of the head alone, or of the embeddings alone, changes one of
two layers that share a weight in most small models: merged into the shared weight, it would change both.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wherefrom.errors import UnusableModel

#: Ends of the names of whole embeddings, alone or below an adapted layer.
_WHOLE = (".weight", ".base_layer.weight")
#: Ends of an adapter's tensors whose first or last dimension is the number of tokens.
_LOW_OF_EMBEDDING, _HIGH_OF_HEAD = ".lora_embedding_A", ".lora_B.weight"


def fit_embeddings(model: Any, stored: dict[str, Tensor], *, prefix: str, adapter_dir: Path) -> None:
    """Give a base model as many embeddings as its adapter has; new ones are the adapter's own.

    Args:
        model: the base model; changed in place.
        stored: the adapter's tensors.
        prefix: what stands before a module's name in them.
        adapter_dir: named in errors.

    Raises:
        UnusableModel: the adapter was trained with further tokens and does not hold their embeddings.
    """
    named = {id(module): name for name, module in model.named_modules()}
    layers = [model.get_input_embeddings(), model.get_output_embeddings()]
    names = [named.get(id(layer), "") for layer in layers]
    whole = [
        next((stored[one] for end in _WHOLE if (one := f"{prefix}{name}{end}") in stored), None)
        for name in names
    ]
    low = stored.get(f"{prefix}{names[0]}{_LOW_OF_EMBEDDING}")
    high = stored.get(f"{prefix}{names[1]}{_HIGH_OF_HEAD}")
    sizes = {len(one) for one in [*whole, high] if one is not None}
    sizes |= {low.shape[1]} if low is not None else set()
    before = len(layers[0].weight)
    if sizes <= {before}:
        return
    tied = layers[1] is not None and layers[1].weight is layers[0].weight
    held = whole[0] is not None or (tied and whole[1] is not None)
    if len(sizes) > 1 or (not held and max(sizes) > before):
        raise UnusableModel(
            f"{adapter_dir}: the adapter was trained with {max(sizes)} embeddings, the model has {before}, and the adapter does not hold the "
            "new ones; save it with save_embedding_layers=True"
        )
    model.resize_token_embeddings(sizes.pop(), mean_resizing=False)
    with torch.no_grad():
        for layer, weight in zip(
            (model.get_input_embeddings(), model.get_output_embeddings()), whole, strict=True
        ):
            if weight is not None and layer is not None:
                layer.weight[before:] = weight[before:].to(layer.weight.dtype)


def untie(model: Any) -> None:
    """Give the head a weight of its own where it shares the embeddings'."""
    embeddings, head = _inner(model.get_input_embeddings()), _inner(model.get_output_embeddings())
    if head is not None and head.weight is embeddings.weight:
        head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=head.weight.requires_grad)


def adapts_tied(model: Any) -> bool:
    """Whether peft adapts the embeddings or the head of a model that it wrapped."""
    layers = (model.get_input_embeddings(), model.get_output_embeddings())
    return any(hasattr(layer, "get_base_layer") for layer in layers)


def settle_tying(model: Any) -> None:
    """Let the configuration say whether embeddings and head are one weight."""
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head is not None and head.weight is not embeddings.weight:
        for config in (model.config, model.config.get_text_config()):
            config.tie_word_embeddings = False


def _inner(layer: Any) -> Any:
    """The layer itself, out of peft's wrapping."""
    return layer.get_base_layer() if hasattr(layer, "get_base_layer") else layer
