"""Asks a bundle's engine by text, for benchmarks that look at whole rankings rather than at citations."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.stress.shifts import QuestionAnswer
from wherefrom.attribution.attributor import LanguageAttributor
from wherefrom.attribution.bundles.build import build_bundle
from wherefrom.attribution.bundles.bundle import Bundle, open_bundle
from wherefrom.attribution.bundles.options import BuildOptions
from wherefrom.attribution.calibration.fitted import JUDGED
from wherefrom.attribution.calibration.judging import CitationFeatures
from wherefrom.attribution.corpus import CorpusRow
from wherefrom.attribution.models.files import ModelFolders
from wherefrom.attribution.offline import prepare_all, signals_of_all
from wherefrom.attribution.query import ScoredQuery
from wherefrom.records import Message, Query, Role

#: Candidates are at most this share of the corpus, as in the yardstick's table.
CANDIDATE_SHARE = 0.05
_MAX_TOKENS = 1024


@dataclass(frozen=True)
class QueryWithCauses:
    """A query with the corpus rows that taught it; none for a control."""

    asked: QuestionAnswer
    gold: tuple[int, ...]
    group: str = ""


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
    """One bundle's engine, asked by text."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self._attributor = LanguageAttributor(bundle)

    def ask(self, asked: Sequence[QuestionAnswer]) -> list[Answer]:
        """Answers in order."""
        queries = [
            Query(
                key=str(index),
                turns=(Message(role=Role.USER, content=one.prompt),) if one.chat else (),
                completion=one.completion,
            )
            for index, one in enumerate(asked)
        ]
        prepared = prepare_all(self._attributor, queries, max_tokens=_MAX_TOKENS, over_long="truncate")
        scored = map(self._attributor.score, signals_of_all(self._attributor, prepared))
        return [Answer(one, self._attributor.judged(one, count=JUDGED)) for one in scored]


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
    file = folder / "corpus.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    build_bundle(
        folders=ModelFolders(model),
        corpus_path=file,
        out=folder / "bundle",
        options=BuildOptions(candidates=max(1, int(len(corpus) * CANDIDATE_SHARE))),
        progress=_silent,
    )
    return open_bundle(folder / "bundle", ModelFolders(model))


def _silent(stage: str, done: int, total: int) -> None:
    """No progress."""
