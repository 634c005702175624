"""Every tier against measured ground truth: LDS and recall of both heads, with paired bootstrap against the form `forward`, in one run.

    python -m benchmarks.tiers --yardstick PATH [--tiers forward,activation+midpoint,full] [--encoder DIR] [--json]

The folder is that of `benchmarks.yardstick`; tiers with `+midpoint` and the full tier also need `base/`, what the fine-tune began with. `exact`: the
effect head with every pair scored exactly. `pipeline`: the same with exact scores for the candidates (5 % of the corpus) only, the projection's for the
others; where EK-FAC ran on the candidates, the others get what a line through the candidates' scores says. `shown`: the order that an auditor sees.
Nothing is fitted on the queries; both heads are reported by both measures, never the best of both.
"""

import argparse
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.program import command, report, run
from benchmarks.yardstick import CANDIDATE_SHARE, Truth, read_truth, silent, timed
from wherefrom.attribution.attributor import LanguageAttributor
from wherefrom.attribution.bundles.build import build_bundle
from wherefrom.attribution.bundles.bundle import Bundle, open_bundle
from wherefrom.attribution.bundles.options import BuildOptions
from wherefrom.attribution.corpus import read_corpus
from wherefrom.attribution.effect_score import EKFAC_WEIGHT
from wherefrom.attribution.ekfac.path import PathScores
from wherefrom.attribution.fusion import standardise
from wherefrom.attribution.models.files import ModelFolders
from wherefrom.attribution.offline import exact_scores, prepare_all, read_queries, signals_of_all
from wherefrom.attribution.query import ReadQuery, ScoredQuery
from wherefrom.attribution.ranking_metrics import Matrix, lds
from wherefrom.evaluation.estimates import middle
from wherefrom.evaluation.heads import effect_over_corpus

TIERS = ("forward", "forward+midpoint", "activation", "activation+midpoint", "full")
RESAMPLES = 300


@dataclass(frozen=True)
class Heads:
    """Scores of every query with every training example, `[Q, N]`."""

    exact: Matrix
    pipeline: Matrix
    shown: Matrix
    build_s: float
    query_s: float


def main() -> None:
    """Build a bundle per tier, score the queries and print one table."""
    parser = command(__doc__)
    parser.add_argument(
        "--yardstick", type=Path, required=True, help="folder with audited/, base/ and bank.npz"
    )
    parser.add_argument("--tiers", default=",".join(TIERS), help=f"some of {', '.join(TIERS)}")
    parser.add_argument("--queries", choices=("queries", "teacher_queries"), default="queries")
    parser.add_argument(
        "--encoder", type=Path, help="folder of a sentence encoder; the bundles carry it in the order shown"
    )
    run(parser, _measure_tiers, table=_table)


def _measure_tiers(arguments: argparse.Namespace, work: Path) -> dict[str, Any]:
    truth = read_truth(arguments.yardstick, arguments.queries)
    found: dict[str, Any] = {}
    first: Matrix | None = None
    for tier in arguments.tiers.split(","):
        heads = score_tier(
            arguments.yardstick,
            work / tier,
            tier,
            queries=arguments.queries,
            encoder=arguments.encoder,
        )
        shutil.rmtree(work / tier)
        first = heads.exact if first is None else first
        found[tier] = measure(heads, truth, against=first)
        report([f"{tier}: done"])
    encoder = None if arguments.encoder is None else arguments.encoder.resolve().name
    return {"tiers": found, "queries": arguments.queries, "encoder": encoder}


def score_tier(
    yardstick: Path, bundle_path: Path, tier: str, *, queries: str, encoder: Path | None = None
) -> Heads:
    """Build one tier's bundle and score all queries with it.

    Raises:
        ValueError: the tier is none of `TIERS`.
    """
    if tier not in TIERS:
        raise ValueError(f"unknown tier {tier!r}; one of {', '.join(TIERS)}")
    full = tier == "full"
    form, _, more = ("activation+midpoint" if full else tier).partition("+")
    options = BuildOptions(
        form="forward" if form == "forward" else "activation",
        candidates=int(len(read_corpus(yardstick / "corpus.jsonl").rows) * CANDIDATE_SHARE),
        midpoint=bool(more),
        full_tier=full,
        encoder=encoder,
    )
    start = yardstick / "base" if options.midpoint else None
    model = yardstick / "audited"
    _, build_s = timed(
        lambda: build_bundle(
            folders=ModelFolders(model, start=start),
            corpus_path=yardstick / "corpus.jsonl",
            out=bundle_path,
            options=options,
            progress=silent,
        )
    )
    bundle = open_bundle(bundle_path, ModelFolders(model, start=start))
    attributor = LanguageAttributor(bundle)
    asked, _ = read_queries(yardstick / f"{queries}.jsonl")
    prepared = prepare_all(attributor, asked, max_tokens=1024, over_long="truncate")
    signals, pass_s = timed(lambda: signals_of_all(attributor, prepared))
    scored, score_s = timed(lambda: [attributor.score(one) for one in signals])
    path, full_s = timed(lambda: _full_scores(bundle, signals))
    made = _heads(bundle, scored, path)
    return Heads(*made, build_s, (pass_s + score_s + full_s) / len(signals))


