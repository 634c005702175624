"""Accuracy against measured ground truth: LDS and recall of each method on a folder with a bank of retrained models.

    python -m benchmarks.yardstick --yardstick PATH [--json]

The folder holds `audited/` (the model), `corpus.jsonl`, `queries.jsonl` (with `gold` ids) and `bank.npz` (`kept [M, N]`, `query_loss [M, Q]`). Nothing is
fitted on the queries. `pipeline` is the influence that the product stores: exact cosines for the candidates, the projection's
score for all others. `pipeline_shown` is the fused order that an auditor sees. Both measures are given for each, never the best of both.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.program import command, run
from wherefrom.attribution.attributor import LanguageAttributor
from wherefrom.attribution.bundles.build import build_bundle
from wherefrom.attribution.bundles.bundle import Bundle, open_bundle
from wherefrom.attribution.bundles.manifest import read_card
from wherefrom.attribution.bundles.options import BuildOptions
from wherefrom.attribution.corpus import read_corpus
from wherefrom.attribution.models.files import ModelFolders
from wherefrom.attribution.offline import exact_scores, prepare_all, read_queries, signals_of_all
from wherefrom.attribution.query import ReadQuery
from wherefrom.attribution.ranking_metrics import Matrix, lds, recall_at

#: Candidates are at most this share of the corpus.
CANDIDATE_SHARE = 0.05


@dataclass(frozen=True)
class Truth:
    """Measured ground truth."""

    kept: npt.NDArray[np.bool_]
    losses: Matrix
    gold: list[list[int]]

    def measure(self, scores: Matrix) -> dict[str, float]:
        """LDS and recall of one method's scores."""
        return {
            "lds": float(lds(scores, self.kept, self.losses).mean()),
            "lds_0_31": float(lds(scores, self.kept[:32], self.losses[:32]).mean()),
            "lds_32_63": float(lds(scores, self.kept[32:], self.losses[32:]).mean()),
            "recall@1": recall_at(scores, self.gold, 1),
            "recall@10": recall_at(scores, self.gold, 10),
        }


def main() -> None:
    """Build a bundle of the yardstick's model, score its queries by every method and print one table."""
    parser = command(__doc__)
    parser.add_argument(
        "--yardstick",
        type=Path,
        required=True,
        help="folder with audited/, corpus.jsonl, queries.jsonl, bank.npz",
    )
    parser.add_argument("--form", choices=("auto", "forward", "activation"), default="auto")
    parser.add_argument(
        "--queries",
        choices=("queries", "teacher_queries"),
        default="queries",
        help="choose settings on teacher_queries only",
    )
    run(parser, _score_folder, table=_table)


def _score_folder(arguments: argparse.Namespace, work: Path) -> dict[str, Any]:
    return score_folder(arguments.yardstick, work / "bundle", form=arguments.form, queries=arguments.queries)


def score_folder(yardstick: Path, bundle_path: Path, *, form: Any, queries: str) -> dict[str, Any]:
    """All methods on one yardstick folder."""
    examples = len(read_corpus(yardstick / "corpus.jsonl").rows)
    options = BuildOptions(form=form, candidates=int(examples * CANDIDATE_SHARE))
    build_bundle(
        folders=ModelFolders(yardstick / "audited"),
        corpus_path=yardstick / "corpus.jsonl",
        out=bundle_path,
        options=options,
        progress=silent,
    )
    bundle = open_bundle(bundle_path, ModelFolders(yardstick / "audited"))
    attributor = LanguageAttributor(bundle)
    asked, _ = read_queries(yardstick / f"{queries}.jsonl")
    prepared = prepare_all(attributor, asked, max_tokens=1024, over_long="truncate")
    signals, pass_seconds = timed(lambda: signals_of_all(attributor, prepared))
    truth = read_truth(yardstick, queries)
    return _score_all(bundle, attributor, signals, truth, pass_seconds=pass_seconds / len(signals))


