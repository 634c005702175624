"""Loads a causal language model from a folder, safely, with or without a PEFT adapter.

Safetensors only, no code from the folder, no network (`files`). The adapter is merged into the weights (`adapter`) in float32, on the CPU; then everything is frozen and brought to
its device and numbers (`placement`).
What is read off the model (hidden states, error signals) is in `signals`.
"""

from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from wherefrom.attribution.memory import memory_errors
from wherefrom.attribution.models.files import ModelFingerprint, hash_beside
from wherefrom.attribution.models.loading import load_configuration, load_tokenizer, load_weights
from wherefrom.attribution.models.placement import CPU, Placement
from wherefrom.attribution.models.render import Renderer
from wherefrom.attribution.models.rule import RenderingRule


@dataclass(frozen=True)
class LanguageModel:
    """A frozen causal language model with its tokenizer."""

    model: Any
    tokenizer: Any
    renderer: Renderer
    fingerprint: ModelFingerprint
    #: Transformer blocks; there are `layers` + 1 hidden states, the last one final-normed.
    layers: int
    hidden_size: int
    parameters: int
    #: Longest sequence that the positions allow.
    max_positions: int
    base_folder: str
    adapter_folder: str | None

    @property
    def device(self) -> torch.device:
        """Where token ids go and signals come from; of a model spread over several devices, the first one."""
        found: torch.device = self.model.get_input_embeddings().weight.device
        return found

    @property
    def dtype(self) -> torch.dtype:
        """Numbers of the pass."""
        found: torch.dtype = self.model.get_input_embeddings().weight.dtype
        return found

    def with_rule(self, rule: RenderingRule) -> "LanguageModel":
        """The same model with its texts rendered by another rule."""
        return replace(self, renderer=self.renderer.with_rule(rule))


def load_model(
    model_dir: Path,
    adapter_dir: Path | None = None,
    *,
    marks: Future[ModelFingerprint] | None = None,
    rule: RenderingRule | None = None,
    merge: bool = True,
    placement: Placement = CPU,
) -> LanguageModel:
    """Load, merge and freeze a model, and bring it to where it computes.

    Args:
        model_dir: a folder as `transformers` writes it.
        adapter_dir: a PEFT adapter trained on that model.
        marks: the hashes of both, where they are being computed already (`hash_beside`).
        rule: how texts are rendered beside the tokenizer's own chat template, as a bundle's manifest says.
        merge: whether the adapter is merged; else the model is what the adapter's fine-tune began with: the base model with the adapter's tokenizer and number of
            embeddings.
        placement: device and numbers.

    Raises:
        OutOfMemory: it does not fit there.
        ConfigurationError: it must be spread over several GPUs and cannot be.
        UnusableModel, UnsafeWeights: see `files.look_over`; or the model cannot be loaded from these files.
    """
    hashing = marks or hash_beside(model_dir, adapter_dir)
    config = load_configuration(model_dir)
    tokenizer = load_tokenizer(model_dir, adapter_dir, config=config)
    model = load_weights(model_dir, adapter_dir, config=config, merge=merge)
    model.eval().requires_grad_(requires_grad=False)
    with memory_errors(f"the model {model_dir.resolve().name}"):
        model = placement.put(model)
    config = model.config.get_text_config()
    return LanguageModel(
        model=model,
        tokenizer=tokenizer,
        renderer=Renderer(
            tokenizer,
            end_ids=_end_ids(model, tokenizer),
            embeddings=len(model.get_input_embeddings().weight),
            rule=rule,
        ),
        fingerprint=hashing.result(),
        layers=int(config.num_hidden_layers),
        hidden_size=int(config.hidden_size),
        parameters=sum(weight.numel() for weight in model.parameters()),
        max_positions=int(getattr(config, "max_position_embeddings", 0) or 2**31),
        base_folder=model_dir.resolve().name,
        adapter_folder=adapter_dir.resolve().name if adapter_dir is not None else None,
    )


def _end_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Tokens that end a turn: the tokenizer's and those of the generation configuration."""
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    listed: Iterable[int | None] = configured if isinstance(configured, list) else [configured]
    return frozenset(one for one in [tokenizer.eos_token_id, *listed] if one is not None)
