"""What a bundle's calibration says about one query's citations, in the form that citations carry.

Looks at the ten best citations in the order shown, however few are asked for, so that the p-value of an audit does not depend on `top_k`.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wherefrom.attribution.bundles.examples import ExampleTexts
from wherefrom.attribution.calibration.evidence import CandidateParts, Features, evidence_features
from wherefrom.attribution.calibration.fitted import JUDGED, Calibration
from wherefrom.attribution.groups import group_sizes
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
class JudgedQuery:
    """What calibration needs of one query: its best citations in the order shown."""

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
        self._sizes = group_sizes(groups)

    def look(
        self,
        prompt: str,
        completion: str,
        *,
        rows: Rows,
        parts: CandidateParts,
        loss: float,
        distances: Features,
        count: int = JUDGED,
    ) -> JudgedQuery:
        """Features of the best citations of one query.

        Args:
            prompt: the query's turns before the completion.
            completion: the query's completion.
            rows: corpus row of each candidate, `[C]`.
            parts: scores of all candidates.
            loss: mean loss of the completion, nats.
            distances: as `distances_of` gave them.
            count: citations that are looked at; at least ten are.
        """
        places = np.lexsort((rows, -parts.shown))[: max(count, JUDGED)]
        examples = self._texts.read(rows[places].tolist())
        features = evidence_features(
            prompt,
            completion,
            examples=[(one.prompt, one.completion) for one in examples],
            places=places.tolist(),
            parts=parts,
            loss=loss,
            rarity=self._lexical.rarity,
        )
        return JudgedQuery(places.tolist(), features, rows[places], distances)

    def judge(self, query: JudgedQuery) -> Judgement:
        """The judgement on one query; all None where the bundle is not calibrated."""
        calibration = self.calibration
        p = calibration.conformal_p(query.features)
        confidence = calibration.confidence(query.features, self._groups[query.rows])
        known = [] if confidence is None else confidence.tolist()
        return Judgement(
            conformal_p=p,
            novelty_p=calibration.novelty_p(query.distances),
            abstained=_reason(p, calibration),
            confidence=dict(zip(query.places, known, strict=False)),
        )

    def effects(self, influence: npt.NDArray[np.float32]) -> "PredictedEffects | None":
        """Predicted effect of each candidate; None where no scale was fitted."""
        curve = self.calibration.effects
        return None if curve is None else PredictedEffects(curve.effect(influence).tolist(), curve.label)

    def duplicates(self, row: int) -> int:
        """Further members of the near-duplicate group of a training example."""
        return int(self._sizes[row]) - 1


def _reason(p: float | None, calibration: Calibration) -> str | None:
    if p is None or not calibration.abstains(p):
        return None
    return (
        f"{p:.0%} of the control outputs, whose cause is not in the corpus, have an equally good best citation "
        f"(the limit is {calibration.level:.0%})"
    )
