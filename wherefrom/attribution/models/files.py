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
ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIGURATION = "adapter_config.json"


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
    _check_configuration(model_dir)
    adapter = [] if adapter_dir is None else _safetensors(adapter_dir, "adapter", ADAPTER_WEIGHTS)
    tokenizer = [model_dir / name for name in _TOKENIZER_FILES if (model_dir / name).is_file()]
    if not any((model_dir / name).is_file() for name in _VOCABULARY_FILES):
        raise UnusableModel(f"{model_dir}: holds no tokenizer (tokenizer.json or tokenizer.model)")
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


def _sha256(files: Iterable[Path]) -> str:
    """One hash over names and contents, in order."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\x00")
        with file.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()
