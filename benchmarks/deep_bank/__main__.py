"""Scores the deep bank and prints one table per part; see `benchmarks.deep_bank`."""

import argparse
from pathlib import Path

from benchmarks.deep_bank.material import read_bank_queries, read_plan, read_rows
from benchmarks.deep_bank.scores import all_scores
from benchmarks.deep_bank.table import FEWEST_PAIRS, ceiling, lines_of, table, truth_of
from benchmarks.deep_bank.train import LOSSES, load_losses
from benchmarks.machine import describe, finish, report


def main() -> None:
    """Score what has no scores yet, then report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--work", type=Path, required=True, help="folder of the adapter and of finished scores"
    )
    parser.add_argument(
        "--part", choices=("choose", "report"), default="choose", help="choices are made on `choose` alone"
    )
    parser.add_argument(
        "--variants", action="store_true", help="also the form `adapter` at other strengths and damping"
    )
    parser.add_argument("--json", action="store_true", help="end with one JSON line")
    arguments = parser.parse_args()
    plan, rows = read_plan(), read_rows()
    queries, measured = read_bank_queries(rows), load_losses(plan, LOSSES)
    scores = all_scores(arguments.work, variants=arguments.variants)
    truth = truth_of(plan, measured, arguments.part, queries=len(queries))
    twice, highest = ceiling(plan, measured)
    done = f"part {arguments.part}: {2 * truth.pairs} of {len(plan.halves) // 2} halves, {len(truth.queries)} queries"
    report([f"{done}; {twice} halves trained twice, ceiling {highest:.2f}"])
    if truth.pairs < FEWEST_PAIRS:
        report([f"fewer than {FEWEST_PAIRS} pairs are finished: no LDS yet"])
    figures = table(scores, truth, queries, [row.source for row in rows])
    report(lines_of(figures))
    finish(
        {"part": arguments.part, "halves": 2 * truth.pairs, "figures": figures, "machine": describe()},
        as_json=arguments.json,
    )


if __name__ == "__main__":
    main()
