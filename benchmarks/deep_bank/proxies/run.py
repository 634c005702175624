r"""Beyond the small model: a model of real depth with a LoRA adapter, without a bank of retrained copies.

    XDG_CACHE_HOME=CACHE python -m benchmarks.deep_bank.proxies --work DIR [--parts agreement,recall,refits] [--json]
    python -m benchmarks.deep_bank.proxies --model DIR --adapter DIR --corpus FILE --queries FILE --work DIR

`agreement`: every method's scores of 200 rows against EK-FAC's (our own, data labels, damping .1, the linear layers of six evenly spaced blocks): mean over queries of
the Spearman correlation, and of the share of EK-FAC's ten best rows that the method's ten best hold. `recall`: the same scores against what is known of the outputs: the
source that taught them, and rows they repeat a run of six words from. `refits`: effects measured by leaving out one source at a time (`refits`).

Without --model the demo's model, adapter, corpus and outputs are taken from its cache. Every step has a file in --work: a stopped benchmark goes on where it was, and
`--only-report` reports what is there. Seconds are processor time of one thread: set OMP_NUM_THREADS=1.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.deep_bank.proxies.refits import (
    describe_plan,
    judge_scores,
    measured_effects,
    missing_runs,
    refit,
)
from benchmarks.deep_bank.proxies.scores import Scores, Scoring
from benchmarks.deep_bank.proxies.setting import Setting
from benchmarks.program import command, named, report, run
from scripts.demo_outputs import demo_outputs
from scripts.smollm2 import default_cache, ensure_base_model
from wherefrom.atomic import write_json
from wherefrom.attribution.ranking_metrics import recall_at, spearman_rows
from wherefrom.evaluation.provenance import overlap_at, source_precision
from wherefrom.evaluation.tables import Column, table

DEMO = Path(__file__).resolve().parents[3] / "demo"
PARTS = ("agreement", "recall", "refits")
TOP = 10
_AGREEMENT = (
    Column("agreement with EK-FAC", 34, left=True),
    Column("Spearman", 10, ".3f"),
    Column("top-10", 8, ".3f"),
    Column("dot", 8, ".3f"),
)
_RECALL = (
    Column("method", 34, left=True),
    Column("P@5", 7, ".3f"),
    Column("P@10", 7, ".3f"),
    Column("R@1", 7, ".3f"),
    Column("R@10", 7, ".3f"),
)
_REFITS = (
    Column("method", 42, left=True),
    Column("Spearman", 10, ".3f"),
    Column("interval", 18, ".3f"),
    Column("pooled", 8, ".3f"),
)


def main() -> None:
    """Make what is missing, then report."""
    run(_parser(), _work, table=_tables)


def _work(arguments: argparse.Namespace, _work: Path) -> dict[str, Any]:
    parts = named(arguments.parts, PARTS, option="--parts")
    setting = _setting(arguments)
    if not arguments.only_report:
        make_missing(setting, parts)
    return {"parts": parts} | figures(setting, parts)


def make_missing(setting: Setting, parts: Sequence[str]) -> None:
    """All steps that have no file yet."""
    if "refits" in parts:
        _, plan = setting.refits()
        report([describe_plan(plan)])
        folder = setting.work / "refits"
        for name in missing_runs(plan, folder):
            report([f"refit {name}: {refit(setting.base, plan, name, folder):.0f} s"])
        _make(setting.refit_scoring(), "refits")
    if "agreement" in parts or "recall" in parts:
        _make(setting.agreement_scoring(), "agreement")


def figures(setting: Setting, parts: Sequence[str]) -> dict[str, Any]:
    """Figures of the parts, from the steps that are finished."""
    found: dict[str, Any] = {}
    if "agreement" in parts or "recall" in parts:
        scoring = setting.agreement_scoring()
        methods = scoring.methods()
        found["unfinished"] = scoring.missing()
        if "agreement" in parts and "ekfac" in methods:
            found["agreement"] = agreement(methods)
            found["facts"] = _facts(scoring)
        if "recall" in parts:
            found["recall"] = _recall(setting, methods)
    if "refits" in parts:
        found["refits"] = _refits(setting)
    return found


def agreement(methods: Mapping[str, Scores]) -> dict[str, dict[str, float]]:
    """Spearman correlation and overlap of the ten best rows with EK-FAC, means over queries, in the cosine and the plain form.

    A method's cosine is held against EK-FAC's cosine, its dot product against EK-FAC's dot product.
    """
    truth = methods["ekfac"]
    return {
        name: {
            "spearman": float(spearman_rows(one.cosine, truth.cosine).mean()),
            "top10": overlap_at(one.cosine, truth.cosine, TOP),
            "spearman_dot": float(spearman_rows(one.dot, truth.dot).mean()),
        }
        for name, one in methods.items()
        if name != "ekfac"
    }


def _recall(setting: Setting, methods: Mapping[str, Scores]) -> dict[str, Any]:
    scoring_set, numbers = setting.agreement()
    place = {number: index for index, number in enumerate(numbers)}
    gold = [[place[row] for row in causes] for causes in setting.causes]
    sources, wanted = [one.source for one in scoring_set.examples], setting.outputs.sources
    chance = [np.mean([name == one for name in sources]) for one in wanted if one is not None]
    return {
        "flagged": len(chance),
        "with_repeated_words": sum(map(bool, gold)),
        "rows": len(numbers),
        "chance": float(np.mean(chance)),
        "methods": {
            name: {
                "precision@5": source_precision(one.cosine, wanted, sources, 5),
                "precision@10": source_precision(one.cosine, wanted, sources, 10),
                "recall@1": recall_at(one.cosine, gold, 1),
                "recall@10": recall_at(one.cosine, gold, 10),
            }
            for name, one in methods.items()
        },
    }


def _refits(setting: Setting) -> dict[str, Any]:
    _, plan = setting.refits()
    names, effects, seconds = measured_effects(plan, setting.work / "refits")
    scoring = setting.refit_scoring()
    membership = plan.membership(names)
    return {
        "groups": names,
        "of": len(plan.names),
        "rows": len(plan.rows),
        "queries": len(plan.queries),
        "seconds_median": seconds,
        "mean_effect": float(effects.mean()),
        "unfinished": scoring.missing(),
        "own_source_first": _own_source(setting, names, effects),
        "methods": {
            f"{name} ({kind})": judge_scores(getattr(one, kind), membership, effects)
            for name, one in scoring.methods().items()
            for kind in ("dot", "cosine")
            if kind == "dot" or name not in {"bm25", "similarity"}
        },
    }


def _own_source(setting: Setting, names: Sequence[str], effects: np.ndarray) -> float:
    """Share of queries whose own source has the largest measured effect, among those whose source was left out."""
    scoring_set, _ = setting.refits()
    flagged = {
        one.text_sha256(): name
        for one, name in zip(setting.outputs.rows, setting.outputs.sources, strict=True)
    }
    own = [flagged.get(one.text_sha256()) or one.source for one in scoring_set.queries]
    hits = [names[int(row.argmax())] == name for row, name in zip(effects, own, strict=True) if name in names]
    return float(np.mean(hits))


def _facts(scoring: Scoring) -> dict[str, Any]:
    """Seconds per query, coverage, and how well the learned adjoints predict."""
    held = scoring.load("ekfac")
    done = set(scoring.steps) - set(scoring.missing())
    found: dict[str, Any] = {
        "ekfac_layers": held["layers"],
        "ekfac_coverage": held["coverage"],
        "seconds_per_query": {"ekfac": held["seconds"]},
    }
    if "final" in done:
        found["seconds_per_query"] |= scoring.load("final")["seconds"]
        found["defaults"] = scoring.load("final")["defaults"]
    if "raw" in done:
        found["seconds_per_query"]["raw"] = scoring.load("raw")["seconds"]
    if "adjoint" in done:
        found["adjoint"] = scoring.load("adjoint")["facts"]
    return found


def _make(scoring: Scoring, part: str) -> None:
    for step in scoring.missing():
        report([f"{part}, step {step}: {scoring.run(step):.0f} s"])


def _setting(arguments: argparse.Namespace) -> Setting:
    model, queries = arguments.model, arguments.queries
    if model is None:
        model = ensure_base_model(default_cache())
    if queries is None:
        queries = arguments.work / "outputs.json"
        if not queries.exists():
            outputs = demo_outputs(model, arguments.adapter, DEMO / "story", default_cache())
            arguments.work.mkdir(parents=True, exist_ok=True)
            write_json(queries, [asdict(one) for one in outputs])
    return Setting(
        model=model, adapter=arguments.adapter, corpus=arguments.corpus, queries=queries, work=arguments.work
    )


def _parser() -> argparse.ArgumentParser:
    parser = command(__doc__)
    parser.add_argument(
        "--model", type=Path, help="folder of the base model (default: the demo's, from its cache)"
    )
    parser.add_argument("--adapter", type=Path, default=DEMO / "adapter", help="folder of the LoRA adapter")
    parser.add_argument(
        "--corpus", type=Path, default=DEMO / "story" / "corpus.jsonl", help="corpus with sources"
    )
    parser.add_argument(
        "--queries",
        type=Path,
        help="outputs: messages, completion, true_source (default: the demo's outputs)",
    )
    parser.add_argument("--work", type=Path, required=True, help="folder of the finished steps")
    parser.add_argument("--parts", default=",".join(PARTS), help="some of agreement, recall, refits")
    parser.add_argument("--only-report", action="store_true", help="make nothing, report what is there")
    return parser


def _tables(result: Mapping[str, Any]) -> list[str]:
    lines: list[str] = []
    if "agreement" in result:
        lines += table(_AGREEMENT, _rows(result["agreement"], ("spearman", "top10", "spearman_dot")))
        lines.append(json.dumps(result["facts"]))
    if "recall" in result:
        part = result["recall"]
        lines += [
            f"{part['flagged']} flagged outputs, {part['rows']} rows, chance {part['chance']:.3f}; {part['with_repeated_words']} repeat words of a row",
            *table(_RECALL, _rows(part["methods"], ("precision@5", "precision@10", "recall@1", "recall@10"))),
        ]
    if "refits" in result:
        part = result["refits"]
        lines += [
            f"{len(part['groups'])} of {part['of']} refits, {part['rows']} rows, {part['queries']} queries, median {part['seconds_median']:.0f} s",
            *table(_REFITS, _rows(part["methods"], ("spearman", "interval", "pooled"))),
        ]
    if result.get("unfinished"):
        lines.append(f"unfinished steps of the agreement: {', '.join(result['unfinished'])}")
    return lines


def _rows(methods: Mapping[str, Mapping[str, Any]], figures: Sequence[str]) -> list[list[Any]]:
    return [[name, *(one[figure] for figure in figures)] for name, one in methods.items()]
