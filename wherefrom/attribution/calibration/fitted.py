r"""What a bundle knows about its own errors: `calibration.json`, and the p-values, confidences and effects that follow from it.

    s(q)    = log odds that the cause of q is in the corpus: logistic model of the largest of each feature over the ten best citations
    p(q)    = (1 + #{controls c: s(c) >= s(q)}) / (n + 1)
    u(q, z) = log odds that z is the cause, given that there is one among the citations of q: logistic model of z's features
    confidence(q, z) = sigmoid(s(q)) sum_{z' in group(z)} exp u(q, z') / sum_{z''} exp u(q, z'')

Controls are outputs whose cause is *not* in the corpus, sent through the same search and selection; those whose scores are kept here took no part in
fitting s. If the query is a control like them (exchangeable), then P(p <= a) <= a for every a (split conformal, Vovk et al. 2005; arXiv:2107.07511): a
*false citation* happens at most at the rate a. Nothing follows for outputs of another kind. `confidence` holds at even odds that the cause is in the corpus.

`effect_nats` is a monotone curve of the influence score, fitted on the losses of retrained models. Novelty p is the conformal formula for how far the
query lies from the corpus: the mean of three standardised distances (`evidence`). Numpy only; who fits is `calibrating`.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from wherefrom.attribution.calibration.evidence import DISTANCES, FEATURES, Features
from wherefrom.attribution.calibration.logistic import Logistic, sigmoid
from wherefrom.errors import BundleCorrupt, ConfigurationError
from wherefrom.json_text import read_json

Values = npt.NDArray[np.float64]

CALIBRATION = "calibration.json"
CALIBRATION_SCHEMA: Literal[1] = 1
#: In `fitted_on`: digest over the rows of the corpus whose scores it was fitted on, and of the corpus of the bank behind its effects.
CORPUS_SHA256, BANK_CORPUS_SHA256 = "corpus_sha256", "bank_corpus_sha256"
#: Citations, in the order shown, among which the best one is looked for.
JUDGED = 10
#: An audit abstains where more than this share of the controls have as good a best citation.
LEVEL = 0.1
#: Controls from which the null is taken as settled, and below which none is fitted.
ENOUGH_CONTROLS = 500
FEWEST_CONTROLS = 100
#: Groups are kept whole, so the halves may differ; below this one of them says nothing.
FEWEST_IN_A_HALF = 25
#: Decimals of stored scores; they are rounded up, which only makes p-values larger.
_DECIMALS = 4


@dataclass(frozen=True, eq=False)
class EffectCurve:
    """From the influence score to nats: straight lines between knots, flat outside of them."""

    #: Name of the bank of retrained models.
    basis: str
    #: Share of the corpus that each retrained model saw.
    alpha: float
    #: Ascending scores of the knots, and their effects in nats, which never fall.
    scores: Values
    nats: Values

    @property
    def label(self) -> str:
        """What is stored with each effect."""
        return f"{self.basis}, alpha {self.alpha:.2g}"

    def effect(self, scores: npt.NDArray[np.floating]) -> Values:
        """Predicted change of the query's mean loss without each example, nats; positive = it made the output more likely."""
        nats: Values = np.interp(scores.astype(np.float64), self.scores, self.nats)
        return nats


@dataclass(frozen=True, eq=False)
class NoveltyScale:
    """How far outputs of the known kind lie from the corpus."""

    centre: Values  # [3]
    scale: Values  # [3]
    #: Novelty of reference outputs that gave no part of `centre` and `scale`, ascending.
    null: Values

    def novelty(self, distances: Values) -> float:
        """Mean standardised distance of one query, no unit."""
        return float(((distances - self.centre) / self.scale).mean())


