"""The folder of the small model, with measured ground truth, that most benchmarks read (`--yardstick`).

audited/                the model that is audited; base/: what its fine-tune began with, where a benchmark asks for it
corpus.jsonl            its training examples
queries.jsonl           the evaluation queries, with `gold` ids where the cause is known
teacher_queries.jsonl   queries of the same kind that settings may be chosen on
bank.npz                retrained models: `kept [M, N]`, `query_loss [M, Q]`, `teacher_query_loss [M, Q]`
"""

import argparse
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from wherefrom.attribution.bundles.bundle import Bundle
from wherefrom.attribution.bundles.options import BuildOptions
from wherefrom.attribution.corpus import CorpusRow, read_corpus
from wherefrom.attribution.models.files import ModelFolders
from wherefrom.attribution.models.reading import BundleForm
from wherefrom.attribution.ranking_metrics import Matrix, lds, recall_at
from wherefrom.evaluation.asking import built_bundle
from wherefrom.evaluation.truth import BankTruth

#: Candidates are at most this share of the corpus.
CANDIDATE_SHARE = 1 / 20
#: Files of queries, the ones to report on first.
QUERIES = ("queries", "teacher_queries")
_LOSSES = {"queries": "query_loss", "teacher_queries": "teacher_query_loss"}


def add_yardstick(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Add `--yardstick`, the option that names the folder."""
    parser.add_argument(
        "--yardstick",
        type=lambda text: SmallModel(Path(text)),
        required=required,
        help="folder of the small model: audited/, corpus.jsonl, queries.jsonl, bank.npz",
    )


def add_queries(parser: argparse.ArgumentParser) -> None:
    """Add `--queries`, which chooses among the folder's files of queries."""
    parser.add_argument(
        "--queries", choices=QUERIES, default=QUERIES[0], help="choose settings on teacher_queries only"
    )


@dataclass(frozen=True, eq=False)
class KnownTruth(BankTruth):
    """Losses of the retrained models, and the known causes of the queries."""

    #: Corpus rows of the causes of each query; empty where they are not known.
    gold: list[list[int]] = field(default_factory=list)

    def measure(self, scores: Matrix) -> dict[str, float]:
        """LDS and recall of one method's scores; LDS of the first and of the second 32 models too."""
        return {
            "lds": float(lds(scores, self.kept, self.losses).mean()),
            "lds_0_31": float(lds(scores, self.kept[:32], self.losses[:32]).mean()),
            "lds_32_63": float(lds(scores, self.kept[32:], self.losses[32:]).mean()),
            "recall@1": recall_at(scores, self.gold, 1),
            "recall@10": recall_at(scores, self.gold, 10),
        }


@dataclass(frozen=True)
class SmallModel:
    """One such folder."""

    path: Path

    @property
    def model(self) -> Path:
        """The audited model."""
        return self.path / "audited"

    @property
    def base(self) -> Path:
        """What the fine-tune began with."""
        return self.path / "base"

    @property
    def corpus_file(self) -> Path:
        """The training examples."""
        return self.path / "corpus.jsonl"

    def queries_file(self, name: str) -> Path:
        """One of the files of `QUERIES`."""
        return self.path / f"{name}.jsonl"

    @cached_property
    def corpus(self) -> tuple[CorpusRow, ...]:
        """The training examples in their order."""
        return tuple(read_corpus(self.corpus_file).rows)

    @cached_property
    def places(self) -> dict[str, int]:
        """Corpus row by id."""
        return {row.example_id: place for place, row in enumerate(self.corpus)}

    def queries(self, name: str) -> tuple[CorpusRow, ...]:
        """Queries as rows."""
        return tuple(read_corpus(self.queries_file(name)).rows)

    def causes(self, name: str) -> list[list[int]]:
        """Corpus rows of the known causes of each query."""
        return [[self.places[cause] for cause in row.fields.get("gold", [])] for row in self.queries(name)]

    def truth(self, name: str) -> KnownTruth:
        """What the bank measured of the named queries, and their causes."""
        with np.load(self.path / "bank.npz", allow_pickle=False) as bank:
            kept, losses = bank["kept"], bank[_LOSSES[name]].astype(np.float32)
        return KnownTruth(kept, losses, self.causes(name))

    def options(self, form: Literal["auto"] | BundleForm = "auto") -> BuildOptions:
        """How bundles of this folder are built; the form that the product picks where none is given."""
        return BuildOptions(form=form, candidates=len(self.corpus) // 20)

    def bundle(self, out: Path, options: BuildOptions | None = None, *, start: bool = False) -> Bundle:
        """A bundle of the audited model.

        Args:
            out: where it is built.
            options: as `options` gives them, unless others are asked for.
            start: whether the weights that the fine-tune began with are read too.
        """
        folders = ModelFolders(self.model, start=self.base if start else None)
        return built_bundle(folders, self.corpus_file, out, options or self.options())
