"""Puts what was measured into a bundle's card: figures, plots, and what they were made of."""

from collections.abc import Mapping
from typing import Any

from wherefrom.attribution.bundles.manifest import Manifest
from wherefrom.attribution.calibration.fitted import CORPUS_SHA256
from wherefrom.evaluation.material import MaterialFiles, machine
from wherefrom.evaluation.plots import conformal_curve, lds_bars, recall_lines, reliability_diagram
from wherefrom.evaluation.report import Report
from wherefrom.json_text import finite_numbers
from wherefrom.records import utc_now


def evaluated_card(
    card: Mapping[str, Any], report: Report, *, files: MaterialFiles, manifest: Manifest
) -> dict[str, Any]:
    """The bundle's card with the figures of one run in place of those of earlier runs.

    Args:
        card: as the build or an earlier run wrote it; cost and coverage are kept.
        report: what was measured.
        files: the material, of which names and hashes are told.
        manifest: of the bundle, whose name and rows the figures are of.
    """
    kept = {key: value for key, value in card.items() if key not in {"quality", "quality_reason", "plots"}}
    quality = {
        "date": utc_now().date().isoformat(),
        "command": files.command(manifest.name),
        CORPUS_SHA256: manifest.corpus.sha256,
        **report.quality(),
        "material": files.as_json(),
        "machine": machine(),
    }
    return {"quality": finite_numbers(quality), **kept, "plots": plots_of(report)}


def plots_of(report: Report) -> list[dict[str, str]]:
    """The plots that the figures allow."""
    scores = {
        name.removeprefix("LDS, "): one for name, one in report.measures.items() if name.startswith("LDS, ")
    }
    found = []
    if scores:
        found.append({"title": "LDS", "svg": lds_bars(scores, report.ceiling)})
    if report.recall:
        found.append({"title": "Recall of known causes", "svg": recall_lines(report.recall)})
    if report.bins:
        found.append({"title": "Reliability of confidence", "svg": reliability_diagram(report.bins)})
    if report.conformal:
        found.append({"title": "False citations", "svg": conformal_curve(report.conformal)})
    return found
