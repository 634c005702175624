"""Every tier against measured ground truth: LDS and recall of both heads, with paired bootstrap against the form `forward`, in one run.

    python -m benchmarks.tiers --yardstick PATH [--tiers forward,activation+midpoint,full] [--encoder DIR] [--json]

`benchmarks.small_model` says what the folder holds; tiers with `+midpoint` and the full tier also need `base/`, what the fine-tune began with. `exact`: the
effect head with every pair scored exactly. `pipeline`: the same with exact scores for the candidates (5 % of the corpus) only, the projection's for the
others; where EK-FAC ran on the candidates, the others get what a line through the candidates' scores says. `shown`: the order that an auditor sees.
Nothing is fitted on the queries; both heads are reported by both measures, never the best of both.
"""

import argparse
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.program import command, named, report, run
from benchmarks.small_model import KnownTruth, SmallModel, add_queries, add_yardstick
from wherefrom.attribution.attributor import LanguageAttributor
from wherefrom.attribution.bundles.bundle import Bundle
from wherefrom.attribution.effect_score import EKFAC_WEIGHT
from wherefrom.attribution.ekfac.path import PathScores
from wherefrom.attribution.fusion import standardise
from wherefrom.attribution.progress import silent
from wherefrom.attribution.query import ReadQuery, ScoredQuery
from wherefrom.attribution.ranking_metrics import Matrix, lds
from wherefrom.evaluation.asking import read_file
from wherefrom.evaluation.cost import timed
from wherefrom.evaluation.estimates import middle, resampled_together
from wherefrom.evaluation.heads import effect_over_corpus, heads_without_full_tier
from wherefrom.evaluation.tables import Column, table

TIERS = ("forward", "forward+midpoint", "activation", "activation+midpoint", "full")
COLUMNS = (
    Column("tier", 22, left=True),
    Column("head", 10, left=True),
    Column("LDS", 7, ".3f"),
    Column("32-63", 7, ".3f"),
    Column("R@1", 7, ".2f"),
    Column("R@10", 7, ".2f"),
    Column("LDS 95 %", 17, ".3f"),
    Column("gain over the first tier", 26),
)


@dataclass(frozen=True)
class TierHeads:
    """Scores of every query with every training example, `[Q, N]`."""

    exact: Matrix
    pipeline: Matrix
    shown: Matrix
    build_s: float
    query_s: float


def main() -> None:
    """Build a bundle per tier, score the queries and print one table."""
    parser = command(__doc__)
    add_yardstick(parser)
    add_queries(parser)
    parser.add_argument("--tiers", default=",".join(TIERS), help=f"some of {', '.join(TIERS)}")
    parser.add_argument(
        "--encoder", type=Path, help="folder of a sentence encoder; the bundles carry it in the order shown"
    )
    run(parser, measure_tiers, table=_table)


def measure_tiers(arguments: argparse.Namespace, work: Path) -> dict[str, Any]:
    """All tiers asked for, each against the first one."""
    truth = arguments.yardstick.truth(arguments.queries)
    found: dict[str, Any] = {}
    first: Matrix | None = None
    for tier in named(arguments.tiers, TIERS, option="--tiers"):
        heads = score_tier(
            arguments.yardstick, work / tier, tier, queries=arguments.queries, encoder=arguments.encoder
        )
        shutil.rmtree(work / tier)
        first = heads.exact if first is None else first
        found[tier] = measure(heads, truth, against=first)
        report([f"{tier}: built in {heads.build_s:.0f} s, {heads.query_s:.3f} s per query"])
    encoder = None if arguments.encoder is None else arguments.encoder.resolve().name
    return {"tiers": found, "queries": arguments.queries, "encoder": encoder}


def score_tier(
    folder: SmallModel, out: Path, tier: str, *, queries: str, encoder: Path | None = None
) -> TierHeads:
    """Build one tier's bundle and score all queries with it."""
    full = tier == "full"
    form, _, more = ("activation+midpoint" if full else tier).partition("+")
    options = replace(
        folder.options("forward" if form == "forward" else "activation"),
        midpoint=bool(more),
        full_tier=full,
        encoder=encoder,
    )
    bundle, build_s = timed(lambda: folder.bundle(out, options, start=bool(more)))
    attributor = LanguageAttributor(bundle)
    read, pass_s = timed(lambda: read_file(attributor, folder.queries_file(queries)))
    scored, score_s = timed(lambda: [attributor.score(one) for one in read])
    path, full_s = timed(lambda: _full_scores(bundle, read))
    made = _heads(bundle, scored, path)
    return TierHeads(*made, build_s, (pass_s + score_s + full_s) / len(read))


