"""Bytes of each training example against LDS: what a bundle keeps to score with, whole, with few bits, or not at all.

    python -m benchmarks.kept_features --work DIR [--bank DIR] [--yardstick PATH] [--features exact,compact,none] [--json]

`--bank`: the deep bank, form `adapter`, from the folder of its adapter; LDS of the influence and of the order shown. Settings were chosen on the choosing half.
`--yardstick`: the small model, forms `forward` and `activation`; LDS of the influence. Settings were chosen on the teacher queries.

Bundles are built in DIR and used again. *Bytes to score with* are the files that `--features none` does without, over the examples; *whole bundle* counts everything, what a bundle has once included.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.deep_bank.material import FOLDER, RECIPE, Part, read_bank_queries, read_plan, read_rows
from benchmarks.deep_bank.scores import shown_order
from benchmarks.deep_bank.table import truth_of
from benchmarks.deep_bank.train import ensure_adapter, load_losses
from benchmarks.program import command, named, run
from benchmarks.small_model import QUERIES, SmallModel, add_yardstick
from scripts.smollm2 import default_cache, ensure_base_model
from wherefrom.attribution.attributor import LanguageAttributor
from wherefrom.attribution.bundles.bundle import Bundle
from wherefrom.attribution.bundles.options import BuildOptions
from wherefrom.attribution.bundles.thinning import SCORED_WITH
from wherefrom.attribution.models.files import ModelFolders
from wherefrom.attribution.offline import exact_scores
from wherefrom.attribution.progress import silent
from wherefrom.attribution.ranking_metrics import Matrix, best_rows, lds
from wherefrom.errors import ConfigurationError
from wherefrom.evaluation.asking import built_bundle, read_file
from wherefrom.evaluation.cost import folder_bytes
from wherefrom.evaluation.heads import bm25_scores, final_scores, net_scores, similarity_scores
from wherefrom.evaluation.tables import Column
from wherefrom.evaluation.tables import table as lines

Features = Literal["exact", "compact", "none"]
FEATURES: tuple[Features, ...] = ("exact", "compact", "none")
PARTS: tuple[Part, ...] = ("choose", "report")
FORMS: tuple[Literal["forward", "activation"], ...] = ("forward", "activation")
#: Best rows of a query that are looked for.
_BEST = 10


def main() -> None:
    """Build what is missing, score, report."""
    parser = command(__doc__, threads=1)
    parser.add_argument("--work", type=Path, required=True, help="folder of the bundles")
    parser.add_argument("--bank", type=Path, help="folder of the deep bank's adapter")
    add_yardstick(parser, required=False)
    parser.add_argument("--features", default=",".join(FEATURES), help="which (default: %(default)s)")
    run(parser, measure, table=table)


def measure(arguments: argparse.Namespace, _folder: Path) -> dict[str, Any]:
    """Both banks, as far as they are given."""
    if arguments.bank is None and arguments.yardstick is None:
        raise ConfigurationError("give --bank, --yardstick or both")
    chosen = [one for one in FEATURES if one in named(arguments.features, FEATURES, option="--features")]
    found: list[dict[str, Any]] = []
    if arguments.bank is not None:
        found += _compared(chosen, lambda one: _deep(arguments.bank, arguments.work, one), bank="deep bank")
    for form in FORMS if arguments.yardstick is not None else ():
        found += _compared(
            chosen, lambda one, form=form: _small(arguments.yardstick, arguments.work, form, one), bank=f"small model, {form}"
        )  # fmt: skip
    return {"rows": found}


def _compared(chosen: Sequence[Features], score: Any, *, bank: str) -> Iterator[dict[str, Any]]:
    """Figures of each kind of features on one bank, beside those of the first."""
    first: Mapping[str, Any] | None = None
    for features in chosen:
        bundle, influence, figures = score(features)
        one = {"bank": bank, "features": features, "lds": figures, **sizes(bundle)}
        first = first or {"lds": figures, "influence": influence}
        one["share"] = {name: value / first["lds"][name] for name, value in figures.items()}
        one["best_held"] = held(first["influence"], influence)
        yield one


def sizes(bundle: Bundle) -> dict[str, float]:
    """Bytes for each training example."""
    files, examples = bundle.manifest.files, len(bundle.store)
    scored = sum(
        files[name].bytes for name in (f"features/{one}.npy" for one in SCORED_WITH) if name in files
    )
    return {"bytes_to_score": scored / examples, "bytes": folder_bytes(bundle.path) / examples}


def held(exact: Matrix, found: Matrix) -> float:
    """Share of the ten best rows by one score that are among the ten best by another."""
    shared = [
        len({*one.tolist()} & {*other.tolist()}) / len(one)
        for one, other in zip(best_rows(exact, _BEST), best_rows(found, _BEST), strict=True)
    ]
    return float(np.mean(shared))


def _deep(bank: Path, work: Path, features: Features) -> tuple[Bundle, Matrix, dict[str, float]]:
    folders = ModelFolders(ensure_base_model(default_cache()), ensure_adapter(bank))
    options = BuildOptions(form="adapter", max_tokens=RECIPE.max_tokens, features=features)
    bundle = built_bundle(folders, FOLDER / "rows.jsonl", work / f"deep-{features}", options)
    asked = read_file(LanguageAttributor(bundle), FOLDER / "queries.jsonl", max_tokens=RECIPE.max_tokens)
    influence = exact_scores(bundle, asked, silent)
    shown = shown_order(
        "adapter",
        net_scores(bundle, asked, influence),
        bm25_scores(bundle, asked),
        similarity_scores(bundle, asked),
        final=final_scores(bundle, asked),
    )
    plan, losses = read_plan(), load_losses(read_plan())
    figures = {}
    for part in PARTS:
        truth = truth_of(plan, losses, part, queries=len(read_bank_queries(read_rows())))
        for name, scores in (("influence", influence), ("order shown", shown)):
            found = lds(scores[list(truth.queries)], truth.kept, truth.losses)
            figures[f"{name}, {part}"] = float(found.mean())
    return bundle, influence, figures


def _small(
    folder: SmallModel, work: Path, form: Literal["forward", "activation"], features: Features
) -> tuple[Bundle, Matrix, dict[str, float]]:
    options = BuildOptions(form=form, candidates=len(folder.corpus) // 20, features=features)
    bundle = folder.bundle(work / f"{form}-{features}", options)
    attributor, figures = LanguageAttributor(bundle), {}
    for name in QUERIES:
        scores = exact_scores(bundle, read_file(attributor, folder.queries_file(name)), silent)
        truth = folder.truth(name)
        figures[f"influence, {name}"] = float(lds(scores, truth.kept, truth.losses).mean())
    return bundle, scores, figures


def table(result: Mapping[str, Any]) -> list[str]:
    """Lines for people."""
    columns = [
        Column("bank", 26, left=True),
        Column("kept", 9, left=True),
        Column("bytes to score with", 20, ".0f"),
        Column("whole bundle", 13, ".0f"),
        Column("LDS of", 30, left=True),
        Column("LDS", 6, ".3f"),
        Column("of exact", 9, ".3f"),
        Column("ten best held", 14, ".3f"),
    ]
    rows = [
        (one["bank"], one["features"], one["bytes_to_score"], one["bytes"], name, value, one["share"][name], one["best_held"])
        for one in result["rows"]
        for name, value in one["lds"].items()
    ]  # fmt: skip
    return lines(columns, rows)


if __name__ == "__main__":
    main()
