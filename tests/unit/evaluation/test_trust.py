"""Conformal shares, abstention and reliability against outputs whose truth is known."""

import numpy as np
import pytest

from wherefrom.attribution.calibration.judging import CitationFeatures
from wherefrom.evaluation.trust import LEVELS, Verdicts, conformal_table, reliability, verdict_estimates


def verdicts(scores: list[float], p: list[float], stated: list[list[float]]) -> Verdicts:
    """Verdicts at level .1."""
    return Verdicts(np.array(scores), np.array(p), np.array(p) > 0.1, [np.array(one) for one in stated])


def test_shares_of_controls_below_each_level() -> None:
    """Uniform p-values give each level its own share."""
    p = (np.arange(100) + 1) / 100
    table = conformal_table(p, [str(place) for place in range(100)], made_of="controls")
    assert [one["nominal"] for one in table] == list(LEVELS)
    assert [one["realised"] for one in table] == pytest.approx(list(LEVELS))
    assert all(one["interval"][0] <= one["realised"] <= one["interval"][1] for one in table)


def test_abstention_and_auroc() -> None:
    """One of two known outputs is abstained on, all controls are; one of four pairs is in the wrong order."""
    known = verdicts([3.0, 1.0], [0.01, 0.4], [[], []])
    controls = verdicts([2.0, 0.0], [0.2, 0.9], [[], []])
    found = verdict_estimates(known, controls, ["a", "b"], made_of="files")
    assert {name: one.value for name, one in found.items()} == {
        "abstained on known outputs": 0.5,
        "abstained on controls": 1.0,
        "AUROC, known against controls": 0.75,
    }


def test_reliability_takes_as_many_controls_as_known_outputs() -> None:
    """Known outputs state .8 and are always right, controls state .1 and never are: ECE (.2 + .1) / 2 in one bin each."""
    judged = [CitationFeatures([0], np.zeros((1, 1)), np.array([5]), np.zeros(3)) for _ in range(100)]
    known = verdicts([1.0] * 100, [0.01] * 100, [[0.8]] * 100)
    controls = verdicts([0.0] * 300, [0.5] * 300, [[0.1]] * 300)
    groups = np.arange(8, dtype=np.int32)
    bins, error = reliability(known, judged, [[5]] * 100, controls=controls, groups=groups, made_of="files")
    assert [(one.count, one.realised) for one in bins] == [(100, 0.0), (100, 1.0)]
    assert error.value == pytest.approx(0.15)
    assert error.unit == "citations of 100 known outputs and 100 controls"
