"""Does a what-if tell what leaving a whole list out does? Predicted against measured effects of lists, on the part to report on.

    python -m benchmarks.deep_bank.lists --work DIR [--json]

Long lists are the halves of the plan: each training left out 48 of the 96 rows, so its losses are the measured effect of that list, beside the other halves. The prediction is the sum of the rows' scores,
as `wherefrom.attribution.what_if` adds them. Short lists are the subjects and sources of the corpus (3 to 20 rows): no training left exactly one of them out, so their effect is the slope of a query's loss over how much of the list a
half holds. How far that measurement agrees with itself, between two halves of the pairs, says what can be expected of any prediction. Intervals are bootstraps over pairs and queries together.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.deep_bank.material import read_bank_queries, read_plan, read_rows
from benchmarks.deep_bank.scores import all_scores
from benchmarks.deep_bank.table import BOOTSTRAPS, Truth, bootstrap, truth_of
from benchmarks.deep_bank.train import load_losses
from benchmarks.program import command, run
from wherefrom.attribution.ranking_metrics import lds, spearman_rows
from wherefrom.evaluation.estimates import middle, resampled_together

#: What a what-if adds, and what it is held against.
METHODS = ("adapter, net", "adapter", "bm25")
_SEED = 20_261_127
Floats = npt.NDArray[np.float64]


def main() -> None:
    """Read the scores that the work folder has, make the others, report."""
    parser = command(__doc__, threads=1)
    parser.add_argument(
        "--work", type=Path, required=True, help="folder of the adapter and of finished scores"
    )
    run(parser, measure, table=table)


def measure(arguments: argparse.Namespace, _folder: Path) -> dict[str, Any]:
    """Spearman of long and of short lists with intervals, by method."""
    plan, rows = read_plan(), read_rows()
    queries = read_bank_queries(rows)
    truth = truth_of(plan, load_losses(plan), "report", queries=len(queries))
    scores = {
        name: one for name, one in all_scores(arguments.work, variants=False).items() if name in METHODS
    }
    lists = short_lists([row.source for row in rows])
    drawn = bootstrap(scores, truth)
    long = {
        name: {
            "spearman": float(lds(one[list(truth.queries)], truth.kept, truth.losses).mean()),
            "interval": middle(drawn[name]),
        }
        for name, one in scores.items()
    }
    short = {name: short_agreement(one[list(truth.queries)], truth, lists) for name, one in scores.items()}
    return {
        "trainings": 2 * truth.pairs,
        "outputs": len(truth.queries),
        "long": long,
        "short": short,
        "short_lists": len(lists),
        "short_agrees_with_itself": self_agreement(truth, lists),
    }


def short_lists(sources: Sequence[str]) -> list[list[int]]:
    """Rows of each subject or source that has more than one."""
    found: dict[str, list[int]] = {}
    for row, source in enumerate(sources):
        found.setdefault(source, []).append(row)
    return [rows for rows in found.values() if len(rows) > 1]


def measured(truth: Truth, lists: Sequence[Sequence[int]], pairs: npt.NDArray[np.int64]) -> Floats:
    """Effect of each short list on each query, `[Q, L]` nats, from some of the pairs."""
    signs = np.where(truth.kept[0::2][pairs], 1.0, -1.0)  # [P, N]
    differences = (truth.losses[1::2] - truth.losses[0::2])[pairs].astype(np.float64)  # [P, Q]
    found = []
    for rows in lists:
        held = signs[:, list(rows)].sum(axis=1)  # [P]
        found.append(len(rows) * (held @ differences) / max(float(held @ held), 1e-12))
    return np.stack(found, axis=1)


def short_agreement(
    scores: npt.NDArray[np.float32], truth: Truth, lists: Sequence[Sequence[int]]
) -> dict[str, Any]:
    """Mean over queries of the Spearman between predicted and measured effects of the short lists."""
    predicted = np.stack([scores[:, list(rows)].sum(axis=1) for rows in lists], axis=1)

    def agreement(pairs: npt.NDArray[np.int64], queries: npt.NDArray[np.int64]) -> float:
        return float(spearman_rows(predicted[queries], measured(truth, lists, pairs)[queries]).mean())

    resamples = resampled_together(truth.pairs, len(predicted), resamples=BOOTSTRAPS, seed=_SEED)
    value = agreement(np.arange(truth.pairs), np.arange(len(predicted)))
    return {"spearman": value, "interval": middle(np.array([agreement(*one) for one in resamples]))}


def self_agreement(truth: Truth, lists: Sequence[Sequence[int]]) -> float:
    """Spearman between the effects of the short lists that two halves of the pairs measure, mean over queries and 20 splits."""
    generator = np.random.default_rng(_SEED)
    found = []
    for _ in range(20):
        order = generator.permutation(truth.pairs)
        one, other = (measured(truth, lists, part) for part in np.array_split(order, 2))
        found.append(spearman_rows(one, other).mean())
    return float(np.mean(found))


def table(result: dict[str, Any]) -> list[str]:
    """Lines for people."""
    lines = [
        f"{result['trainings']} trainings, {result['outputs']} outputs; lists of half the corpus, then {result['short_lists']} lists of 3 to 20 rows; Spearman (95 %)"
    ]
    for name in METHODS:
        long, short = result["long"][name], result["short"][name]
        lines.append(
            f"{name:<16}{long['spearman']:.3f} ({long['interval'][0]:.2f} to {long['interval'][1]:.2f})   "
            f"{short['spearman']:.3f} ({short['interval'][0]:.2f} to {short['interval'][1]:.2f})"
        )
    lines.append(
        f"short lists, two halves of the pairs against each other: {result['short_agrees_with_itself']:.3f}"
    )
    return lines


if __name__ == "__main__":
    main()
