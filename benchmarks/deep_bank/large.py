"""What hundreds of trainings on a GPU say about the deep bank: LDS, signs, first citations, whole sources.

    python -m benchmarks.deep_bank.large --work DIR [--part choose|report] [--json]

`benchmarks.gpu.experiments` trained the models; their losses are in `large.npz`. The rows, queries, recipe and split of the queries are the committed bank's.

- **halves**: pairs of complementary halves, drawn by a seed, each trained at two seeds of first weights and order. Ground truth is the mean over the two. Pairs with an even number are to choose on, the others to report on.
- **rows**: the training without each single row, at the seeds that are finished for all rows. The trainings without rows of other subjects and sources are the controls of an effect.
- **sources**: the training without each bad source, at several seeds; the other bad sources are its controls, as in `groups`.
- **compared**: halves of the committed bank, trained again on the GPU: how far two devices differ.

`--work` is the folder of `benchmarks.deep_bank`, with its scores.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.deep_bank.citations import Refits, committed, effect_lines, effect_of
from benchmarks.deep_bank.effects import Effect, summary
from benchmarks.deep_bank.groups import bad_sources
from benchmarks.deep_bank.groups import figures as group_figures
from benchmarks.deep_bank.halved import HalvedQuery
from benchmarks.deep_bank.material import FOLDER, SEEDS, BankQuery, Material, Part, read_lora_material
from benchmarks.deep_bank.scores import FORMS, all_scores, shown_order, standardised_sum
from benchmarks.deep_bank.signs import agreement, sign_lines, stand_outs
from benchmarks.deep_bank.table import Truth, lines_of, table
from benchmarks.deep_bank.train import load_losses
from benchmarks.program import command, run
from wherefrom.attribution.ranking_metrics import Matrix, spearman_rows
from wherefrom.errors import ConfigurationError

LOSSES = FOLDER / "large.npz"
Losses = npt.NDArray[np.float32]
#: Methods whose first citations are measured.
CITING = ("adapter, order shown", "bm25")


@dataclass(frozen=True)
class Large:
    """Losses of all queries under every model, nats per completion token."""

    #: `[2 P, N]`, halves 2p and 2p + 1 complement each other, and `[S, 2 P, Q]`.
    kept: npt.NDArray[np.bool_]
    halves: Losses
    #: `[C, Q]` of the committed plan's first runs, trained again on the GPU.
    compared: Losses
    #: `[S, 1 + N, Q]`: with all rows, then without each; seeds that are finished.
    rows: Losses
    #: `[S, G, Q]` without each source, in the order of the rows.
    sources: Losses

    @cached_property
    def mean(self) -> Losses:
        """Losses under the halves, mean over seeds, `[2 P, Q]`."""
        mean: Losses = self.halves.mean(axis=0)
        return mean

    def truth(self, part: Part, queries: Sequence[int]) -> Truth:
        """Pairs and queries of one part."""
        wanted = np.arange(len(self.kept)) // 2 % 2 == (part == "report")
        return Truth(self.kept[wanted], self.mean[wanted][:, list(queries)], queries)


def main() -> None:
    """Compare and report."""
    parser = command(__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder of the adapter and of the scores")
    parser.add_argument(
        "--part", choices=("choose", "report"), default="choose", help="choices are made on `choose` alone"
    )
    parser.add_argument(
        "--order",
        action="append",
        default=[],
        metavar="PART=WEIGHT,...",
        help="also a weighted sum of standardised scores: net, adapter, final, bm25, similarity, activation, forward",
    )
    run(parser, _measure, table=lines)


def load() -> Large:
    """The committed losses.

    Raises:
        ConfigurationError: there are none, or they belong to another bank.
    """
    arrays = committed(LOSSES)
    rows = int(arrays["num_rows"])
    kept = np.unpackbits(arrays["kept"], axis=1, count=rows).astype(np.bool_)
    return Large(kept, arrays["halves"], arrays["compared"], arrays["rows"], arrays["sources"])


def _measure(arguments: argparse.Namespace, _folder: Path) -> dict[str, Any]:
    material, large, part = read_lora_material(), load(), arguments.part
    chosen = material.plan.queries_of(part, len(material.queries))
    scores = all_scores(arguments.work, variants=False)
    scores |= other_orders(scores) | {one: weighted(scores, one) for one in arguments.order}
    truth = large.truth(part, chosen)
    sources = [row.source or "" for row in material.rows]
    effects = stand_outs(large.kept, large.mean, chosen, loss_of_all=large.rows[:, 0].mean(axis=0))
    return {
        "part": part,
        "pairs": truth.pairs,
        "devices": devices(large, material),
        "ceiling": ceiling(large),
        "figures": table(scores, truth, material.queries, sources),
        "effects": len(effects),
        "negative": sum(one.nats < 0 for one in effects),
        "signs": {form: agreement(effects, scores[form], chosen) for form in FORMS},
        "citations": citations(large, scores, material.queries, chosen=chosen, sources=sources),
        "sources": source_effects(large, material),
    }


def other_orders(scores: dict[str, Matrix]) -> dict[str, Matrix]:
    """The order shown of the form `adapter` without one of its parts."""
    net, plain = scores["adapter, net"], scores["adapter"]
    words, alike, final = scores["bm25"], scores["similarity"], scores["adapter, final"]
    return {
        "adapter, order shown, no final": shown_order("adapter", net, words, alike),
        "adapter, order shown, not net": shown_order("adapter", plain, words, alike, final=final),
    }


def weighted(scores: dict[str, Matrix], order: str) -> Matrix:
    """A sum of standardised scores.

    Raises:
        ConfigurationError: it is not written as PART=WEIGHT,..., or names an unknown part.
    """
    named = {"net": "adapter, net", "final": "adapter, final"}
    parts, weights = [], []
    for one in order.split(","):
        name, _, weight = one.partition("=")
        try:
            parts.append(scores[named.get(name, name)])
            weights.append(float(weight))
        except (KeyError, ValueError):
            raise ConfigurationError(f"--order {order}: {one} is no PART=WEIGHT of known parts") from None
    return standardised_sum(parts, weights)


def devices(large: Large, material: Material) -> dict[str, float]:
    """How far trainings on the GPU are from the same ones on the CPU, beside how far two seeds are from each other, nats."""
    measured = load_losses(material.plan)
    places = {run: place for place, run in enumerate(measured.runs)}
    again = material.plan.runs()[: len(large.compared)]
    apart = large.compared - measured.queries[[places[run] for run in again]]
    of_seeds = large.halves[0] - large.halves[1]
    return {
        "models": len(large.compared),
        "rms": float(np.sqrt(np.square(apart).mean())),
        "largest": float(np.abs(apart).max()),
        "rms_of_seeds": float(np.sqrt(np.square(of_seeds).mean())),
    }


def ceiling(large: Large) -> float:
    """The LDS that no score can be expected to exceed: sqrt of the reliability of the mean over the seeds, by Spearman and Brown from that of one."""
    one, other = (large.halves[seed].T for seed in range(len(SEEDS)))
    alike = float(spearman_rows(one, other).mean())
    return float(np.sqrt(2 * alike / (1 + alike)))


def citations(
    large: Large,
    scores: dict[str, Matrix],
    queries: Sequence[BankQuery],
    *,
    chosen: Sequence[int],
    sources: Sequence[str],
) -> dict[str, Any]:
    """First citations, measured by refits without the row and by the halves; and rows that have nothing to do with the query."""
    refits = Refits(
        tuple(range(len(sources))), large.rows[:, 1:].astype(np.float64), {}, large.rows[:, 0].mean(axis=0)
    )
    related = {
        query: {row for row, one in enumerate(sources) if one == queries[query].source} for query in chosen
    }
    halved = {
        query: HalvedQuery.of(large.kept, large.mean[:, query], loss_of_all=float(refits.loss_of_all[query]))
        for query in chosen
    }
    found: dict[str, Any] = {}
    for name in CITING:
        first = {query: int(scores[name][query].argmax()) for query in chosen}
        refitted = [
            effect_of(refits, row=row, query=query, related=related[query]) for query, row in first.items()
        ]
        found[f"refits: first by {name}"] = _told(refitted)
        found[f"halves: first by {name}"] = _told([halved[query].effect(row) for query, row in first.items()])
    others = [(query, row) for query in chosen for row in range(len(sources)) if row not in related[query]]
    found["refits: unrelated rows"] = _told(
        [effect_of(refits, row=row, query=query, related=related[query]) for query, row in others]
    )
    found["halves: unrelated rows"] = _told([halved[query].effect(row) for query, row in others])
    return found


def _told(effects: Sequence[Effect | None]) -> dict[str, Any]:
    return summary([one for one in effects if one is not None])


def source_effects(large: Large, material: Material) -> dict[str, Any]:
    """The effect of each bad source on the outputs that it taught."""
    names, bad = list(dict.fromkeys(row.source for row in material.rows)), list(bad_sources())
    losses = large.sources[:, [names.index(name) for name in bad]].astype(np.float64)
    return group_figures(losses, bad, [query.source for query in material.queries])


def lines(result: dict[str, Any]) -> list[str]:
    """Lines for people."""
    devices = result["devices"]
    return [
        f"part {result['part']}: {result['pairs']} pairs, each half at two seeds; ceiling {result['ceiling']:.2f}",
        f"{devices['models']} halves trained on both devices: {devices['rms']:.4f} nats apart (largest {devices['largest']:.4f}); two seeds are {devices['rms_of_seeds']:.3f} apart",
        *lines_of(result["figures"]),
        f"{result['effects']} effects stand out, {result['negative']} of them negative",
        *sign_lines(result["signs"]),
        *effect_lines(result["citations"]),
        *(
            f"{name}: {one['outputs']} outputs, {one['nats']:+.2f} nats ({one['low']:.2f} to {one['high']:.2f}), z {one['z']:.1f}"
            for name, one in result["sources"].items()
        ),
    ]


if __name__ == "__main__":
    main()
