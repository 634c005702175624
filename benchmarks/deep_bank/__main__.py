"""Scores the deep bank by every method and prints the table of one part.

    python -m benchmarks.deep_bank --work DIR [--part choose|report] [--variants] [--json]

What the bank is, `benchmarks.deep_bank` says; what the figures mean, `table`.
"""

import argparse
from pathlib import Path
from typing import Any

from benchmarks.deep_bank.material import read_bank_queries, read_plan, read_rows
from benchmarks.deep_bank.scores import all_scores
from benchmarks.deep_bank.table import FEWEST_PAIRS, ceiling, lines_of, table, truth_of
from benchmarks.deep_bank.train import load_losses
from benchmarks.program import command, report, run


def main() -> None:
    """Score what has no scores yet, then report."""
    parser = command(__doc__)
    parser.add_argument(
        "--work", type=Path, required=True, help="folder of the adapter and of finished scores"
    )
    parser.add_argument(
        "--part", choices=("choose", "report"), default="choose", help="choices are made on `choose` alone"
    )
    parser.add_argument(
        "--variants", action="store_true", help="also the form `adapter` at other strengths and damping"
    )
    run(parser, _score, table=lambda result: lines_of(result["figures"]))


def _score(arguments: argparse.Namespace, _work: Path) -> dict[str, Any]:
    plan, rows = read_plan(), read_rows()
    queries, measured = read_bank_queries(rows), load_losses(plan)
    scores = all_scores(arguments.work, variants=arguments.variants)
    truth = truth_of(plan, measured, arguments.part, queries=len(queries))
    twice, highest = ceiling(plan, measured)
    done = f"part {arguments.part}: {2 * truth.pairs} of {len(plan.halves) // 2} halves, {len(truth.queries)} queries"
    report([f"{done}; {twice} halves trained twice, ceiling {highest:.2f}"])
    if truth.pairs < FEWEST_PAIRS:
        report([f"fewer than {FEWEST_PAIRS} pairs are finished: no LDS yet"])
    figures = table(scores, truth, queries, [row.source for row in rows])
    return {"part": arguments.part, "halves": 2 * truth.pairs, "figures": figures}


if __name__ == "__main__":
    main()
