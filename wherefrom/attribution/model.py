"""Loads a causal language model from a folder, safely, with or without a PEFT adapter.

Safetensors only, no code from the folder, no network. The adapter is merged into the weights, everything is frozen and
in float32. What is read off the model (hidden states, error signals) is in `signals`.
"""

import hashlib
import json
import warnings
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from wherefrom.attribution.render import Renderer
from wherefrom.errors import UnsafeWeights, UnusableModel

#: One of these at least makes a tokenizer.
_VOCABULARY_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)
#: What decides how text becomes tokens and where a turn ends.
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "added_tokens.json",
    "generation_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
)


@dataclass(frozen=True)
class ModelFingerprint:
    """Hashes that tie a bundle to the exact model whose training it explains."""

    weights_sha256: str
    adapter_sha256: str | None
    tokenizer_sha256: str
    #: Bytes of the base model's and adapter's weight files.
    weight_bytes: int


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


def fingerprint(model_dir: Path, adapter_dir: Path | None) -> ModelFingerprint:
    """Hash a model folder's weights, adapter and tokenizer.

    Raises:
        UnusableModel: the folder or its configuration is missing.
        UnsafeWeights: there are no safetensors weights, or the folder wants to run its own code.
    """
    return _files_of(model_dir, adapter_dir).fingerprint()


@dataclass(frozen=True)
class _Files:
    """The files that make a model what it is; looked over, not yet hashed."""

    weights: list[Path]
    adapter: list[Path]
    tokenizer: list[Path]
    #: `config.json`, and the adapter's where there is one.
    configuration: Path
    adapter_configuration: list[Path]

    def fingerprint(self) -> ModelFingerprint:
        """Hash all of them: seconds per gigabyte."""
        return ModelFingerprint(
            weights_sha256=_sha256([*self.weights, self.configuration]),
            adapter_sha256=_sha256([*self.adapter, *self.adapter_configuration]) if self.adapter else None,
            tokenizer_sha256=_sha256(self.tokenizer),
            weight_bytes=sum(file.stat().st_size for file in [*self.weights, *self.adapter]),
        )


def _files_of(model_dir: Path, adapter_dir: Path | None) -> _Files:
    """Look over a model's folders; see `fingerprint` for what it raises."""
    weights = _safetensors(model_dir, "model")
    _check_configuration(model_dir)
    adapter = (
        _safetensors(adapter_dir, "adapter", "adapter_model.safetensors") if adapter_dir is not None else []
    )
    tokenizer = [model_dir / name for name in _TOKENIZER_FILES if (model_dir / name).is_file()]
    if not any((model_dir / name).is_file() for name in _VOCABULARY_FILES):
        raise UnusableModel(f"{model_dir}: holds no tokenizer (tokenizer.json or tokenizer.model)")
    extra = [adapter_dir / "adapter_config.json"] if adapter_dir is not None else []
    if extra and not extra[0].is_file():
        raise UnusableModel(f"{adapter_dir}: holds no adapter_config.json")
    return _Files(weights, adapter, tokenizer, model_dir / "config.json", extra)


def load_model(model_dir: Path, adapter_dir: Path | None = None) -> LanguageModel:
    """Load, merge and freeze a model.

    Args:
        model_dir: a folder as `transformers` writes it.
        adapter_dir: a PEFT adapter trained on that model.

    Raises:
        UnusableModel, UnsafeWeights: see `fingerprint`.
    """
    files = _files_of(model_dir, adapter_dir)
    with ThreadPoolExecutor(1) as pool:  # hashing lets go of the interpreter: it costs no time beside loading
        marks = pool.submit(files.fingerprint)
        model, tokenizer = _load(model_dir, adapter_dir)
    model.eval().requires_grad_(requires_grad=False)
    config = model.config.get_text_config()
    return LanguageModel(
        model=model,
        tokenizer=tokenizer,
        renderer=Renderer(tokenizer, end_ids=_end_ids(model, tokenizer)),
        fingerprint=marks.result(),
        layers=int(config.num_hidden_layers),
        hidden_size=int(config.hidden_size),
        parameters=sum(weight.numel() for weight in model.parameters()),
        max_positions=int(getattr(config, "max_position_embeddings", 0) or 2**31),
        base_folder=model_dir.resolve().name,
        adapter_folder=adapter_dir.resolve().name if adapter_dir is not None else None,
    )


def _load(model_dir: Path, adapter_dir: Path | None) -> tuple[Any, Any]:
    """Model, with its adapter merged, and tokenizer."""
    transformers_logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(model_dir), local_files_only=True, trust_remote_code=False
        )
        from_folder: Any = AutoModelForCausalLM.from_pretrained(
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
            model = _merge_adapter(model, adapter_dir)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise UnusableModel(f"{model_dir}: cannot be loaded as a causal language model: {error}") from error
    return model, tokenizer


def _merge_adapter(model: Any, adapter_dir: Path) -> Any:
    from peft import PeftModel, get_peft_model_state_dict  # noqa: PLC0415 - only with an adapter; slow to import

    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Found missing adapter keys")
        warnings.filterwarnings("ignore", category=FutureWarning)  # peft's own use of transformers
        try:
            adapted = PeftModel.from_pretrained(model, str(adapter_dir), local_files_only=True)
        except UserWarning as error:
            raise UnusableModel(
                f"{adapter_dir}: the adapter lacks weights for layers of this model"
            ) from error
    known = get_peft_model_state_dict(adapted, save_embedding_layers=False).keys()
    stored = load_file(adapter_dir / "adapter_model.safetensors").keys()
    unknown = sorted(name for name in stored - known if ".lora_" in name)
    if unknown:
        raise UnusableModel(
            f"{adapter_dir}: {len(unknown)} tensors of the adapter have no place in this model, such as {unknown[0]}"
        )
    if not hasattr(adapted.base_model, "merge_and_unload"):
        raise UnusableModel(
            f"{adapter_dir}: only adapters that merge into the weights, such as LoRA, can be explained"
        )
    return adapted.merge_and_unload()


def _end_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Tokens that end a turn: the tokenizer's and those of the generation configuration."""
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    listed: Iterable[int | None] = configured if isinstance(configured, list) else [configured]
    return frozenset(one for one in [tokenizer.eos_token_id, *listed] if one is not None)


def _safetensors(folder: Path, what: str, pattern: str = "*.safetensors") -> list[Path]:
    if not folder.is_dir():
        raise UnusableModel(f"{folder}: no such {what} folder")
    files = sorted(folder.glob(pattern))
    if not files:
        pickles = [one.name for ending in ("*.bin", "*.pt", "*.pth", "*.ckpt") for one in folder.glob(ending)]
        found = f"only {', '.join(sorted(pickles))}" if pickles else "no weights"
        raise UnsafeWeights(
            f"{folder}: {found}; wherefrom loads safetensors only, since pickle files can run code. "
            "Convert with save_pretrained(..., safe_serialization=True)"
        )
    return files


def _check_configuration(model_dir: Path) -> None:
    file = model_dir / "config.json"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UnusableModel(f"{model_dir}: holds no config.json") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UnusableModel(f"{file}: not readable as JSON") from error
    if "auto_map" in content:
        raise UnsafeWeights(
            f"{model_dir}: config.json asks to run code of its own (auto_map), which wherefrom never does"
        )
    try:
        AutoConfig.from_pretrained(str(model_dir), local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise UnusableModel(f"{model_dir}: config.json is not a known architecture: {error}") from error


def _sha256(files: Iterable[Path]) -> str:
    """One hash over names and contents, in order."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\x00")
        with file.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()
