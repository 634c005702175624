"""The deep bank as peers see it: the model with its adapter beside the weights, so that A and B of every adapted layer are linear layers of their own.

    y = W x + m s B A x          m = 1 as trained, m = .5 at the point that the form `adapter` reads

The adapter is not merged. Its strength m is PEFT's own scaling, so a library that knows nothing of it reads the model half-way through its fine-tune.
"""

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.deep_bank.material import RECIPE, bank_sha256, read_bank_queries, read_plan, read_rows
from benchmarks.deep_bank.train import ensure_adapter
from scripts.smollm2 import default_cache, ensure_base_model
from wherefrom.attribution.corpus import CorpusRow
from wherefrom.attribution.models.files import ADAPTER_WEIGHTS, ModelFolders
from wherefrom.attribution.models.model import LanguageModel, load_model
from wherefrom.attribution.models.render import TokenRow
from wherefrom.retraining.training import token_rows

_ADAPTER = "default"
_LOW, _HIGH = f".lora_A.{_ADAPTER}", f".lora_B.{_ADAPTER}"


@dataclass(frozen=True)
class AdapterSubject:
    """A base model with a LoRA adapter, its corpus and the queries."""

    folders: ModelFolders
    scratch: Path
    corpus: tuple[CorpusRow, ...]
    queries: tuple[CorpusRow, ...]
    rows: tuple[TokenRow, ...]
    asked: tuple[TokenRow, ...]
    teachers: tuple[TokenRow, ...]
    #: Of the adapter at the point that is read.
    strength: float = 1.0

    def language(self) -> LanguageModel:
        """A fresh copy with the adapter beside the weights."""
        return beside(self.folders, self.strength)

    def linears(self, language: LanguageModel) -> tuple[str, ...]:
        """A and B of every adapted layer, in the model's order."""
        return lora_linears(language)


def beside(folders: ModelFolders, strength: float) -> LanguageModel:
    """The base model with its adapter beside the weights, at a strength; frozen."""
    from peft import PeftModel  # noqa: PLC0415 - slow to import, and only an adapter needs it

    base = load_model(folders.model, folders.adapter, merge=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)  # peft's own use of transformers
        model = PeftModel.from_pretrained(base.model, str(folders.adapter), local_files_only=True)
    for module in model.modules():
        scaling = getattr(module, "scaling", None)
        if isinstance(scaling, dict):
            scaling[_ADAPTER] *= strength
    return replace(base, model=model.eval().requires_grad_(requires_grad=False))


def lora_linears(language: LanguageModel) -> tuple[str, ...]:
    """Names of A and B of every adapted layer."""
    return tuple(name for name, _ in language.model.named_modules() if name.endswith((_LOW, _HIGH)))


def read_bank_subject(work: Path, scratch: Path, *, strength: float = 1.0) -> AdapterSubject:
    """The bank with its adapter; the queries that a method may look at are those of the choosing half.

    Args:
        work: folder of the adapter that was trained on all rows; it is trained where it is missing.
        scratch: folder that the peer may write to.
        strength: of the adapter at the point that is read.
    """
    folders = ModelFolders(ensure_base_model(default_cache()), ensure_adapter(work))
    corpus = read_rows()
    queries = [one.row for one in read_bank_queries(corpus)]
    language = load_model(folders.model, folders.adapter, merge=False)
    rows, asked = (
        tuple(token_rows(language, some, max_tokens=RECIPE.max_tokens)) for some in (corpus, queries)
    )
    teachers = tuple(asked[place] for place in read_plan().queries_of("choose", len(asked)))
    return AdapterSubject(
        folders, scratch, tuple(corpus), tuple(queries), rows, asked, teachers, strength=strength
    )


def identity(work: Path) -> str:
    """Hash of the bank's rows, queries and recipe, and of the weights that are read."""
    weights = [
        ensure_base_model(default_cache()) / "model.safetensors",
        ensure_adapter(work) / ADAPTER_WEIGHTS,
    ]
    return _hash([bank_sha256(), *(hashlib.sha256(file.read_bytes()).hexdigest() for file in weights)])


def _hash(parts: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
