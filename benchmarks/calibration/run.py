r"""Calibration, abstention, effects and novelty against ground truth, three splits of the controls by author.

    python -m benchmarks.calibration --yardstick PATH --tofu PATH [--foreign FILE ...] [--json]

Known outputs for fitting: the folder's teacher queries with a known cause. Controls: questions and answers on fictitious authors that are absent from its corpus (the
folder `--tofu`: `train_4000.jsonl`, and `queries_with_gold.jsonl` whose wording is that of the evaluation facts), cut to the same lengths; each split gives a third of
the authors to the fit, a third to the null of the p-values and a third to the test. Judged are the evaluation facts against the test controls. Nothing is fitted on either.

Effects: curve fitted on teacher queries and subsets 0-31; pairs of evaluation query and training example are pooled by predicted decile, and the slope of the measured on the
predicted differences is bootstrapped over subsets. Novelty: the folder's own held-out queries are in distribution; out of it are these queries with their letters
shuffled or shifted by 13, and any `--foreign` file (rows with `prompt` and `completion`, or `messages`).
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.calibration.material import Material, judge_material, part
from benchmarks.program import command, run
from benchmarks.small_model import SmallModel, add_yardstick
from wherefrom.attribution.attributor import LanguageAttributor
from wherefrom.attribution.bundles.bundle import Bundle
from wherefrom.attribution.calibrating import (
    Outputs,
    fit_calibration,
    fit_effects,
    labels_of,
    measured_differences,
)
from wherefrom.attribution.calibration.fitted import Calibration, EffectCurve
from wherefrom.attribution.calibration.reliability import Bin, auroc, calibration_error, reliability_bins
from wherefrom.attribution.offline import exact_scores
from wherefrom.attribution.progress import silent
from wherefrom.evaluation.asking import read_file
from wherefrom.evaluation.estimates import bootstrap
from wherefrom.evaluation.tables import Column, table
from wherefrom.evaluation.trust import verdicts_of
from wherefrom.statistics import benjamini_hochberg

SPLITS = 3
LEVEL = 0.1
_BOOTSTRAPS = 300
_DRAWS = 100

Values = npt.NDArray[np.float64]
Truths = npt.NDArray[np.bool_]


def main() -> None:
    """Judge all outputs once, then fit and test each split."""
    parser = command(__doc__)
    add_yardstick(parser)
    parser.add_argument(
        "--tofu", type=Path, required=True, help="folder with train_4000.jsonl and queries_with_gold.jsonl"
    )
    parser.add_argument(
        "--foreign", type=Path, nargs="*", default=[], help="JSONL files of other text for the novelty"
    )
    run(parser, check, table=_table)


def check(arguments: argparse.Namespace, work: Path) -> dict[str, Any]:
    """All figures."""
    folder: SmallModel = arguments.yardstick
    bundle = folder.bundle(work / "bundle")
    attributor = LanguageAttributor(bundle)
    material = judge_material(attributor, folder, arguments.tofu, arguments.foreign)
    splits = [_split(material, seed) for seed in range(SPLITS)]
    figures = [name for name, value in splits[0].items() if isinstance(value, float)]
    return {
        "splits": splits,
        "mean": {name: float(np.mean([one[name] for one in splits])) for name in figures},
        "novelty": {
            name: float(np.mean([one["novelty"][name] for one in splits])) for name in splits[0]["novelty"]
        },
        "effects": _effects(attributor, bundle, folder),
        "outputs": {
            "known_fit": len(material.teacher.queries),
            "facts": len(material.facts.queries),
            "controls_paraphrased": len(material.paraphrased.queries),
            "controls_original": len(material.original.queries),
            "authors": len(set(material.original.groups)),
        },
    }


def _split(material: Material, seed: int) -> dict[str, Any]:
    """Fit on two thirds of the authors, test on the last third."""
    thirds = _thirds(material, seed)
    fit, null, test = (
        _joined(*(_of_authors(one, third) for one in (material.paraphrased, material.original)))
        for third in thirds
    )
    known = _joined(material.teacher, material.instructions)
    # two groups make the fit half and the null half of this split
    groups = ["fit"] * len(fit.queries) + ["null"] * len(null.queries)
    calibration = fit_calibration(
        Outputs([*fit.queries, *null.queries], groups=groups),
        Outputs(known.queries, gold=[*material.teacher.gold, *([] for _ in material.instructions.queries)]),
        groups=material.groups,
    )
    alike = _of_authors(material.paraphrased, thirds[2])
    facts, tested, likewise, held_out = (
        verdicts_of(calibration, one.queries, material.groups)
        for one in (material.facts, test, alike, material.held_out)
    )
    return {
        "controls": [len(fit.queries), len(null.queries), len(test.queries), len(alike.queries)],
        "auroc": auroc(facts.scores, likewise.scores),
        "auroc_all_controls": auroc(facts.scores, tested.scores),
        "false_citations": float((likewise.p <= LEVEL).mean()),
        "false_citations_all_controls": float((tested.p <= LEVEL).mean()),
        "facts_cited": float((facts.p <= LEVEL).mean()),
        "instructions_cited": float((held_out.p <= LEVEL).mean()),
        **_discoveries(facts.p, likewise.p),
        **_reliability(calibration, material, alike, seed),
        "novelty": _novelty(calibration, material),
    }


def _thirds(material: Material, seed: int) -> list[set[str]]:
    """Authors of the fit, the null and the test; those with paraphrased questions are dealt out evenly."""
    generator = np.random.default_rng(seed)
    both = sorted(set(material.paraphrased.groups))
    rest = sorted(set(material.original.groups) - set(both))
    dealt = [generator.permutation(names).tolist() for names in (both, rest)]
    return [{name for names in dealt for name in names[third::3]} for third in range(3)]


def _of_authors(outputs: Outputs, authors: set[str]) -> Outputs:
    return part(outputs, [place for place, name in enumerate(outputs.groups) if name in authors])


def _joined(one: Outputs, other: Outputs) -> Outputs:
    return Outputs(
        [*one.queries, *other.queries], groups=[*one.groups, *other.groups], gold=[*one.gold, *other.gold]
    )


def _discoveries(known: Values, controls: Values) -> dict[str, float]:
    """Benjamini-Hochberg over listings of as many known outputs as controls, mean over draws: realised share of controls, and known outputs found."""
    generator = np.random.default_rng(0)
    count = min(len(known), len(controls))
    false, found = [], []
    for _ in range(_DRAWS):
        p = np.concatenate(
            [generator.choice(known, count, replace=False), generator.choice(controls, count, replace=False)]
        )
        passed = np.array(benjamini_hochberg(p.tolist(), LEVEL))
        false.append(passed[count:].sum() / max(int(passed.sum()), 1))
        found.append(passed[:count].mean())
    return {"bh_false_share": float(np.mean(false)), "bh_facts_found": float(np.mean(found))}


def _reliability(calibration: Calibration, material: Material, alike: Outputs, seed: int) -> dict[str, Any]:
    """Calibration error over all ten citations and over first citations, as many facts as test controls."""
    count = min(len(material.facts.queries), len(alike.queries))
    facts, controls = (
        part(one, np.random.default_rng(seed).permutation(len(one.queries))[:count].tolist())
        for one in (material.facts, alike)
    )
    stated, truths = _stated(calibration, material, facts)
    stated_controls, truths_controls = _stated(calibration, material, controls)
    all_stated, all_truths = (
        np.concatenate([stated, stated_controls]),
        np.concatenate([truths, truths_controls]),
    )
    every = reliability_bins(all_stated.ravel(), all_truths.ravel())
    first = reliability_bins(all_stated[:, 0], all_truths[:, 0])
    return {
        "ece": calibration_error(every),
        "ece_first": calibration_error(first),
        "ece_sure": calibration_error(reliability_bins(*_above(all_stated, all_truths, 0.05))),
        "bins": [vars(one) for one in every],
        "bins_first": [vars(one) for one in first],
    }


def _above(stated: Values, truths: Truths, least: float) -> tuple[Values, Truths]:
    kept = stated >= least
    return stated[kept], truths[kept]


def _stated(calibration: Calibration, material: Material, outputs: Outputs) -> tuple[Values, Truths]:
    """Confidences and whether a known cause is in the citation's group, both `[Q, 10]`."""
    gold = outputs.gold or [[] for _ in outputs.queries]
    stated = verdicts_of(calibration, outputs.queries, material.groups).stated
    truths = [
        labels_of(one, causes, material.groups) for one, causes in zip(outputs.queries, gold, strict=True)
    ]
    return np.array(stated, dtype=np.float64), np.array(truths)


