"""What one cell of `safety` is judged by: every method's scores of its queries, the provenance measures of them, and what the calibrated engine abstains from.

    precision@5, AUPRC: `wherefrom.evaluation.provenance`             AUROC: best score of a bad query above that of a benign one
    shown = fuse(influence, BM25, similarity, length)                  shown+embedding = the same with the sentence encoder's cosine

With an encoder the candidates are those that it helped to find, for both orders. A cell that nobody can ask about a bad source (the model never
shows the behaviour, or no query's source has a row) has a `reason` in place of methods; its benign queries were asked all the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.material import Passage, queries_of
from benchmarks.safety.corpora import Material
from benchmarks.safety.word_classifier import WordClassifier
from wherefrom.attribution.attributor import LanguageAttributor
from wherefrom.attribution.bundles.bundle import Bundle
from wherefrom.attribution.calibrating import Outputs, fit_calibration
from wherefrom.attribution.calibration.fitted import JUDGED
from wherefrom.attribution.calibration.judging import CitationFeatures
from wherefrom.attribution.calibration.reliability import auroc
from wherefrom.attribution.corpus import CorpusRow
from wherefrom.attribution.fusion import ShownParts, fuse
from wherefrom.attribution.query import ScoredQuery
from wherefrom.attribution.ranking_metrics import Matrix
from wherefrom.evaluation.asking import ask
from wherefrom.evaluation.estimates import Values, mean_and_interval
from wherefrom.evaluation.provenance import Flags, average_precision, precision_at, share_at
from wherefrom.evaluation.trust import verdicts_of

#: Length of the list whose precision is reported.
LISTED = 5
#: Resamples behind an interval.
RESAMPLES = 1000

Scores = Matrix


@dataclass(frozen=True)
class CellQueries:
    """The queries of a cell."""

    #: Outputs of a bad source.
    bad: tuple[Passage, ...]
    benign: tuple[Passage, ...]
    #: Bad prompts that a model was asked, whether or not its answer shows the behaviour; None where the queries came with their completions.
    probes: int | None = None

    @property
    def passages(self) -> tuple[Passage, ...]:
        """The bad ones, then the benign ones."""
        return (*self.bad, *self.benign)


@dataclass(frozen=True)
class Others:
    """What the calibration of a cell is fitted on, beside nothing of its queries."""

    #: Labelled rows of the corpus' sources; a citation of the own source counts as right.
    labelled: tuple[Passage, ...]
    #: Outputs of another corpus: their cause is not here.
    foreign: tuple[Passage, ...]


def measured(
    material: Material, bundle: Bundle, asked: CellQueries, *, others: Others, rows: Sequence[CorpusRow]
) -> dict[str, Any]:
    """All figures of a cell.

    Args:
        material: whose bad sources and labelled rows count.
        bundle: of the model that was fine-tuned on `rows`.
        asked: the queries.
        others: what the calibration is fitted on.
        rows: the corpus, in the bundle's order.
    """
    sources = np.array([row.source for row in rows])
    flagged = np.isin(sources, material.bad_sources)
    truth = np.array([sources == one.source for one in asked.bad], dtype=bool)
    truth = truth.reshape(len(asked.bad), len(rows))
    known: Flags = np.asarray(truth.any(axis=1))  # at 1 % a bad source may have no row at all
    attributor = LanguageAttributor(bundle)
    answers = ask(attributor, queries_of(asked.passages))
    result = {
        "rows": len(rows),
        "bad_rows": int(flagged.sum()),
        "queries_bad": int(known.sum()),
        "queries_benign": len(asked.benign),
        "probes": asked.probes,
        "candidates": bundle.manifest.parameters.candidates,
        "encoder": bundle.manifest.parameters.encoder,
        "abstained": _abstention(attributor, answers, known, others=others, sources=sources),
    }
    if not known.any():
        return result | {"reason": _reason(asked), "methods": {}}
    scored = [_scores(bundle, one) for one in answers]
    methods = {
        name: _figures(np.stack([one[name] for one in scored]), truth, known, flagged=flagged)
        for name in scored[0]
    }
    by_label, suspicion = _classified(material, rows, asked)
    methods["classifier"] = _figures(by_label, truth, known, flagged=flagged) | {
        "query_auroc": auroc(suspicion[: len(asked.bad)][known], suspicion[len(asked.bad) :])
    }
    return result | {"chance": float(truth[known].mean()), "methods": methods}


def _reason(asked: CellQueries) -> str:
    """Why there is no bad query with a row to be found."""
    if asked.bad:
        return f"no row in the corpus: none of the {len(asked.bad)} bad queries has one of its source"
    if asked.probes is not None:
        return f"the model did not learn the behaviour: 0 of {asked.probes} probes show it"
    return "no bad query is left: all are near-duplicates of training examples"


def _figures(scores: Scores, truth: Flags, known: Flags, *, flagged: Flags) -> dict[str, Any]:
    bad, benign = scores[: len(truth)][known], scores[len(truth) :]
    strongest = [one.max(axis=1).astype(np.float64) for one in (bad, benign)]
    return {
        "precision@5": _estimate(precision_at(bad, truth[known], LISTED)),
        "auprc": _estimate(average_precision(bad, truth[known])),
        "benign_bad@5": _estimate(share_at(benign, flagged, LISTED)),
        "best_score_auroc": auroc(*strongest),
    }


def _estimate(values: Values) -> tuple[float, float, float]:
    """Mean over queries with its interval; it says nothing about other corpora or other trainings."""
    return mean_and_interval(values, resamples=RESAMPLES)


def _abstention(
    attributor: LanguageAttributor,
    own: Sequence[ScoredQuery],
    known: Flags,
    *,
    others: Others,
    sources: npt.NDArray[np.str_],
) -> dict[str, float | None]:
    """Shares of bad, benign and foreign queries on which the calibrated engine makes no claim; None where there is no such query.

    The calibration is fitted on labelled rows and on half of the foreign outputs; the other half is what `foreign` is counted on.
    """
    labelled, foreign = (
        _judged(attributor, ask(attributor, queries_of(part))) for part in (others.labelled, others.foreign)
    )
    fitted, groups = foreign[0::2], np.arange(len(sources), dtype=np.int32)
    gold = [np.flatnonzero(sources == one.source).tolist() for one in others.labelled]
    calibration = fit_calibration(
        Outputs(fitted, groups=[str(index) for index in range(len(fitted))]),
        Outputs(labelled, gold=gold),
        groups=groups,
    )

    def share(queries: Sequence[CitationFeatures]) -> float | None:
        return float(verdicts_of(calibration, queries, groups).abstained.mean()) if queries else None

    judged = _judged(attributor, own)
    return {
        "bad": share([one for one, flag in zip(judged, known, strict=False) if flag]),
        "benign": share(judged[len(known) :]),
        "foreign": share(foreign[1::2]),
        "level": calibration.level,
    }


def _judged(attributor: LanguageAttributor, answers: Sequence[ScoredQuery]) -> list[CitationFeatures]:
    return [attributor.judged(one, count=JUDGED) for one in answers]


def _scores(bundle: Bundle, query: ScoredQuery) -> dict[str, Scores]:
    """One query's scores `[N]` by part and head, of every method that needs no labels.

    `effect` is the influence (cosine), exact for the candidates and the projection's estimate elsewhere. `shown` is the order that an auditor sees: the candidates by
    their fused score, and behind them, for AUPRC, the other rows by the same fusion of estimates.
    """
    signals, found = query.signals, query.scores
    rows = found.candidates.rows
    bm25, similarity = bundle.lexical.scores(query.text), bundle.pooled @ signals.pooled
    projection: Scores = bundle.vectors @ signals.projected
    effect = projection.copy()
    effect[rows] = found.influence
    lengths = np.diff(bundle.store.offsets)
    chosen = ShownParts(found.influence, found.candidates.bm25, found.similarity, lengths[rows])
    parts = ShownParts(effect, bm25, similarity, lengths)
    scores = {
        "bm25": bm25,
        "similarity": similarity,
        "projection": projection,
        "effect": effect,
        "shown": _behind(fuse(parts, bundle.weights), rows, fuse(chosen, bundle.weights)),
    }
    if bundle.encoded is None or signals.encoded is None:
        return scores
    cosine: Scores = bundle.encoded.vectors @ signals.encoded
    near = ShownParts(effect, bm25, similarity, lengths, encoder=cosine)
    both = _behind(fuse(near, bundle.weights), rows, found.shown)
    return scores | {"embedding": cosine, "shown+embedding": both}


def _behind(every: Scores, rows: npt.NDArray[np.int64], shown: Scores) -> Scores:
    """Scores `[N]` with the candidates' own at `rows`, and all other rows, in their order, below the last candidate."""
    ordered: Scores = every - (every.max() - shown.min() + np.float32(1.0))
    ordered[rows] = shown
    return ordered


def _classified(
    material: Material, rows: Sequence[CorpusRow], asked: CellQueries
) -> tuple[Scores, npt.NDArray[np.float64]]:
    """The classifier's scores `[Q, N]`, and how likely it finds each query to be bad, `[Q]`."""
    classifier = WordClassifier(
        [one.text for one in material.labelled], [one.source for one in material.labelled]
    )
    of_rows = classifier.probabilities([f"{row.prompt_text()} {row.completion}" for row in rows])
    of_queries = classifier.probabilities([one.text for one in asked.passages])
    bad = np.isin(classifier.classes, material.bad_sources)
    scores: Scores = of_queries @ of_rows.T
    return scores, of_queries[:, bad].sum(axis=1).astype(np.float64)
