"""Accuracy against measured ground truth: LDS and recall of each method on a folder with a bank of retrained models.

    python -m benchmarks.yardstick --yardstick PATH [--json]

`benchmarks.small_model` says what the folder holds. Nothing is fitted on the queries. `pipeline` is the influence that the product stores: exact cosines for the candidates, the projection's
score for all others. `pipeline_shown` is the fused order that an auditor sees. Both measures are given for each, never the best of both.
"""

import argparse
from pathlib import Path
from typing import Any

from benchmarks.program import command, run
from benchmarks.small_model import KnownTruth, SmallModel, add_queries, add_yardstick
from wherefrom.attribution.attributor import LanguageAttributor
from wherefrom.attribution.bundles.bundle import Bundle
from wherefrom.attribution.bundles.manifest import read_card
from wherefrom.attribution.offline import exact_scores
from wherefrom.attribution.progress import silent
from wherefrom.attribution.query import ReadQuery
from wherefrom.evaluation.asking import read_file
from wherefrom.evaluation.cost import folder_bytes, timed
from wherefrom.evaluation.heads import (
    bm25_scores,
    order_shown,
    projected_scores,
    similarity_scores,
    stored_influence,
)
from wherefrom.evaluation.tables import Column, table
from wherefrom.evaluation.truth import best_held

COLUMNS = (
    Column("method", 12, left=True),
    Column("LDS", 7, ".3f"),
    Column("32-63", 7, ".3f"),
    Column("R@1", 7, ".2f"),
    Column("R@10", 7, ".2f"),
    Column("build s", 10, ".1f"),
    Column("s/query", 10, ".4f"),
    Column("bytes/ex", 10, ".0f"),
)
_FIGURES = (
    "lds",
    "lds_32_63",
    "recall@1",
    "recall@10",
    "seconds_build",
    "seconds_per_query",
    "bytes_per_example",
)


def main() -> None:
    """Build a bundle of the yardstick's model, score its queries by every method and print one table."""
    parser = command(__doc__)
    add_yardstick(parser)
    add_queries(parser)
    parser.add_argument("--form", choices=("auto", "forward", "activation"), default="auto")
    run(parser, score_folder, table=_table)


def score_folder(arguments: argparse.Namespace, work: Path) -> dict[str, Any]:
    """All methods on one yardstick folder."""
    folder: SmallModel = arguments.yardstick
    bundle = folder.bundle(work / "bundle", folder.options(arguments.form))
    attributor = LanguageAttributor(bundle)
    queries, seconds = timed(lambda: read_file(attributor, folder.queries_file(arguments.queries)))
    truth = folder.truth(arguments.queries)
    return _score_all(bundle, attributor, queries, truth, pass_seconds=seconds / len(queries))


def _score_all(
    bundle: Bundle,
    attributor: LanguageAttributor,
    queries: list[ReadQuery],
    truth: KnownTruth,
    *,
    pass_seconds: float,
) -> dict[str, Any]:
    bm25, bm25_seconds = timed(lambda: bm25_scores(bundle, queries))
    similarity, similarity_seconds = timed(lambda: similarity_scores(bundle, queries))
    projection, projection_seconds = timed(lambda: projected_scores(bundle, queries))
    exact, exact_seconds = timed(lambda: exact_scores(bundle, queries, silent))
    scored, pipeline_seconds = timed(lambda: [attributor.score(one) for one in queries])
    pipeline = stored_influence(projection, scored)
    seconds = read_card(bundle.path)["cost"]["seconds"]
    features = seconds["model_pass"] + seconds["whitening"]
    sizes = _bytes_per_example(bundle)
    rows = {
        "bm25": (bm25, seconds["lexical"], 0.0, bm25_seconds),
        "similarity": (similarity, seconds["model_pass"], pass_seconds, similarity_seconds),
        "projection": (projection, features + seconds["projection"], pass_seconds, projection_seconds),
        "exact": (exact, features, pass_seconds, exact_seconds),
        "pipeline": (pipeline, sum(seconds.values()), pass_seconds, pipeline_seconds),
    }
    held = best_held(exact, [one.scores.candidates.rows for one in scored])
    return {
        "methods": {
            name: truth.measure(scores)
            | {
                "seconds_build": build,
                "seconds_per_query": read + score / len(queries),
                "bytes_per_example": sizes[name],
            }
            for name, (scores, build, read, score) in rows.items()
        },
        "pipeline_shown": truth.measure(order_shown(projection, scored)),
        "candidates_hold": {
            "top1": float(held[:, 0].mean()),
            "top10": float(held.mean()),
            "share_of_corpus": sum(len(one.scores.candidates.rows) for one in scored) / exact.size,
        },
        "candidates": bundle.manifest.parameters.candidates,
        "form": bundle.manifest.parameters.form,
        "layers": list(bundle.manifest.parameters.layers),
        "queries": len(queries),
        "projection_share_of_model": bundle.manifest.projection.share_of_model,
    }


def _bytes_per_example(bundle: Bundle) -> dict[str, float]:
    """What each method stores for one training example."""
    examples = len(bundle.store)
    return {
        "bm25": folder_bytes(bundle.path / "lexical") / examples,
        "similarity": bundle.pooled.nbytes / examples,
        "projection": bundle.vectors.nbytes / examples,
        "exact": bundle.store.bytes_per_example,
        "pipeline": folder_bytes(bundle.path) / examples,
    }


def _table(result: dict[str, Any]) -> list[str]:
    shown, hold = result["pipeline_shown"], result["candidates_hold"]
    rows = [(name, *(one[figure] for figure in _FIGURES)) for name, one in result["methods"].items()]
    return [
        f"form {result['form']}, hidden states {result['layers']}, {result['queries']} queries",
        *table(COLUMNS, rows),
        f"pipeline_shown   LDS {shown['lds']:.3f}, recall@1 {shown['recall@1']:.2f}, recall@10 {shown['recall@10']:.2f}",
        f"candidates ({hold['share_of_corpus']:.1%} of the corpus) hold {hold['top10']:.1%} of the exact top-10, {hold['top1']:.1%} of the top-1",
        f"projection: {result['projection_share_of_model']:.1%} of the model's bytes",
    ]


if __name__ == "__main__":
    main()
