"""A sentence encoder that the user gives: it reads the text alone, knows nothing of the audited model, and finds paraphrases that share few words.

    v(x) = unit( mean_t h_t(x) )        h_t: last hidden states; with `pooling_mode_cls_token` the first one instead of the mean

What it finds is *what says the same*, not what changed the model: it enters the candidates and the order shown, never the effect. On the facts of a small model it was
by far the best single part of the order shown, where the audited model's own hidden states were too weak to see a paraphrase (docs/experiments.md). Any
encoder that `transformers` loads from a folder of safetensors, such as those of sentence-transformers; instructions before the text, which some models want, are not given.

References:
    arXiv:1908.10084 (sentence embeddings by pooled hidden states).
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors import SafetensorError

from wherefrom.attribution.models.files import look_over
from wherefrom.attribution.retrieval.index import VectorIndex, Vectors
from wherefrom.errors import UnusableModel
from wherefrom.json_text import read_json

#: Where a bundle holds its encoder, below `features` the corpus' vectors.
ENCODER = "encoder"
ENCODED = "encoded.npy"
#: What a folder of sentence-transformers says about the encoder beside its weights.
POOLING = "1_Pooling/config.json"
_LENGTH = "sentence_bert_config.json"
_MODULES = "modules.json"
_FIRST, _MEAN = "pooling_mode_cls_token", "pooling_mode_mean_tokens"
_LONGEST = 512
_BATCH = 32
#: Everything that is copied into a bundle.
_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "sentencepiece.bpe.model",
    _LENGTH,
    _MODULES,
    POOLING,
)


class SentenceEncoder:
    """Turns texts into unit vectors."""

    def __init__(self, model: Any, tokenizer: Any, *, first_token: bool, longest: int) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._first_token = first_token
        self._longest = longest

    @classmethod
    def load(cls, folder: Path, device: torch.device | None = None) -> "SentenceEncoder":
        """Load an encoder from a folder, frozen and in float32, on a device (None: the CPU).

        Raises:
            UnusableModel: the folder cannot be loaded as an encoder.
            UnsafeWeights: there are no safetensors weights, or the folder wants to run its own code.
        """
        look_over(folder)
        first_token = _pools_first_token(folder)
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                str(folder), local_files_only=True, trust_remote_code=False
            )
            model, loaded = transformers.AutoModel.from_pretrained(
                str(folder),
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
            )
        except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
            raise UnusableModel(f"{folder}: cannot be loaded as a sentence encoder: {error}") from error
        # the pooler on top of the first token is not read
        missing = [name for name in loaded["missing_keys"] if not name.startswith("pooler.")]
        if missing:
            raise UnusableModel(
                f"{folder}: the weights lack {len(missing)} tensors of the architecture, such as {min(missing)}"
            )
        if tokenizer.pad_token is None:
            if tokenizer.eos_token is None:
                raise UnusableModel(f"{folder}: the tokenizer has neither a padding token nor an end token")
            tokenizer.pad_token = tokenizer.eos_token
        positions = int(getattr(model.config, "max_position_embeddings", 0) or _LONGEST)
        return cls(
            model.eval().requires_grad_(requires_grad=False).to(device or "cpu"),
            tokenizer,
            first_token=first_token,
            longest=min(_LONGEST, positions, int(_read(folder / _LENGTH).get("max_seq_length") or _LONGEST)),
        )

    @torch.no_grad()
    def embed(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors `[N, E]`, float32, in order; a text is cut at the encoder's own longest length."""
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        found = np.zeros((len(texts), int(self._model.config.hidden_size)), dtype=np.float32)
        for first in range(0, len(order), _BATCH):
            batch = order[first : first + _BATCH]
            read = self._tokenizer(
                [texts[index] for index in batch],
                padding=True,
                truncation=True,
                max_length=self._longest,
                return_tensors="pt",
            ).to(self._model.device)
            states = self._model(**read).last_hidden_state  # [B, W, E]
            weights = read["attention_mask"][..., None].float()
            if self._first_token:
                pooled = states[:, 0]
            else:
                pooled = (states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1.0)
            found[batch] = torch.nn.functional.normalize(pooled, dim=1).cpu().numpy()
        return found


@dataclass(frozen=True)
class EncodedCorpus:
    """A bundle's encoder with its vectors of the corpus."""

    encoder: SentenceEncoder
    #: `[N, E]` unit vectors, memory-mapped.
    vectors: Vectors
    index: VectorIndex


def copy_encoder(folder: Path, target: Path) -> None:
    """Copy the files of an encoder that `SentenceEncoder.load` reads, so that a bundle carries its own.

    Raises:
        UnusableModel, UnsafeWeights: see `SentenceEncoder.load`.
    """
    files = [*look_over(folder).weights, *(folder / name for name in _FILES)]
    for file in filter(Path.is_file, files):
        home = target / file.relative_to(folder)
        home.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, home)


def _pools_first_token(folder: Path) -> bool:
    """Whether the first token's state is the text's vector; False for the mean of all.

    Raises:
        UnusableModel: the folder pools otherwise, or goes on behind the pooling.
    """
    steps = _read_any(folder / _MODULES)
    types = [str(one.get("type", "")).rpartition(".")[2] for one in steps or [] if isinstance(one, dict)]
    asked = {
        name
        for name, on in _read(folder / POOLING).items()
        if name.startswith("pooling_mode_") and on is True
    }
    other = sorted({*types} - {"Transformer", "Pooling", "Normalize"}) or sorted(asked - {_FIRST, _MEAN})
    if other or asked == {_FIRST, _MEAN}:
        raise UnusableModel(
            f"{folder}: this encoder needs {' and '.join(other or sorted(asked))}; only encoders that use the mean or the first token's state are supported"
        )
    return _FIRST in asked


def _read(file: Path) -> dict[str, Any]:
    content = _read_any(file)
    return content if isinstance(content, dict) else {}


def _read_any(file: Path) -> Any:
    """The content of a JSON file; None where there is no such file."""
    if not file.is_file():
        return None
    try:
        return read_json(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UnusableModel(f"{file}: not readable as JSON") from error
