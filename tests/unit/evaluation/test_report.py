"""What a card says of a run: figures that are numbers, and why the others are missing."""

import json

from wherefrom.evaluation.estimates import Estimate
from wherefrom.evaluation.report import Report

NAN, INFINITY = float("nan"), float("inf")


def of(value: float, interval: tuple[float, float] | None = None) -> Estimate:
    """A figure."""
    return Estimate(value, interval, 3, "queries", "bank")


def test_figures_that_are_no_numbers_are_missing() -> None:
    """A run with one of them keeps the others, and says which came out as none."""
    report = Report(ceiling=of(INFINITY), missing={"stress": "not given"})
    report.add("LDS, ", {"effect": of(0.5, (0.4, 0.6)), "order shown": of(NAN)})
    report.add("", {"ratio": of(2.0, (1.0, INFINITY))})
    report.set_aside()
    quality = report.quality()
    json.dumps(quality, allow_nan=False)
    assert list(quality["measures"]) == ["LDS, effect"]
    assert quality["not_measured"].keys() == {"stress", "LDS, order shown", "ratio", "ceiling of LDS"}


def test_a_ceiling_of_zero_has_no_shares() -> None:
    """Two banks that do not agree at all: nothing is divided by their ceiling."""
    report = Report(ceiling=of(0.0))
    report.add("LDS, ", {"effect": of(0.1)})
    assert "share_of_ceiling" not in report.quality()["measures"]["LDS, effect"]
