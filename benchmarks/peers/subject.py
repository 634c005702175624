"""What every peer is given and what it gives back: one folder of measured ground truth, scores with their cost.

The rows are rendered once, by our renderer, so that every peer sees the same tokens and the same explained positions. A peer loads its own copy of the model
(some of them wrap its modules); loading and imports are left out of everybody's seconds.
"""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from benchmarks.small_model import QUERIES, SmallModel
from wherefrom.attribution.corpus import CorpusRow
from wherefrom.attribution.ekfac.gradients import block_linears
from wherefrom.attribution.models.model import LanguageModel, load_model
from wherefrom.attribution.models.render import TokenRow
from wherefrom.attribution.ranking_metrics import Matrix
from wherefrom.evaluation import cost
from wherefrom.evaluation.asking import MAX_TOKENS

#: Label of a position that predicts nothing.
IGNORED = -100


T = TypeVar("T")


@dataclass(frozen=True)
class Scored:
    """One method's scores of every query with every training example, and what they cost."""

    #: float32 `[Q, N]`, in the files' orders; positive = proponent.
    scores: Matrix
    #: Processor seconds of one thread, as all seconds here.
    seconds_build: float
    seconds_per_query: float
    #: All that is stored for the corpus, divided by its examples.
    bytes_per_example: float
    #: Settings and deviations, for the reader of the table.
    note: str


class Material(Protocol):
    """What a peer is given."""

    @property
    def scratch(self) -> Path:
        """Folder that the peer may write to."""

    @property
    def corpus(self) -> tuple[CorpusRow, ...]:
        """The training examples as texts."""

    @property
    def queries(self) -> tuple[CorpusRow, ...]:
        """The queries as texts."""

    @property
    def rows(self) -> tuple[TokenRow, ...]:
        """The training examples as tokens."""

    @property
    def asked(self) -> tuple[TokenRow, ...]:
        """The queries as tokens."""

    @property
    def teachers(self) -> tuple[TokenRow, ...]:
        """Queries that a method may look at before it is evaluated."""

    def language(self) -> LanguageModel:
        """A fresh copy of the audited model."""

    def linears(self, language: LanguageModel) -> tuple[str, ...]:
        """The linear layers of such a copy whose weights are compared, in the model's order."""


@dataclass(frozen=True)
class Subject:
    """The small model, its corpus and the queries."""

    folder: SmallModel
    #: Folder that the peer may write to.
    scratch: Path
    corpus: tuple[CorpusRow, ...]
    queries: tuple[CorpusRow, ...]
    rows: tuple[TokenRow, ...]
    asked: tuple[TokenRow, ...]
    #: Separate queries: the only ones that a method may look at before it is evaluated.
    teachers: tuple[TokenRow, ...]
    #: Weights of further models trained on the same corpus, for methods that average over models.
    checkpoints: tuple[Path, ...] = field(default=())

    def language(self) -> LanguageModel:
        """A fresh copy of the audited model."""
        return load_model(self.folder.model)

    def linears(self, language: LanguageModel) -> tuple[str, ...]:
        """All of the blocks."""
        return block_linears(language)


def trainable(language: LanguageModel, names: Sequence[str]) -> LanguageModel:
    """The model with gradients of these layers' weights alone: the hooks of libraries need a graph, and no more of it costs time."""
    for name in names:
        language.model.get_submodule(name).weight.requires_grad_(requires_grad=True)
    return language


def read_subject(folder: SmallModel, scratch: Path, checkpoints: Sequence[Path]) -> Subject:
    """Read and render a folder with its queries and teacher queries."""
    language = load_model(folder.model)
    corpus, queries, teachers = folder.corpus, *(folder.queries(name) for name in QUERIES)
    return Subject(
        folder,
        scratch,
        corpus,
        queries,
        rows=_render(language, corpus),
        asked=_render(language, queries),
        teachers=_render(language, teachers),
        checkpoints=tuple(checkpoints),
    )


def identity(folder: SmallModel, checkpoints: Sequence[Path]) -> str:
    """Hash of all inputs; scores of other inputs are never taken for these."""
    digest = hashlib.sha256()
    files = [folder.corpus_file, *(folder.queries_file(name) for name in QUERIES)]
    weights = [one / "model.safetensors" for one in (folder.model, *checkpoints)]
    for file in [*files, *weights]:
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


@dataclass(frozen=True)
class Padded:
    """A batch, padded on the right; all `[B, W]`, int64."""

    #: Token ids without each row's last one, which no position reads to predict anything.
    ids: Tensor
    mask: Tensor
    #: The token that each position predicts, `IGNORED` where it is not explained.
    targets: Tensor


def pad(rows: Sequence[TokenRow], width: int | None = None) -> Padded:
    """Pad rows to the longest of them, or to a width."""
    width = width or max(len(row.ids) - 1 for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    targets = torch.full((len(rows), width), IGNORED, dtype=torch.long)
    for index, row in enumerate(rows):
        ids[index, : len(row.ids) - 1] = torch.tensor(row.ids[:-1])
        mask[index, : len(row.ids) - 1] = 1
        for step, explained in enumerate(row.explained):
            if explained:
                targets[index, row.start + step - 1] = row.ids[row.start + step]
    return Padded(ids, mask, targets)


def labels_of(row: TokenRow) -> list[int]:
    """One label per token of the row, not shifted: the token itself where it is explained, else `IGNORED`."""
    flags = [False] * row.start + list(row.explained)
    return [token if flag else IGNORED for token, flag in zip(row.ids, flags, strict=True)]


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """What the work gives, and its processor seconds; other processes on the machine change these far less than the clock's."""
    return cost.timed(work, clock=time.process_time)


def text_of(row: CorpusRow) -> str:
    """Prompt and completion, as our own lexical index takes them."""
    return f"{row.prompt_text()}\n{row.completion}"


def _render(language: LanguageModel, rows: Sequence[CorpusRow]) -> tuple[TokenRow, ...]:
    return tuple(
        language.renderer.render(
            row.turns, row.completion, max_tokens=MAX_TOKENS, over_long="truncate", name=row.example_id
        )
        for row in rows
    )
