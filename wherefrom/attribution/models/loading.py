"""Loads tokenizer and weights from folders of other people's making; whatever is wrong with one becomes one line that names it.

What can be seen without loading anything is looked at first (`files`). The tokenizer and the chat template of an adapter's folder count before those of its base model: they are
what the fine-tune was made with.
"""

from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from wherefrom.attribution.models.adapter import fit_to_adapter, merge_adapter
from wherefrom.attribution.models.files import own_template_file, tokenizer_folder
from wherefrom.errors import UnusableModel
from wherefrom.json_text import read_json

#: What libraries raise over files that they cannot make sense of; a bug of ours looks no different there.
_LOADING_ERRORS = (
    OSError,
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    RuntimeError,
    ImportError,
    AssertionError,
    SafetensorError,
    StrictDataclassError,
)
_LONGEST = 300
_GIVE_BASE = "give the folder that they were made from"


def load_configuration(model_dir: Path) -> Any:
    """The model's configuration, of an architecture that can be explained.

    Raises:
        UnusableModel: it is unknown, or no causal language model.
    """
    try:
        config = transformers.AutoConfig.from_pretrained(
            str(model_dir), local_files_only=True, trust_remote_code=False
        )
    except _LOADING_ERRORS as error:
        raise UnusableModel(
            f"{model_dir}: config.json is not a known architecture: {_line(error)}"
        ) from error
    if getattr(config, "is_encoder_decoder", False):
        raise UnusableModel(
            f"{model_dir}: {config.model_type} is an encoder-decoder model; only causal (decoder-only) language models can be explained"
        )
    return config


def load_tokenizer(model_dir: Path, adapter_dir: Path | None, *, config: Any) -> Any:
    """The tokenizer that the fine-tune was made with: the adapter's own where its folder holds one, else the base model's.

    Raises:
        UnusableModel: it cannot be loaded.
    """
    folder = tokenizer_folder(model_dir, adapter_dir)
    tokenizer = _tokenizer(folder, None if folder == model_dir else config)
    template = None if adapter_dir is None else _own_template(adapter_dir)
    if template is not None:
        tokenizer.chat_template = template
    elif folder != model_dir and tokenizer.chat_template is None:
        tokenizer.chat_template = _tokenizer(model_dir, None).chat_template
    return tokenizer


def _tokenizer(folder: Path, config: Any | None) -> Any:
    known = {} if config is None else {"config": config}
    try:
        return transformers.AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False, **known
        )
    except MemoryError:
        raise
    except Exception as error:  # the tokenizers library raises Exception itself
        raise UnusableModel(f"{folder}: the tokenizer cannot be loaded: {_line(error)}") from error


def _own_template(adapter_dir: Path) -> Any:
    """The chat template of an adapter's folder: a file of its own, or an entry of its tokenizer's configuration."""
    file = own_template_file(adapter_dir)
    if file is None:
        return None
    try:
        text = file.read_text(encoding="utf-8")
        if file.suffix != ".json":
            return text
        found = read_json(text).get("chat_template")
    except (OSError, ValueError, AttributeError) as error:
        raise UnusableModel(f"{file}: the chat template cannot be read: {_line(error)}") from error
    if isinstance(found, list):  # several by name, as some tokenizers have them
        return {one["name"]: one["template"] for one in found}
    return found


def load_weights(model_dir: Path, adapter_dir: Path | None, *, config: Any, merge: bool) -> Any:
    """The model in float32, with its adapter merged, or only with the adapter's number of embeddings.

    Raises:
        UnusableModel: weights or adapter do not fit; the text names the folder that is at fault.
    """
    transformers.utils.logging.disable_progress_bar()
    model = _base(model_dir, config)
    if adapter_dir is not None:
        try:
            if merge:
                model = merge_adapter(model, adapter_dir)
            else:
                fit_to_adapter(model, adapter_dir)
        except _LOADING_ERRORS as error:
            raise UnusableModel(
                f"{adapter_dir}: the adapter cannot be merged into {model_dir}: {_line(error)}"
            ) from error
    other = next((name for name, one in model.named_parameters() if one.dtype != torch.float32), None)
    if other is not None:
        raise UnusableModel(
            f"{model_dir}: {other} does not load as float32; quantised weights cannot be attributed, {_GIVE_BASE}"
        )
    return model


def _base(model_dir: Path, config: Any) -> Any:
    quantised = getattr(config, "quantization_config", None) is not None
    try:
        from_folder: Any = transformers.AutoModelForCausalLM.from_pretrained(
            str(model_dir),
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except _LOADING_ERRORS as error:
        if quantised:
            raise UnusableModel(
                f"{model_dir}: quantised weights cannot be attributed, {_GIVE_BASE} ({_line(error)})"
            ) from error
        raise UnusableModel(
            f"{model_dir}: cannot be loaded as a causal language model: {_line(error)}"
        ) from error
    model, loaded = from_folder
    if loaded["mismatched_keys"]:
        name, stored, wanted = min(loaded["mismatched_keys"])
        raise UnusableModel(
            f"{model_dir}: size mismatch for {len(loaded['mismatched_keys'])} tensors: {name} is {tuple(stored)} in the weights, but "
            f"{tuple(wanted)} in config.json; the two belong to different models"
        )
    if loaded["missing_keys"]:
        raise UnusableModel(
            f"{model_dir}: the weights lack {len(loaded['missing_keys'])} tensors of the architecture, such as "
            f"{min(loaded['missing_keys'])}; transformers would fill them with random numbers"
        )
    return model


def _line(error: BaseException) -> str:
    """What a library says, on one line of bounded length."""
    said = " ".join(str(error).split()) or type(error).__name__
    return said if len(said) <= _LONGEST else said[:_LONGEST] + "..."
