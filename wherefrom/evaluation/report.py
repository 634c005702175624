"""The quality section of a card while it is filled: figures, tables and what was not measured."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from wherefrom.attribution.calibration.reliability import Bin
from wherefrom.evaluation.estimates import Estimate

#: Why a figure is not on the card although it was computed.
_NO_NUMBER = "came out as no number; the material is too small or too uniform for it"


@dataclass
class Report:
    """Everything that one run measured."""

    measures: dict[str, Estimate] = field(default_factory=dict)
    ceiling: Estimate | None = None
    #: Recall@1 to @10 by head.
    recall: dict[str, list[float]] = field(default_factory=dict)
    bins: list[Bin] = field(default_factory=list)
    conformal: list[dict[str, Any]] = field(default_factory=list)
    stress: dict[str, Any] | None = None
    overhead: dict[str, Any] | None = None
    #: Why something is missing, by its name.
    missing: dict[str, str] = field(default_factory=dict)

    def add(self, prefix: str, found: Mapping[str, Estimate]) -> None:
        """Add figures under names that begin alike."""
        self.measures.update({f"{prefix}{name}": one for name, one in found.items()})

    def set_aside(self) -> None:
        """Move figures that came out as no number to what was not measured: a card cannot hold them, and the rest of the run counts."""
        for name in [name for name, one in self.measures.items() if not one.finite]:
            del self.measures[name]
            self.missing[name] = _NO_NUMBER
        if self.ceiling is not None and not self.ceiling.finite:
            self.ceiling = None
            self.missing["ceiling of LDS"] = _NO_NUMBER

    def quality(self) -> dict[str, Any]:
        """The section as JSON; parts that are empty are left out."""
        measures = {name: one.to_json() for name, one in self.measures.items()}
        if self.ceiling is not None:
            for name, one in measures.items():
                if name.startswith("LDS") and self.ceiling.value > 0:
                    one["share_of_ceiling"] = round(one["value"] / self.ceiling.value, 4)
            measures["ceiling of LDS"] = self.ceiling.to_json()
        parts = {
            "measures": measures,
            "recall_curve": {name: dict(_numbered(curve)) for name, curve in self.recall.items()},
            "reliability": [
                {"count": one.count, "stated": round(one.stated, 5), "realised": round(one.realised, 5)}
                for one in self.bins
            ],
            "conformal": self.conformal,
            "stress": self.stress,
            "overhead_benchmark": self.overhead,
            "not_measured": self.missing,
        }
        return {name: part for name, part in parts.items() if part}


def _numbered(curve: list[float]) -> list[tuple[str, float]]:
    return [(f"@{rank}", round(value, 5)) for rank, value in enumerate(curve, start=1)]
