"""A bank for a whole corpus in minutes: models on complementary halves, trained many at once and saved group by group, and every method's LDS against them.

Model m = 2p or 2p + 1 sees one half of pair p, drawn by the pair's seed, in an order and from first weights of its own (seed m). The folder is a bank as
`wherefrom.retraining.bank.load_bank` reads it, without losses of training examples (NaN).
"""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.deep_bank.table import FEWEST_PAIRS, Truth, table
from benchmarks.gpu.parity import FORMS
from benchmarks.gpu.stacked import Member, StackedTraining, train_groups
from benchmarks.gpu.subject import Subject, bank_queries
from benchmarks.work_folder import kept_scores, save_arrays
from wherefrom.attribution.attributor import LanguageAttributor
from wherefrom.attribution.bundles.options import BuildOptions
from wherefrom.attribution.models.model import LanguageModel, load_model
from wherefrom.attribution.models.placement import Placement
from wherefrom.attribution.models.reading import BundleForm
from wherefrom.attribution.models.render import TokenRow
from wherefrom.attribution.offline import read_queries
from wherefrom.attribution.ranking_metrics import Matrix
from wherefrom.evaluation.asking import built_bundle, read_file
from wherefrom.evaluation.heads import baseline_scores, form_scores
from wherefrom.retraining.bank import MARK, load_bank
from wherefrom.retraining.runs import check_mark, query_key
from wherefrom.retraining.training import token_rows

#: Name of the outputs' losses in the bank.
QUERIES = "outputs"


def half_of(examples: int, number: int) -> tuple[int, ...]:
    """Rows of model `number`, sorted; two halves of a pair share none, and all halves are of one size (of an odd corpus, one row is in neither)."""
    shuffled = np.random.default_rng(number // 2).permutation(examples)
    size = examples // 2
    first = (number % 2) * size
    return tuple(sorted(shuffled[first : first + size].tolist()))


@dataclass(frozen=True)
class BankWork:
    """What the models are trained and measured on."""

    language: LanguageModel
    rows: Sequence[TokenRow]
    outputs: Sequence[TokenRow]
    subject: Subject
    folder: Path

    @classmethod
    def open(cls, subject: Subject, outputs: Path, folder: Path, placement: Placement) -> "BankWork":
        """Load the base model and open the folder.

        Raises:
            ConfigurationError: the folder holds a bank of other things.
        """
        language = load_model(
            subject.folders.model, subject.folders.adapter, merge=False, placement=placement
        )
        longest = subject.recipe.max_tokens
        rows = token_rows(language, subject.rows(), max_tokens=longest)
        asked = token_rows(language, read_queries(outputs)[0], max_tokens=longest)
        marks = hashlib.sha256("".join(query_key(row) for row in asked).encode()).hexdigest()
        check_mark(
            folder / MARK, recipe=subject.recipe, language=language, rows=rows, queries=marks, halves="pairs"
        )
        return cls(language, rows, asked, subject, folder)

    def file(self, number: int) -> Path:
        """File of one model."""
        return self.folder / f"model-{number:04d}.npz"

    def train(self, *, together: int, until: float, most: int) -> None:
        """Train the models that are missing, group after group, while the next group still ends in time.

        Args:
            together: models of a group, see `train_groups`.
            until: `time.monotonic` at which everything must be over.
            most: models of the bank.

        Raises:
            OutOfMemory: not even two models fit.
        """
        missing = [
            Member(number, half_of(len(self.rows), number))
            for number in range(most)
            if not self.file(number).is_file()
        ]
        train_groups(missing, self._train_group, name="bank", together=together, until=until)

    def _train_group(self, _place: int, members: Sequence[Member]) -> None:
        started = time.monotonic()
        training = StackedTraining(self.language, self.rows, self.subject.recipe, members=members)
        while not training.finished:
            training.step()
        losses = training.losses(self.outputs)
        seconds = (time.monotonic() - started) / len(members)
        for one, own in zip(members, losses, strict=True):
            _save(self.file(one.seed), one, own, examples=len(self.rows), seconds=seconds)


def _save(file: Path, one: Member, losses: npt.NDArray[np.float32], *, examples: int, seconds: float) -> None:
    kept = np.zeros(examples, dtype=np.bool_)
    kept[list(one.rows)] = True
    content: dict[str, Any] = {
        "kept": kept,
        "corpus_loss": np.full(examples, np.nan, dtype=np.float32),
        "seconds": np.float64(seconds),
        f"query_loss.{QUERIES}": losses,
    }
    save_arrays(file, content)


def score_methods(subject: Subject, outputs: Path, work: Path, placement: Placement) -> dict[str, Matrix]:
    """Scores `[Q, N]` of every method at the model trained on all rows; what has a file in the work folder is read."""
    return kept_scores(
        work,
        {
            form: partial(
                _form_scores, subject, outputs, work / f"bundle-{form}", form=form, placement=placement
            )
            for form in FORMS
        },
    )


def _form_scores(
    subject: Subject, outputs: Path, out: Path, *, form: BundleForm, placement: Placement
) -> dict[str, Matrix]:
    """Exact and projected scores of a form; the first one brings the baselines along."""
    longest = subject.recipe.max_tokens
    options = BuildOptions(form=form, max_tokens=longest, check_learning=False, placement=placement)
    bundle = built_bundle(subject.folders, subject.corpus, out, options)
    asked = read_file(LanguageAttributor(bundle), outputs, max_tokens=longest)
    return form_scores(bundle, asked) | (baseline_scores(bundle, asked) if form == FORMS[0] else {})


def bank_table(subject: Subject, scores: dict[str, Matrix], outputs: Path, folder: Path) -> dict[str, Any]:
    """LDS of every method with its interval, and how many models it rests on; empty while there are too few."""
    if not list(folder.glob("model-*.npz")):
        return {"models": 0, "figures": {}}
    bank = load_bank(folder)
    pairs = len(bank) // 2
    if pairs < FEWEST_PAIRS:
        return {"models": len(bank), "figures": {}}
    queries = bank_queries(outputs)
    truth = Truth(bank.kept[: 2 * pairs], bank.losses(QUERIES)[: 2 * pairs], range(len(queries)))
    sources = [row.source or "" for row in subject.rows()]
    figures = table(scores, truth, queries, sources)
    for one in figures.values():
        del one["recall@1"]  # no output has one row as its cause
    return {
        "models": len(bank),
        "seconds_per_model": float(np.mean(bank.seconds)),
        "figures": figures,
    }