@dataclass(frozen=True, eq=False)
class Calibration:
    """A bundle's calibration; parts that were not fitted are None."""

    #: Why nothing or not everything was fitted; shown to the auditor.
    reason: str | None = None
    warnings: tuple[str, ...] = ()
    #: s: log odds of a query; an order without the unit of odds where `citations` is None.
    queries: Logistic | None = None
    #: u: log odds of a citation within its query; None without known causes.
    citations: Logistic | None = None
    #: s of each control of the null, ascending.
    null: Values | None = None
    effects: EffectCurve | None = None
    novelty: NoveltyScale | None = None
    level: float = LEVEL
    #: What it was fitted on: counts, hashes of the files, date.
    fitted_on: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fitted(self) -> bool:
        """Whether anything was fitted."""
        return self.queries is not None or self.effects is not None

    def check_form(self, form: str) -> None:
        """Refuse a bundle of another form than the one whose scores this was fitted on; calibrations of before do not say theirs.

        Raises:
            ConfigurationError: the forms differ.
        """
        fitted = self.fitted_on.get("form", form)
        if fitted != form:
            raise ConfigurationError(
                f"the calibration was fitted on scores of the form `{fitted}`, and the bundle has the form `{form}`; calibrate the bundle itself"
            )

    def check_corpus(self, corpora: Collection[str]) -> bool:
        """Refuse a bundle of other rows than those that this was fitted on.

        Args:
            corpora: digests over rows, in order, that fitted parts of the bundle may stand on (`Manifest.fitted_on`).

        Returns:
            Whether the calibration says its rows at all; those of earlier releases do not.

        Raises:
            ConfigurationError: the rows differ, or their order.
        """
        fitted = {
            what: self.fitted_on.get(name)
            for what, name in (("the corpus", CORPUS_SHA256), ("the bank's corpus", BANK_CORPUS_SHA256))
        }
        for what, digest in fitted.items():
            if digest is not None and digest not in corpora:
                raise ConfigurationError(
                    f"the calibration was fitted on other training examples than the bundle has ({what}: SHA-256 {digest[:12]}, here {', '.join(one[:12] for one in sorted(corpora))}); "
                    "calibrate the bundle itself"
                )
        return not self.fitted or fitted["the corpus"] is not None

    def score(self, features: Features) -> float | None:
        """The score s of a query from the features of its citations, of which the first ten rows count; None without a model or a citation."""
        if self.queries is None or not len(features):
            return None
        return float(self.queries.logits(strongest(features)[None])[0])

    def conformal_p(self, features: Features) -> float | None:
        """The p-value of a query; 1 where it has no citation, None without a null."""
        if self.null is None:
            return None
        score = self.score(features)
        return 1.0 if score is None else conformal_p(score, self.null)

    def confidence(self, features: Features, groups: npt.NDArray[np.integer[Any]]) -> Values | None:
        """P(a known cause is in the citation's near-duplicate group) of each citation, `[K]`.

        Args:
            features: of the citations in the order shown, `[K, F]`.
            groups: near-duplicate group of each, `[K]`; members share the sum of their shares.
        """
        score = self.score(features)
        if self.citations is None or score is None:
            return None
        logits = self.citations.logits(features)
        shares = np.exp(logits - logits.max())
        counted = np.where(
            np.arange(len(shares)) < JUDGED, shares, 0.0
        )  # fitted on ten: more citations share out no less
        same = groups[:, None] == groups[None, :]
        whole: Values = sigmoid(np.array([score])) * np.maximum(same @ counted, shares) / counted.sum()
        return np.minimum(whole, 1.0)

    def abstains(self, p: float | None) -> bool:
        """Whether an audit with this p-value makes no claim."""
        return p is not None and p > self.level

    def novelty_p(self, distances: Values) -> float | None:
        """Share of the reference outputs that lie as far from the corpus or farther."""
        if self.novelty is None:
            return None
        return conformal_p(self.novelty.novelty(distances), self.novelty.null)

    def to_json(self) -> dict[str, Any]:
        """The content of `calibration.json`."""
        return {
            "schema": CALIBRATION_SCHEMA,
            "fitted": self.fitted,
            "reason": self.reason,
            "warnings": list(self.warnings),
            "level": self.level,
            "queries": None if self.queries is None else self.queries.to_json(),
            "citations": None if self.citations is None else self.citations.to_json(),
            "null": _listed(self.null),
            "effects": None if self.effects is None else _plain(self.effects),
            "novelty": None if self.novelty is None else _plain(self.novelty),
            "fitted_on": dict(self.fitted_on),
        }

    def save(self, bundle: Path) -> None:
        """Write `calibration.json` into a bundle that is being built."""
        (bundle / CALIBRATION).write_text(json.dumps(self.to_json(), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, bundle: Path) -> Self:
        """Read the calibration of a bundle.

        Raises:
            BundleCorrupt: the file is missing, malformed, of another schema, or fitted on other features.
        """
        file = bundle / CALIBRATION
        try:
            content = read_json(file.read_text(encoding="utf-8"))
            if not content["fitted"]:
                return cls(reason=content.get("reason"))
            if content["schema"] != CALIBRATION_SCHEMA:
                raise BundleCorrupt(
                    f"{file}: schema {content['schema']!r}, this release reads {CALIBRATION_SCHEMA}"
                )
            found = cls(
                reason=content["reason"],
                warnings=tuple(content["warnings"]),
                queries=_logistic(content["queries"]),
                citations=_logistic(content["citations"]),
                null=_sorted(content["null"]),
                effects=_effects(content["effects"]),
                novelty=_novelty(content["novelty"]),
                level=float(content["level"]),
                fitted_on=content["fitted_on"],
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BundleCorrupt(f"{file}: not a calibration: {error}") from error
        if any(
            model is not None and model.features != FEATURES for model in (found.queries, found.citations)
        ):
            raise BundleCorrupt(
                f"{file}: fitted on other features than this release computes; calibrate again"
            )
        return found


def strongest(features: Features) -> Values:
    """The largest of each feature over the ten best citations, `[F]`."""
    largest: Values = features[:JUDGED].max(axis=0)
    return largest


def conformal_p(score: float, null: Values) -> float:
    """(1 + number of null scores that are as large) / (n + 1).

    Args:
        score: larger = stranger under the null.
        null: scores of the null, ascending, `[n]`.
    """
    as_large = len(null) - int(np.searchsorted(null, score, side="left"))
    return (1 + as_large) / (len(null) + 1)


def rounded_up(scores: Values) -> Values:
    """Ascending scores as they are stored."""
    stored: Values = np.ceil(np.sort(scores) * 10**_DECIMALS) / 10**_DECIMALS
    return stored


def _listed(values: Values | None) -> list[float] | None:
    return None if values is None else [round(one, _DECIMALS) for one in values.tolist()]


def _plain(part: EffectCurve | NoveltyScale) -> dict[str, Any]:
    """Fields of a part as JSON has them."""
    return {
        name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in vars(part).items()
    }


def _logistic(content: Any) -> Logistic | None:
    return None if content is None else Logistic.from_json(content)


def _effects(content: Any) -> EffectCurve | None:
    if content is None:
        return None
    scores, nats = _sorted(content["scores"]), _sorted(content["nats"])
    if scores is None or nats is None or len(scores) != len(nats):
        raise ValueError("the effect curve needs as many scores as effects")
    return EffectCurve(str(content["basis"]), float(content["alpha"]), scores, nats)


def _novelty(content: Any) -> NoveltyScale | None:
    if content is None:
        return None
    centre, scale = (np.array(content[name], dtype=np.float64) for name in ("centre", "scale"))
    null = _sorted(content["null"])
    if (
        null is None
        or centre.shape != (len(DISTANCES),)
        or scale.shape != centre.shape
        or not (scale > 0).all()
    ):
        raise ValueError("the novelty scale is incomplete")
    return NoveltyScale(centre, scale, null)


def _sorted(values: Any) -> Values | None:
    if values is None:
        return None
    array = np.array(values, dtype=np.float64)
    if array.ndim != 1 or not len(array) or not np.isfinite(array).all():
        raise ValueError("null scores must be a list of finite numbers")
    return np.sort(array)