def _full_scores(bundle: Bundle, queries: Sequence[ReadQuery]) -> PathScores | None:
    """EK-FAC of every pair; an audit scores its candidates only."""
    if bundle.full is None:
        return None
    every = np.arange(len(bundle.store))
    return bundle.full.candidate_scores([one.row for one in queries], bundle.tokens.read(every), every)


def _heads(
    bundle: Bundle, queries: Sequence[ScoredQuery], path: PathScores | None
) -> tuple[Matrix, Matrix, Matrix]:
    heads = heads_without_full_tier(bundle, queries, silent)
    if path is None:
        return heads.exact, heads.effect, heads.shown
    exact = [
        effect_over_corpus(
            bundle, queries[row], heads.influence[row], heads.bm25[row], ekfac=path.balanced[row].numpy()
        )
        for row in range(len(queries))
    ]
    pipeline = [
        _with_full(heads.effect[row], one.scores.candidates.rows, path, row)
        for row, one in enumerate(queries)
    ]
    return np.stack(exact), np.stack(pipeline), heads.shown


def _with_full(
    kernel: npt.NDArray[np.float32], chosen: npt.NDArray[np.int64], path: PathScores, row: int
) -> npt.NDArray[np.float32]:
    """EK-FAC balanced and standardised over the candidates, as an audit has it; a least-squares line over the kernel's head fills in the others."""
    points = [point.dot[row].numpy()[chosen] for point in path.points]
    balanced = sum(dot / max(float(np.sqrt((dot**2).mean())), 1e-20) for dot in points)
    full = standardise(np.asarray(balanced, dtype=np.float32))
    slope, offset = np.polyfit(kernel[chosen], full, 1)
    filled = slope * kernel + offset
    filled[chosen] = full
    total: npt.NDArray[np.float32] = (kernel + EKFAC_WEIGHT * filled).astype(np.float32)
    return total


def measure(heads: TierHeads, truth: KnownTruth, *, against: Matrix) -> dict[str, Any]:
    """Both measures of all heads, and the paired bootstrap of the exact effect over subsets and queries."""
    own, gain = _bootstrap(heads.exact, against, truth)
    return {
        "exact": truth.measure(heads.exact),
        "pipeline": truth.measure(heads.pipeline),
        "shown": truth.measure(heads.shown),
        "lds_interval": list(own),
        "lds_gain_interval": list(gain),
        "seconds_build": heads.build_s,
        "seconds_per_query": heads.query_s,
    }


def _bootstrap(
    scores: Matrix, against: Matrix, truth: KnownTruth
) -> tuple[tuple[float, float], tuple[float, float]]:
    """95 % intervals of the LDS and of its difference to `against`; the same resamples of subsets and queries for both."""
    own, gains = [], []
    for models, chosen in resampled_together(len(truth.kept), len(scores)):
        kept, losses = truth.kept[models], truth.losses[models][:, chosen]
        mine = float(lds(scores[chosen], kept, losses).mean())
        own.append(mine)
        gains.append(mine - float(lds(against[chosen], kept, losses).mean()))
    return middle(own), middle(gains)


def _table(result: dict[str, Any]) -> list[str]:
    return table(COLUMNS, [row for tier, one in result["tiers"].items() for row in _rows(tier, one)])


def _rows(tier: str, result: dict[str, Any]) -> list[list[Any]]:
    rows = [
        [tier, head, *(result[head][figure] for figure in ("lds", "lds_32_63", "recall@1", "recall@10"))]
        for head in ("exact", "pipeline", "shown")
    ]
    worse, better = result["lds_gain_interval"]
    rows[0] += [result["lds_interval"], f"{worse:+.3f} to {better:+.3f}"]
    return rows


if __name__ == "__main__":
    main()
