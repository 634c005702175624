"""What a bundle's calibration says about one query's citations, in the form that citations carry.

Looks at the ten best citations in the order shown, however few are asked for, so that the p-value of an audit does not depend on `top_k`.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wherefrom.attribution.bundles.examples import ExampleTexts
from wherefrom.attribution.calibration.evidence import (
    CandidateParts,
    Features,
    distances_of,
    evidence_features,
)
from wherefrom.attribution.calibration.fitted import JUDGED, Calibration
from wherefrom.attribution.query import ScoredQuery
from wherefrom.attribution.retrieval.index import Copies
from wherefrom.attribution.retrieval.lexical import LexicalIndex

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Judgement:
    """The calibration's part of an attribution; None where nothing was fitted."""

    conformal_p: float | None
    novelty_p: float | None
    abstained: str | None
    #: By place among the candidates: confidence of those that were judged.
    confidence: dict[int, float]


@dataclass(frozen=True)
class PredictedEffects:
    """Predicted effects of all candidates of one query."""

    #: Change of the query's mean loss without each candidate.
    nats: list[float]
    basis: str


@dataclass(frozen=True, eq=False)
class CitationFeatures:
    """What the calibration looks at in one query: features of its best citations in the order shown.

    Small, unlike the query itself: a calibration holds those of thousands of outputs.
    """

    #: Places among the candidates, in the order shown.
    places: list[int]
    features: Features  # [K, F]
    rows: Rows  # [K]
    distances: Features  # [3]


class Judge:
    """Applies one bundle's calibration."""

    def __init__(
        self,
        calibration: Calibration,
        *,
        texts: ExampleTexts,
        lexical: LexicalIndex,
        groups: npt.NDArray[np.int32],
    ) -> None:
        self.calibration = calibration
        self._texts = texts
        self._lexical = lexical
        self._groups = groups
        self._near = Copies(groups)

    def look(self, query: ScoredQuery, *, count: int = JUDGED) -> CitationFeatures:
        """Features of the best citations of one query.

        Args:
            query: with its candidates.
            count: citations that are looked at; at least ten are.
        """
        scores, rows = query.scores, query.scores.candidates.rows
        places = np.lexsort((rows, -scores.shown))[: max(count, JUDGED)]
        examples = self._texts.read(rows[places].tolist())
        features = evidence_features(
            f"{query.prompt_text}\n",
            query.asked.completion,
            examples=[(one.prompt, one.completion) for one in examples],
            places=places.tolist(),
            parts=CandidateParts(
                shown=scores.shown,
                bm25=scores.candidates.bm25,
                similarity=scores.similarity,
                influence=scores.influence,
                retrieval=scores.retrieval,
            ),
            loss=query.signals.loss,
            rarity=self._lexical.rarity,
        )
        return CitationFeatures(places.tolist(), features, rows[places], _distances(query))

    def judge(self, found: CitationFeatures) -> Judgement:
        """The judgement on one query; all None where the bundle is not calibrated."""
        calibration = self.calibration
        p = calibration.conformal_p(found.features)
        confidence = calibration.confidence(found.features, self._groups[found.rows])
        known = [] if confidence is None else confidence.tolist()
        return Judgement(
            conformal_p=p,
            novelty_p=calibration.novelty_p(found.distances),
            abstained=_reason(p, calibration),
            confidence=dict(zip(found.places, known, strict=False)),
        )

    def effects(self, influence: npt.NDArray[np.float32]) -> "PredictedEffects | None":
        """Predicted effect of each candidate; None where no scale was fitted."""
        curve = self.calibration.effects
        return None if curve is None else PredictedEffects(curve.effect(influence).tolist(), curve.label)

    def duplicates(self, row: int) -> int:
        """Further members of the near-duplicate group of a training example."""
        return len(self._near.members(int(self._groups[row]))) - 1

    def alike(self, row: int, *, most: int) -> list[int]:
        """Rows of the first further members of the near-duplicate group of a training example, in corpus order."""
        members = self._near.members(int(self._groups[row]))[: most + 1].tolist()
        return [one for one in members if one != row][:most]


def _distances(query: ScoredQuery) -> Features:
    factors = query.signals.of_completion()
    state, error = (
        float(one.square().sum(dim=(1, 2)).mean()) / one.shape[1] for one in (factors.a, factors.b)
    )
    return distances_of(state, error, query.scores.influence)


def _reason(p: float | None, calibration: Calibration) -> str | None:
    if p is None or not calibration.abstains(p):
        return None
    return (
        f"{p:.0%} of the control outputs, whose cause is not in the corpus, have an equally good best citation "
        f"(the limit is {calibration.level:.0%})"
    )