def _novelty(calibration: Calibration, material: Material) -> dict[str, float]:
    """AUROC of each strange kind against the held-out outputs of the folder, and how many of each lie below p = .1."""
    if calibration.novelty is None:
        return {}
    distance = calibration.novelty.novelty
    kinds = {
        name: [distance(one.distances) for one in outputs.queries]
        for name, outputs in material.strange.items()
    }
    ours = [distance(one.distances) for one in (*material.facts.queries, *material.held_out.queries)]
    flagged = [
        calibration.novelty_p(one.distances) for one in (*material.facts.queries, *material.held_out.queries)
    ]
    figures = {f"auroc, {name}": auroc(np.array(values), np.array(ours)) for name, values in kinds.items()}
    for name, outputs in material.strange.items():
        p = np.array([calibration.novelty_p(one.distances) for one in outputs.queries], dtype=np.float64)
        figures[f"flagged, {name}"] = float((p <= LEVEL).mean())
    return figures | {
        "flagged, in distribution": float((np.array(flagged, dtype=np.float64) <= LEVEL).mean())
    }


def _effects(attributor: LanguageAttributor, bundle: Bundle, folder: SmallModel) -> dict[str, Any]:
    """Slope of measured on predicted effects for the evaluation queries."""
    teacher, truth = folder.truth("teacher_queries"), folder.truth("queries")
    curve = fit_effects(
        exact_scores(bundle, read_file(attributor, folder.queries_file("teacher_queries")), silent),
        teacher.kept[:32],
        teacher.losses[:32],
        basis="yardstick",
    )
    influence = exact_scores(bundle, read_file(attributor, folder.queries_file("queries")), silent)
    held_out = np.arange(len(truth.kept)) >= 32
    return {
        "curve": {"scores": curve.scores.tolist(), "nats": curve.nats.tolist()},
        "all_subsets": _slope_of(curve, influence, truth.kept, truth.losses),
        "subsets_32_63": _slope_of(curve, influence, truth.kept[held_out], truth.losses[held_out]),
    }