def _score_all(
    bundle: Bundle,
    attributor: LanguageAttributor,
    queries: list[ReadQuery],
    truth: Truth,
    *,
    pass_seconds: float,
) -> dict[str, Any]:
    bm25, bm25_seconds = timed(lambda: np.stack([bundle.lexical.scores(one.text) for one in queries]))
    similarity, similarity_seconds = timed(
        lambda: np.stack([bundle.pooled @ one.signals.pooled for one in queries])
    )
    projection, projection_seconds = timed(
        lambda: np.stack([bundle.vectors @ one.signals.projected for one in queries])
    )
    exact, exact_seconds = timed(lambda: exact_scores(bundle, queries, silent))
    scored, pipeline_seconds = timed(lambda: [attributor.score(one).scores for one in queries])
    effect, shown = projection.copy(), np.full_like(projection, -np.inf)
    for row, one in enumerate(scored):
        effect[row, one.candidates.rows] = one.influence
        shown[row, one.candidates.rows] = one.shown
    ranked_last = np.where(np.isfinite(shown), shown, projection - 1e3)
    seconds = read_card(bundle.path)["cost"]["seconds"]
    features = seconds["model_pass"] + seconds["whitening"]
    count = len(queries)
    sizes = _bytes_per_example(bundle)
    rows = {
        "bm25": (truth.measure(bm25), seconds["lexical"], bm25_seconds / count),
        "similarity": (
            truth.measure(similarity),
            seconds["model_pass"],
            pass_seconds + similarity_seconds / count,
        ),
        "projection": (
            truth.measure(projection),
            features + seconds["projection"],
            pass_seconds + projection_seconds / count,
        ),
        "exact": (truth.measure(exact), features, pass_seconds + exact_seconds / count),
        "pipeline": (
            truth.measure(effect),
            sum(seconds.values()),
            pass_seconds + pipeline_seconds / count,
        ),
    }
    return {
        "methods": {
            name: measured
            | {"seconds_build": build, "seconds_per_query": each, "bytes_per_example": sizes[name]}
            for name, (measured, build, each) in rows.items()
        },
        "pipeline_shown": truth.measure(ranked_last),
        "candidates_hold": _candidates_hold(exact, [one.candidates.rows for one in scored]),
        "candidates": bundle.manifest.parameters.candidates,
        "form": bundle.manifest.parameters.form,
        "layers": list(bundle.manifest.parameters.layers),
        "queries": count,
        "projection_share_of_model": bundle.manifest.projection.share_of_model,
    }


def _bytes_per_example(bundle: Bundle) -> dict[str, float]:
    """What each method stores for one training example."""
    examples = len(bundle.store)
    return {
        "bm25": _folder_bytes(bundle.path / "lexical") / examples,
        "similarity": bundle.pooled.nbytes / examples,
        "projection": bundle.vectors.nbytes / examples,
        "exact": bundle.store.bytes_per_example,
        "pipeline": _folder_bytes(bundle.path) / examples,
    }


def _candidates_hold(exact: Matrix, candidates: list[npt.NDArray[np.int64]]) -> dict[str, float]:
    """Share of the exact top-1 and top-10 that the candidates hold."""
    best = np.argsort(-exact, axis=1, kind="stable")[:, :10]
    held = [np.isin(top, rows) for top, rows in zip(best, candidates, strict=True)]
    return {
        "top1": float(np.mean([one[0] for one in held])),
        "top10": float(np.mean(held)),
        "share_of_corpus": float(np.mean([len(rows) for rows in candidates]) / exact.shape[1]),
    }


def read_truth(yardstick: Path, queries: str) -> Truth:
    """The bank's losses of the named queries, and their known causes as corpus rows."""
    bank = np.load(yardstick / "bank.npz", allow_pickle=False)
    rows = {row.example_id: index for index, row in enumerate(read_corpus(yardstick / "corpus.jsonl").rows)}
    asked = read_corpus(yardstick / f"{queries}.jsonl").rows
    gold = [[rows[cause] for cause in row.fields.get("gold", [])] for row in asked]
    name = "query_loss" if queries == "queries" else "teacher_query_loss"
    return Truth(bank["kept"], bank[name].astype(np.float32), gold)


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """A call's result and its seconds."""
    started = time.monotonic()
    return work(), time.monotonic() - started


def _folder_bytes(folder: Path) -> int:
    return sum(one.stat().st_size for one in folder.rglob("*") if one.is_file())


def silent(stage: str, done: int, total: int) -> None:
    """No progress."""


def _table(result: dict[str, Any]) -> list[str]:
    head = f"{'method':<12}{'LDS':>7}{'32-63':>7}{'R@1':>7}{'R@10':>7}{'build s':>10}{'s/query':>10}{'bytes/ex':>10}"
    lines = [f"form {result['form']}, hidden states {result['layers']}, {result['queries']} queries", head]
    for name, one in result["methods"].items():
        lines.append(
            f"{name:<12}{one['lds']:>7.3f}{one['lds_32_63']:>7.3f}{one['recall@1']:>7.2f}{one['recall@10']:>7.2f}"
            f"{one['seconds_build']:>10.1f}{one['seconds_per_query']:>10.4f}{one['bytes_per_example']:>10.0f}"
        )
    one = result["pipeline_shown"]
    lines.append(
        f"pipeline_shown   LDS {one['lds']:.3f}, recall@1 {one['recall@1']:.2f}, recall@10 {one['recall@10']:.2f}"
    )
    hold = result["candidates_hold"]
    lines.append(
        f"candidates ({hold['share_of_corpus']:.1%} of the corpus) hold {hold['top10']:.1%} of the exact top-10, {hold['top1']:.1%} of the top-1"
    )
    lines.append(f"projection: {result['projection_share_of_model']:.1%} of the model's bytes")
    return lines


if __name__ == "__main__":
    main()