def _full_scores(bundle: Bundle, queries: list[ReadQuery]) -> PathScores | None:
    """EK-FAC of every pair; an audit scores its candidates only."""
    if bundle.full is None:
        return None
    every = np.arange(len(bundle.store))
    rows = [one.row for one in queries]
    return bundle.full.candidate_scores(rows, bundle.tokens.read(every), every)


def _heads(
    bundle: Bundle, queries: list[ScoredQuery], path: PathScores | None
) -> tuple[Matrix, Matrix, Matrix]:
    cosines = exact_scores(bundle, queries, silent)
    exact, pipeline, shown = np.empty_like(cosines), np.empty_like(cosines), np.empty_like(cosines)
    for row, one in enumerate(queries):
        found = one.scores
        chosen = found.candidates.rows
        bm25 = bundle.lexical.scores(one.text)
        known = np.asarray(bundle.vectors @ one.signals.projected)
        guessed = known.copy()
        guessed[chosen] = found.influence
        balanced = None if path is None else path.balanced[row].numpy()
        exact[row] = effect_over_corpus(bundle, cosines[row], bm25, ekfac=balanced)
        kernel = effect_over_corpus(bundle, guessed, bm25)
        pipeline[row] = kernel if path is None else _with_full(kernel, chosen, path, row)
        shown[row] = known - 1e3
        shown[row, chosen] = found.shown
    return exact, pipeline, shown


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


def measure(heads: Heads, truth: Truth, *, against: Matrix) -> dict[str, Any]:
    """Both measures of all heads, and the paired bootstrap of the exact effect over subsets and queries."""
    low, high, worse, better = _bootstrap(heads.exact, against, truth)
    return {
        "exact": truth.measure(heads.exact),
        "pipeline": truth.measure(heads.pipeline),
        "shown": truth.measure(heads.shown),
        "lds_interval": [low, high],
        "lds_gain_interval": [worse, better],
        "seconds_build": heads.build_s,
        "seconds_per_query": heads.query_s,
    }


def _bootstrap(scores: Matrix, against: Matrix, truth: Truth) -> tuple[float, float, float, float]:
    """95 % intervals of the LDS and of its difference to `against`; the same resamples of subsets and queries for both."""
    generator = np.random.default_rng(0)
    own, gains = [], []
    for _ in range(RESAMPLES):
        models = generator.integers(0, len(truth.kept), len(truth.kept))
        chosen = generator.integers(0, len(scores), len(scores))
        kept, losses = truth.kept[models], truth.losses[models][:, chosen]
        mine = float(lds(scores[chosen], kept, losses).mean())
        own.append(mine)
        gains.append(mine - float(lds(against[chosen], kept, losses).mean()))
    return (*middle(own), *middle(gains))


HEAD = f"{'tier':<22}{'head':<10}{'LDS':>7}{'32-63':>7}{'R@1':>7}{'R@10':>7}   LDS 95 %        gain over the first tier"


def _table(result: dict[str, Any]) -> list[str]:
    return [HEAD, *(line for tier, one in result["tiers"].items() for line in _lines(tier, one))]


def _lines(tier: str, result: dict[str, Any]) -> list[str]:
    lines = []
    for head in ("exact", "pipeline", "shown"):
        one = result[head]
        line = f"{tier:<22}{head:<10}{one['lds']:>7.3f}{one['lds_32_63']:>7.3f}{one['recall@1']:>7.2f}{one['recall@10']:>7.2f}"
        if head == "exact":
            (low, high), (worse, better) = result["lds_interval"], result["lds_gain_interval"]
            line += f"   [{low:.3f}, {high:.3f}]  [{worse:+.3f}, {better:+.3f}]"
        lines.append(line)
    lines.append(
        f"{'':<22}build {result['seconds_build']:.0f} s, {result['seconds_per_query']:.3f} s per query"
    )
    return lines


if __name__ == "__main__":
    main()
