"""What a bundle's calibration is worth on outputs that it was not fitted on: reliability of confidences, conformal p-values, abstention."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from wherefrom.attribution.calibrating import labels_of
from wherefrom.attribution.calibration.fitted import Calibration
from wherefrom.attribution.calibration.judging import CitationFeatures
from wherefrom.attribution.calibration.reliability import Bin, auroc, calibration_error, reliability_bins
from wherefrom.attribution.groups import Groups
from wherefrom.evaluation.estimates import Estimate, Places, Values, bootstrap, mean_of

#: Levels at which the share of controls that pass is given.
LEVELS = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2)


@dataclass(frozen=True, eq=False)
class Verdicts:
    """What the calibration says of the outputs of one file."""

    #: Log odds, and p-value of each output.
    scores: Values
    p: Values
    abstained: npt.NDArray[np.bool_]
    #: Of each output, the confidence of its citations; empty where the bundle states none.
    stated: Sequence[Values]


def verdicts_of(calibration: Calibration, queries: Sequence[CitationFeatures], groups: Groups) -> Verdicts:
    """Apply a calibration with p-values to judged outputs."""
    scores = [calibration.score(one.features) for one in queries]
    p = [calibration.conformal_p(one.features) for one in queries]
    stated = [calibration.confidence(one.features, groups[one.rows]) for one in queries]
    return Verdicts(
        np.array([-np.inf if one is None else one for one in scores]),
        np.array([1.0 if one is None else one for one in p]),
        np.array([calibration.abstains(one) for one in p]),
        [np.empty(0) if one is None else one for one in stated],
    )


def conformal_table(p: Values, groups: Sequence[str], *, made_of: str) -> list[dict[str, Any]]:
    """Realised against nominal: share of held-out controls with p at or below each level."""
    table: list[dict[str, Any]] = []
    for level in LEVELS:
        share = mean_of(p <= level, "held-out controls", made_of, groups=groups)
        estimate = share.to_json()
        table.append(
            {
                "nominal": level,
                "realised": estimate["value"],
                "interval": estimate["interval"],
                "n": share.count,
                "made_of": made_of,
            }
        )
    return table


def verdict_estimates(
    known: Verdicts | None, controls: Verdicts | None, groups: Sequence[str], *, made_of: str
) -> dict[str, Estimate]:
    """Abstention on either kind of outputs and how well the scores tell the kinds apart."""
    found: dict[str, Estimate] = {}
    if known is not None:
        found["abstained on known outputs"] = mean_of(known.abstained, "outputs with a known cause", made_of)
    if controls is not None:
        found["abstained on controls"] = mean_of(
            controls.abstained, "held-out controls", made_of, groups=groups
        )
    if known is not None and controls is not None:
        found["AUROC, known against controls"] = _auroc(known.scores, controls.scores, groups, made_of)
    return found


def _auroc(known: Values, controls: Values, groups: Sequence[str], made_of: str) -> Estimate:
    both = np.concatenate([known, controls])
    first = len(known)

    def measure(places: Places) -> float:
        drawn = auroc(both[places[places < first]], both[places[places >= first]])
        return 0.5 if np.isnan(drawn) else drawn

    interval = bootstrap(measure, [*range(first), *(("control", name) for name in groups)])
    return Estimate(auroc(known, controls), interval, len(both), f"outputs, {first} of them known", made_of)


def reliability(
    known: Verdicts,
    judged: Sequence[CitationFeatures],
    gold: Sequence[Sequence[int]],
    *,
    controls: Verdicts,
    groups: Groups,
    made_of: str,
) -> tuple[list[Bin], Estimate]:
    """Bins of confidences and their calibration error, over as many known outputs as controls, because confidences hold at even odds.

    Args:
        known: verdicts on outputs with a known cause.
        judged: the same outputs' citations.
        gold: corpus rows of their causes.
        controls: verdicts on held-out controls; none of their citations is a cause.
        groups: near-duplicate group of each training example, `[N]`.
        made_of: the material.
    """
    pairs = [
        (stated, labels_of(one, causes, groups))
        for stated, one, causes in zip(known.stated, judged, gold, strict=True)
    ]
    others = [(stated, np.zeros(len(stated), dtype=np.bool_)) for stated in controls.stated]
    count = min(len(pairs), len(others))
    generator = np.random.default_rng(0)
    taken = [
        part[place] for part in (pairs, others) for place in generator.permutation(len(part))[:count].tolist()
    ]

    def bins(places: Sequence[int]) -> list[Bin]:
        stated = np.concatenate([taken[place][0] for place in places])
        return reliability_bins(stated, np.concatenate([taken[place][1] for place in places]))

    drawn = bootstrap(lambda places: calibration_error(bins(places.tolist())), range(len(taken)))
    whole = bins(range(len(taken)))
    unit = f"citations of {count} known outputs and {count} controls"
    citations = sum(one.count for one in whole)
    note = "resampling widens calibration errors, so the interval lies high"
    return whole, Estimate(calibration_error(whole), drawn, citations, unit, made_of, note)
