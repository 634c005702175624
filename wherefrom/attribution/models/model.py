"""Loads a causal language model from a folder, safely, with or without a PEFT adapter.

Safetensors only, no code from the folder, no network (`files`). The adapter is merged into the weights (`adapter`), everything is frozen and in float32.
What is read off the model (hidden states, error signals) is in `signals`.
"""

from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError

from wherefrom.attribution.models.adapter import merge_adapter
from wherefrom.attribution.models.files import ModelFingerprint, hash_beside
from wherefrom.attribution.models.render import Renderer
from wherefrom.attribution.models.rule import RenderingRule
from wherefrom.errors import UnusableModel


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

    def with_rule(self, rule: RenderingRule) -> "LanguageModel":
        """The same model with its texts rendered by another rule."""
        return replace(self, renderer=self.renderer.with_rule(rule))


def load_model(
    model_dir: Path,
    adapter_dir: Path | None = None,
    *,
    marks: Future[ModelFingerprint] | None = None,
    rule: RenderingRule | None = None,
) -> LanguageModel:
    """Load, merge and freeze a model.

    Args:
        model_dir: a folder as `transformers` writes it.
        adapter_dir: a PEFT adapter trained on that model.
        marks: the hashes of both, where they are being computed already (`hash_beside`).
        rule: how texts are rendered beside the tokenizer's own chat template, as a bundle's manifest says.

    Raises:
        UnusableModel, UnsafeWeights: see `files.look_over`; or the model cannot be loaded from these files.
    """
    hashing = marks or hash_beside(model_dir, adapter_dir)
    _check_architecture(model_dir)
    model, tokenizer = _load(model_dir, adapter_dir)
    model.eval().requires_grad_(requires_grad=False)
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


def _load(model_dir: Path, adapter_dir: Path | None) -> tuple[Any, Any]:
    """Model, with its adapter merged, and tokenizer."""
    transformers.utils.logging.disable_progress_bar()
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            str(model_dir), local_files_only=True, trust_remote_code=False
        )
        from_folder: Any = transformers.AutoModelForCausalLM.from_pretrained(
            str(model_dir),
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
        model, loaded = from_folder
        if loaded["missing_keys"]:
            raise UnusableModel(
                f"{model_dir}: the weights lack {len(loaded['missing_keys'])} tensors of the architecture, such as "
                f"{min(loaded['missing_keys'])}; transformers would fill them with random numbers"
            )
        if adapter_dir is not None:
            model = merge_adapter(model, adapter_dir)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise UnusableModel(f"{model_dir}: cannot be loaded as a causal language model: {error}") from error
    other = next((name for name, one in model.named_parameters() if one.dtype != torch.float32), None)
    if other is not None:
        raise UnusableModel(
            f"{model_dir}: {other} does not load as float32; quantised weights cannot be attributed, give the folder they were made from"
        )
    return model, tokenizer


def _end_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Tokens that end a turn: the tokenizer's and those of the generation configuration."""
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    listed: Iterable[int | None] = configured if isinstance(configured, list) else [configured]
    return frozenset(one for one in [tokenizer.eos_token_id, *listed] if one is not None)


def _check_architecture(model_dir: Path) -> None:
    try:
        transformers.AutoConfig.from_pretrained(
            str(model_dir), local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError) as error:
        raise UnusableModel(f"{model_dir}: config.json is not a known architecture: {error}") from error