def _slope_of(
    curve: EffectCurve, influence: npt.NDArray[np.float32], kept: Truths, losses: npt.NDArray[np.float32]
) -> dict[str, Any]:
    """Deciles of predicted effect, and the slope of their measured means with a 95 % bootstrap over subsets."""
    predicted = curve.effect(influence).ravel()
    order = np.argsort(
        influence.ravel(), kind="stable"
    )  # the curve is flat in places; the score decides there
    deciles = np.array_split(order, 10)
    means = np.array([predicted[part].mean() for part in deciles])

    def measured(models: npt.NDArray[np.int64]) -> Values:
        differences = measured_differences(kept[models], losses[models]).ravel()
        return np.array([differences[part].mean() for part in deciles])

    everything = measured(np.arange(len(kept)))
    subsets = range(len(kept))
    low, high = bootstrap(lambda places: _slope(means, measured(places)), subsets, resamples=_BOOTSTRAPS)
    return {
        "slope": _slope(means, everything),
        "low": low,
        "high": high,
        "predicted": means.tolist(),
        "measured": everything.tolist(),
    }


def _slope(predicted: Values, measured: Values) -> float:
    """Least squares with an intercept."""
    centred = predicted - predicted.mean()
    return float((centred * measured).sum() / (centred**2).sum())


def _table(result: dict[str, Any]) -> list[str]:
    splits = result["splits"]
    names = [
        "auroc",
        "auroc_all_controls",
        "false_citations",
        "false_citations_all_controls",
        "facts_cited",
        "instructions_cited",
    ]
    names += ["bh_false_share", "bh_facts_found", "ece", "ece_first", "ece_sure"]
    columns = (
        Column("figure", 32, left=True),
        Column("mean", 8, ".3f"),
        *(Column(f"split {n}", 10, ".3f") for n in range(SPLITS)),
    )
    rows = [(name, result["mean"][name], *(one[name] for one in splits)) for name in names]
    lines = [f"outputs: {result['outputs']}", *table(columns, rows)]
    lines += [f"novelty, {name:<32}{value:.3f}" for name, value in result["novelty"].items()]
    for name in ("all_subsets", "subsets_32_63"):
        one = result["effects"][name]
        lines.append(
            f"effects, {name}: slope {one['slope']:.2f} (95 % {one['low']:.2f} to {one['high']:.2f})"
        )
    return [
        *lines,
        "bins of first citations, split 0:",
        *(_bin_line(Bin(**one)) for one in splits[0]["bins_first"]),
    ]


def _bin_line(one: Bin) -> str:
    return f"  {one.count} citations: stated {one.stated:.3f}, true {one.realised:.3f}"
