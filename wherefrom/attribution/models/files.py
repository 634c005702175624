"""The files of a model's folders: looked over and hashed without loading anything.

Safetensors only, no code from the folder. The hashes tie a bundle to the exact model whose training it explains. Hashing takes seconds per gigabyte and lets go of
the interpreter, so `hash_beside` runs it while torch is imported and the weights are loaded.
"""

import hashlib
import json
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

from safetensors import SafetensorError, safe_open

from wherefrom.errors import UnsafeWeights, UnusableModel
from wherefrom.json_text import read_json

#: One of these at least makes a tokenizer.
_VOCABULARY_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)
#: Files that hold a vocabulary, so that a folder with one of them has a tokenizer of its own.
_VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
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
ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIGURATION = "adapter_config.json"


@dataclass(frozen=True)
class ModelFolders:
    """The folders of a model, of its adapter and of the weights it began with."""

    model: Path
    adapter: Path | None = None
    #: What a full fine-tune began with, where the bundle needs it.
    start: Path | None = None

    def present(self) -> bool:
        """Whether all of them are here."""
        return all(folder is None or folder.is_dir() for folder in (self.model, self.adapter, self.start))


@dataclass(frozen=True)
class ModelFingerprint:
    """Hashes that tie a bundle to the exact model whose training it explains."""

    weights_sha256: str
    adapter_sha256: str | None
    tokenizer_sha256: str
    #: Bytes of the base model's and adapter's weight files.
    weight_bytes: int


@dataclass(frozen=True)
class ModelFiles:
    """The files that make a model what it is; looked over, not yet hashed."""

    weights: tuple[Path, ...]
    adapter: tuple[Path, ...]
    tokenizer: tuple[Path, ...]
    #: `config.json`, and the adapter's where there is one.
    configuration: Path
    adapter_configuration: tuple[Path, ...]

    def fingerprint(self) -> ModelFingerprint:
        """Hash all of them."""
        return ModelFingerprint(
            weights_sha256=_sha256([*self.weights, self.configuration]),
            adapter_sha256=_sha256([*self.adapter, *self.adapter_configuration]) if self.adapter else None,
            tokenizer_sha256=_sha256(self.tokenizer),
            weight_bytes=sum(file.stat().st_size for file in [*self.weights, *self.adapter]),
        )


def look_over(model_dir: Path, adapter_dir: Path | None = None) -> ModelFiles:
    """Find the files of a model and refuse what must not be loaded; whether its architecture is known shows when it is loaded.

    Raises:
        UnusableModel: the folder, its configuration or its tokenizer is missing.
        UnsafeWeights: there are no safetensors weights, or the folder wants to run its own code.
    """
    weights = _safetensors(model_dir, "model")
    _check_shards(model_dir, weights)
    _check_configuration(model_dir)
    adapter = [] if adapter_dir is None else _safetensors(adapter_dir, "adapter", ADAPTER_WEIGHTS)
    folders = [model_dir, *([] if adapter_dir is None else [adapter_dir])]
    tokenizer = [
        folder / name for folder in folders for name in _TOKENIZER_FILES if (folder / name).is_file()
    ]
    if not any((folder / name).is_file() for folder in folders for name in _VOCABULARY_FILES):
        raise UnusableModel(f"{model_dir}: holds no tokenizer (tokenizer.json or tokenizer.model)")
    for file in weights:
        _check_header(file, "cannot be loaded as a causal language model")
    for file in adapter:
        _check_header(file, "the adapter cannot be loaded")
    extra = [] if adapter_dir is None else [adapter_dir / ADAPTER_CONFIGURATION]
    if extra and not extra[0].is_file():
        raise UnusableModel(f"{adapter_dir}: holds no {ADAPTER_CONFIGURATION}")
    return ModelFiles(
        tuple(weights), tuple(adapter), tuple(tokenizer), model_dir / "config.json", tuple(extra)
    )


def fingerprint(model_dir: Path, adapter_dir: Path | None = None) -> ModelFingerprint:
    """Hash a model folder's weights, adapter and tokenizer; see `look_over` for what it raises."""
    return look_over(model_dir, adapter_dir).fingerprint()


