r"""How well scores predict the measured losses of the deep bank, and with what certainty.

LDS of a method on one part of the plan: mean over its queries of the Spearman correlation, over the halves of its pairs, between the sum of the scores over a
half's rows and the query's negative loss (`ranking_metrics.lds`). Intervals are 95 % percentile intervals of a bootstrap over pairs of halves and over queries,
drawn together; a difference of two methods is taken inside each draw. While few pairs are finished, `pairs` says more: the share of pairs and queries where the
half with the larger sum of scores is the one with the smaller loss (.5 by chance; queries of one pair are no independent cases). The ceiling is the correlation of the losses of the halves that were trained twice:
with r their mean Spearman over queries, no method can be expected above sqrt(r).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.deep_bank.material import SEEDS, BankQuery, Part, Plan, Run
from benchmarks.deep_bank.train import Measured
from wherefrom.attribution.ranking_metrics import Matrix, lds, recall_at, spearman_rows
from wherefrom.evaluation.estimates import middle, resampled_together
from wherefrom.evaluation.provenance import source_precision
from wherefrom.evaluation.tables import Column
from wherefrom.evaluation.tables import table as lines

BOOTSTRAPS = 1000
#: Pairs of halves below which correlations over them say nothing.
FEWEST_PAIRS = 4
_SEED = 20_261_126
#: Methods that the bank's own table compares all others with.
AGAINST = ("bm25", "activation")
Interval = tuple[float, float]


@dataclass(frozen=True)
class Truth:
    """What one part of the bank measured."""

    #: `[2 P, N]` halves of the finished pairs, members of a pair behind each other, and `[2 P, Q]` losses of the part's queries.
    kept: npt.NDArray[np.bool_]
    losses: npt.NDArray[np.float32]
    #: Places of the part's queries among all.
    queries: Sequence[int]

    @property
    def pairs(self) -> int:
        """Finished pairs."""
        return len(self.kept) // 2


def truth_of(plan: Plan, measured: Measured, part: Part, *, queries: int) -> Truth:
    """The finished pairs of one part at the first seed, with the losses of the part's queries."""
    places = {run: place for place, run in enumerate(measured.runs)}
    halves: list[int] = []
    for pair in range(len(plan.halves) // 2):
        both = [Run(2 * pair, SEEDS[0]), Run(2 * pair + 1, SEEDS[0])]
        if plan.part_of_half(2 * pair) == part and all(run in places for run in both):
            halves += [2 * pair, 2 * pair + 1]
    chosen = plan.queries_of(part, queries)
    rows = [places[Run(half, SEEDS[0])] for half in halves]
    return Truth(plan.halves[halves], measured.queries[rows][:, chosen], chosen)


def ceiling(plan: Plan, measured: Measured) -> tuple[int, float]:
    """Halves that were trained at both seeds, and sqrt of the mean Spearman correlation of their losses; NaN below three."""
    places = {run: place for place, run in enumerate(measured.runs)}
    twice = [half for half in range(len(plan.halves)) if all(Run(half, seed) in places for seed in SEEDS)]
    if len(twice) < 3:
        return len(twice), float("nan")
    one, other = (measured.queries[[places[Run(half, seed)] for half in twice]].T for seed in SEEDS)
    return len(twice), float(np.sqrt(max(0.0, spearman_rows(one, other).mean())))


def bootstrap(
    scores: Mapping[str, Matrix], truth: Truth, *, draws: int = BOOTSTRAPS
) -> dict[str, npt.NDArray[np.float64]]:
    """LDS of each method in each draw of pairs and queries, `[draws]`; the same draws for all methods."""
    predicted = {
        name: one[list(truth.queries)] @ truth.kept.T.astype(np.float32) for name, one in scores.items()
    }  # [Q, 2 P]
    found = {name: np.empty(draws) for name in scores}
    resamples = resampled_together(truth.pairs, len(truth.queries), resamples=draws, seed=_SEED)
    for draw, (pairs, queries) in enumerate(resamples):
        halves = np.stack([2 * pairs, 2 * pairs + 1], axis=1).ravel()
        losses = -truth.losses[halves][:, queries].T
        for name, one in predicted.items():
            found[name][draw] = spearman_rows(one[queries][:, halves], losses).mean()
    return found


def pair_agreement(scores: Matrix, truth: Truth) -> float:
    """Share of (pair, query) in which the scores' sums and the losses of the two halves differ the same way; NaN without a pair.

    Args:
        scores: of the part's queries, `[Q, N]`.
        truth: the part.
    """
    predicted = scores @ truth.kept.T.astype(np.float32)  # [Q, 2 P]
    agreement = (predicted[:, 0::2] - predicted[:, 1::2]) * (truth.losses[1::2] - truth.losses[0::2]).T
    return float((agreement > 0).mean()) if agreement.size else float("nan")


def table(
    scores: Mapping[str, Matrix],
    truth: Truth,
    queries: Sequence[BankQuery],
    sources: Sequence[str],
    *,
    against: Sequence[str] = AGAINST,
) -> dict[str, dict[str, float | Interval]]:
    """Figures of every method on one part: LDS with its interval, by kind of query, recall of reworded facts, precision of bad outputs.

    Args:
        scores: `[Q, N]` of all queries, by method.
        truth: the part.
        queries: all queries.
        sources: of every row.
        against: methods that all others are compared with, draw by draw.
    """
    chosen = list(truth.queries)
    drawn = bootstrap(scores, truth) if truth.pairs >= FEWEST_PAIRS else {}
    asked = [queries[place] for place in chosen]
    found: dict[str, dict[str, float | Interval]] = {}
    for name, all_scores in scores.items():
        own = all_scores[chosen]
        causes = [[] if one.cause is None else [one.cause] for one in asked]
        figures: dict[str, float | Interval] = {
            "pairs": pair_agreement(own, truth),
            "recall@1": recall_at(own, causes, 1),
            "P@5": source_precision_of_bad(own, asked, sources, 5),
        }
        found[name] = figures
        if not drawn:
            continue
        each = lds(own, truth.kept, truth.losses)
        figures |= {"lds": float(each.mean()), "interval": middle(drawn[name])}
        for kind in dict.fromkeys(one.kind for one in asked):
            figures[kind] = float(
                np.mean([value for value, one in zip(each, asked, strict=True) if one.kind == kind])
            )
        for other in against:
            if other in drawn and other != name:
                figures[f"above {other}"] = float(
                    each.mean() - lds(scores[other][chosen], truth.kept, truth.losses).mean()
                )
                figures[f"above {other}, interval"] = middle(drawn[name] - drawn[other])
    return found


def source_precision_of_bad(
    scores: Matrix, queries: Sequence[BankQuery], sources: Sequence[str], count: int
) -> float:
    """Mean share of the `count` best rows of each bad output that come from the source that taught it."""
    wanted = [one.source if one.kind == "bad" else None for one in queries]
    return source_precision(scores, wanted, sources, count)


def lines_of(figures: Mapping[str, Mapping[str, float | Interval]]) -> list[str]:
    """The table as text, the best method first."""
    first = next(iter(figures.values()))
    names = [name for name in first if "interval" not in name and "above" not in name]
    wide = "interval" in first
    columns = [Column("method", 34, left=True), *(Column(name, 13, ".3f") for name in names)]
    if wide:
        columns += [Column("95 %", 16), Column("above bm25", 12, ".3f"), Column("95 %", 16)]
    best = "lds" if wide else "pairs"
    rows = []
    for method, one in sorted(figures.items(), key=lambda item: item[1][best], reverse=True):
        row = [method, *(one[name] for name in names)]
        if wide:
            row.append(_range(one["interval"]))
        if "above bm25" in one:
            row += [one["above bm25"], _range(one["above bm25, interval"])]
        rows.append(row)
    return lines(columns, rows)


def _range(pair: float | Interval) -> str:
    return f"{pair[0]:.2f} to {pair[1]:.2f}" if isinstance(pair, tuple) else f"{pair:.2f}"
