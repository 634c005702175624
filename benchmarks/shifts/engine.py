"""Asks a bundle's engine for passages, and looks at whole rankings rather than at citations."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.material import Passage, queries_of
from benchmarks.small_model import CANDIDATE_SHARE
from scripts.jsonl import write_rows
from wherefrom.attribution.attributor import LanguageAttributor
from wherefrom.attribution.bundles.bundle import Bundle
from wherefrom.attribution.bundles.options import BuildOptions
from wherefrom.attribution.calibration.fitted import JUDGED
from wherefrom.attribution.calibration.judging import CitationFeatures
from wherefrom.attribution.corpus import CorpusRow
from wherefrom.attribution.models.files import ModelFolders
from wherefrom.attribution.query import ScoredQuery
from wherefrom.evaluation.asking import ask, built_bundle


@dataclass(frozen=True, eq=False)
class Answer:
    """What the engine found for one query."""

    query: ScoredQuery
    judged: CitationFeatures

    @property
    def shown(self) -> npt.NDArray[np.int64]:
        """Candidates in the order shown."""
        return self._ordered(self.query.scores.shown)

    @property
    def by_influence(self) -> npt.NDArray[np.int64]:
        """Candidates in the order of the exact kernel."""
        return self._ordered(self.query.scores.influence)

    def _ordered(self, scores: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        rows = self.query.scores.candidates.rows
        ordered: npt.NDArray[np.int64] = rows[np.lexsort((rows, -scores))]
        return ordered


class Engine:
    """One bundle's engine."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self._attributor = LanguageAttributor(bundle)

    def ask(self, passages: Sequence[Passage]) -> list[Answer]:
        """Answers in order."""
        return [
            Answer(one, self._attributor.judged(one, count=JUDGED))
            for one in ask(self._attributor, queries_of(passages))
        ]


def recall(lists: Sequence[npt.NDArray[np.int64]], gold: Sequence[Sequence[int]], count: int) -> float:
    """Share of queries one of whose causes is among the first `count` rows of their list."""
    return float(
        np.mean(
            [bool(set(rows[:count].tolist()) & set(causes)) for rows, causes in zip(lists, gold, strict=True)]
        )
    )


def corpus_bundle(model: Path, corpus: Sequence[CorpusRow], folder: Path) -> Bundle:
    """A bundle of a model over these rows."""
    folder.mkdir(parents=True)
    rows = [
        {
            "id": row.example_id,
            "messages": [turn.model_dump(mode="json") for turn in row.turns],
            "completion": row.completion,
            "source": row.source,
        }
        for row in corpus
    ]
    file = write_rows(folder / "corpus.jsonl", rows)
    options = BuildOptions(candidates=max(1, int(len(corpus) * CANDIDATE_SHARE)))
    return built_bundle(ModelFolders(model), file, folder / "bundle", options)