def hash_beside(model_dir: Path, adapter_dir: Path | None = None) -> Future[ModelFingerprint]:
    """Begin to hash a model in a thread of its own, to be read once the model is loaded.

    Raises:
        UnusableModel, UnsafeWeights: see `look_over`; at once, not by the future.
    """
    files = look_over(model_dir, adapter_dir)
    found: Future[ModelFingerprint] = Future()

    def work() -> None:
        try:
            found.set_result(files.fingerprint())
        except BaseException as error:  # noqa: BLE001 - raised where the future is read
            found.set_exception(error)

    Thread(target=work, name="wherefrom-hash", daemon=True).start()
    return found


def tokenizer_folder(model_dir: Path, adapter_dir: Path | None) -> Path:
    """The folder whose tokenizer is used: the adapter's where it holds a vocabulary, else the model's."""
    if adapter_dir is not None and any((adapter_dir / name).is_file() for name in _VOCABULARIES):
        return adapter_dir
    return model_dir


def own_template_file(adapter_dir: Path) -> Path | None:
    """The file of an adapter's folder that holds a chat template, or may hold one."""
    names = ("chat_template.jinja", "tokenizer_config.json")
    return next((adapter_dir / name for name in names if (adapter_dir / name).is_file()), None)


def _safetensors(folder: Path, what: str, pattern: str = "*.safetensors") -> list[Path]:
    if folder.is_file():
        raise UnusableModel(f"{folder} is a file; give the {what}'s folder, as save_pretrained writes it")
    if not folder.is_dir():
        raise UnusableModel(f"{folder}: {what} folder not found")
    files = sorted(folder.glob(pattern))
    quantised = sorted(one.name for one in folder.glob("*.gguf"))
    if quantised and not files:
        raise UnsafeWeights(
            f"{folder}: only {', '.join(quantised)}; wherefrom does not read GGUF weights. Give the folder of safetensors that they were made from"
        )
    if not files:
        pickles = [one.name for ending in ("*.bin", "*.pt", "*.pth", "*.ckpt") for one in folder.glob(ending)]
        found = f"only {', '.join(sorted(pickles))}" if pickles else "no weights"
        raise UnsafeWeights(
            f"{folder}: {found}; wherefrom loads safetensors only, because pickle files can run code. "
            "Convert them with save_pretrained(..., safe_serialization=True)"
        )
    return files


def _check_shards(model_dir: Path, weights: list[Path]) -> None:
    """Refuse a folder that lacks a part of its weights."""
    file = model_dir / "model.safetensors.index.json"
    if not file.is_file() or model_dir / "model.safetensors" in weights:
        return
    try:
        named = {str(name) for name in read_json(file.read_text(encoding="utf-8"))["weight_map"].values()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnusableModel(f"{file}: does not say which file holds which tensor") from error
    missing = sorted(named - {one.name for one in weights})
    if missing:
        raise UnusableModel(
            f"{model_dir}: {len(missing)} of {len(named)} weight files are missing, such as {missing[0]}; copy them here"
        )


def _check_header(file: Path, problem: str) -> None:
    """Refuse a weight file that is not whole, by its name."""
    try:
        with safe_open(file, framework="np"):
            pass
    except (SafetensorError, OSError) as error:
        raise UnusableModel(
            f"{file.parent}: {problem}: {file.name} is not a whole safetensors file ({error}); download or copy it again"
        ) from error


def _check_configuration(model_dir: Path) -> None:
    file = model_dir / "config.json"
    try:
        content = read_json(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UnusableModel(f"{model_dir}: holds no config.json") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UnusableModel(f"{file}: not readable as JSON") from error
    if not isinstance(content, dict):
        raise UnusableModel(f"{file}: not a JSON object")
    if "auto_map" in content:
        raise UnsafeWeights(
            f"{model_dir}: config.json asks to run its own code (auto_map), which wherefrom never does"
        )


def _sha256(files: Iterable[Path]) -> str:
    """One hash over names and contents, in order."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\x00")
        with file.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()
