"""Which form ranks the effects of rows when all weights were trained? Scores the bank of full fine-tunes.

    python -m benchmarks.deep_bank.train --setting full --work DIR
    python -m benchmarks.deep_bank.full --work DIR [--part choose|report] [--json]

A full fine-tune costs several times an adapter's, so this bank takes 24 of the deep bank's rows, the queries about them, and halves and a split drawn the same way. Kernels are cosines; `midpoint` is the model half-way between the first and the final
weights, and `+ midpoint` adds the kernels of both. `of 4`, `of 8` and `of all` are evenly spaced hidden states.
"""

import argparse
from collections.abc import Callable, Mapping
from functools import cached_property, reduce
from operator import add
from pathlib import Path
from typing import Any

from benchmarks.deep_bank.gradients import gradient_kernels
from benchmarks.deep_bank.material import FULL, RECIPE
from benchmarks.deep_bank.proxies.scores import Kernel, read_signals, similarity, state_kernel, word_scores
from benchmarks.deep_bank.scores import shown_order
from benchmarks.deep_bank.table import ceiling, lines_of, table, truth_of
from benchmarks.deep_bank.train import ensure_full_model, load_losses
from benchmarks.program import command, report, run
from benchmarks.work_folder import kept_scores
from scripts.smollm2 import default_cache, ensure_base_model
from wherefrom.attribution.bundles.options import default_layers
from wherefrom.attribution.models.files import ModelFolders
from wherefrom.attribution.models.model import LanguageModel, load_model
from wherefrom.attribution.models.signals import Form
from wherefrom.attribution.models.trajectory import load_halfway
from wherefrom.attribution.ranking_metrics import Matrix
from wherefrom.retraining.training import token_rows

POINTS = ("final", "midpoint")
Kernels = Mapping[str, Kernel]


def main() -> None:
    """Score what has no scores yet, then report one part."""
    parser = command(__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder of the model and of finished scores")
    parser.add_argument(
        "--part", choices=("choose", "report"), default="choose", help="choices are made on `choose` alone"
    )
    run(parser, _score, table=lambda result: lines_of(result["figures"]))


def _score(arguments: argparse.Namespace, _work: Path) -> dict[str, Any]:
    material, part = FULL.read(), arguments.part
    measured = load_losses(material.plan, FULL)
    truth = truth_of(material.plan, measured, part, queries=len(material.queries))
    twice, highest = ceiling(material.plan, measured)
    report([f"part {part}: {2 * truth.pairs} halves; {twice} halves trained twice, ceiling {highest:.2f}"])
    sources = [row.source for row in material.rows]
    figures = table(all_scores(arguments.work), truth, material.queries, sources)
    return {"part": part, "halves": 2 * truth.pairs, "figures": figures}


def all_scores(work: Path) -> dict[str, Matrix]:
    """Scores `[Q, N]` by method; what has a file in the work folder is read."""
    bench = FullBench(work)
    makers: dict[str, Callable[[], Mapping[str, Matrix]]] = {
        "words": bench.baselines,
        "kernels": bench.kernel_scores,
    }
    found = kept_scores(work, makers)
    return found | orders_shown(found)


def orders_shown(found: Mapping[str, Matrix]) -> dict[str, Matrix]:
    """Every kernel with the share of BM25 and similarity that both forms have, as a page orders its citations."""
    return {
        f"{name}, order shown": shown_order("activation", one, found["bm25"], found["similarity"])
        for name, one in found.items()
        if name.startswith(("forward, of 4", "activation, of 4"))
    }


class FullBench:
    """The two points of the fine-tune and what is read at them."""

    def __init__(self, work: Path) -> None:
        self._folders = ModelFolders(ensure_full_model(work), start=ensure_base_model(default_cache()))
        material = FULL.read()
        self._rows, self._asked = material.rows, [one.row for one in material.queries]

    @cached_property
    def _final(self) -> LanguageModel:
        return load_model(self._folders.model)

    def baselines(self) -> dict[str, Matrix]:
        """BM25, and the similarity of hidden states at the final weights."""
        layer = self._final.layers
        examples, queries = (
            read_signals(self._final, one, (layer,), "forward")[0] for one in self._tokens(self._final)
        )
        found = word_scores(self._rows, self._asked) | similarity(examples, queries)
        return {name: one.cosine for name, one in found.items()}

    def kernel_scores(self) -> dict[str, Matrix]:
        """Both forms and whole gradients at both points, and summed over them."""
        final, half = (
            self._kernels(point) for point in (self._final, load_halfway(self._final, self._folders))
        )
        found = {f"{name}, final": one for name, one in final.items()}
        found |= {f"{name}, midpoint": one for name, one in half.items()}
        found |= {f"{name}, final + midpoint": final[name] + half[name] for name in final}
        return {name: one.cosine.numpy() for name, one in found.items()}

    def _kernels(self, point: LanguageModel) -> Kernels:
        tokens = self._tokens(point)
        layers = tuple(range(point.layers + 1))
        examples, queries = (read_signals(point, one, layers, "activation")[0] for one in tokens)
        found: dict[str, Kernel] = {}
        for name, form, chosen in _choices(point.layers):
            parts = [state_kernel(examples, queries, layer, form) for layer in chosen]
            found[name] = reduce(add, parts)
        raw, whitened = gradient_kernels(point, *tokens)
        return found | {"gradients, raw": raw, "gradients, K-FAC": whitened}

    def _tokens(self, point: LanguageModel) -> tuple[Any, Any]:
        rows, asked = (
            token_rows(point, some, max_tokens=RECIPE.max_tokens) for some in (self._rows, self._asked)
        )
        return rows, asked


def _choices(layers: int) -> list[tuple[str, Form, tuple[int, ...]]]:
    """Hidden states of each variant: name, form, layers."""
    eight = tuple(round(layers * (step + 1) / 8) for step in range(8))
    return [
        ("forward, of 4", "forward", default_layers("forward", layers)),
        ("activation, of 4", "activation", default_layers("activation", layers)),
        ("activation, of 8", "activation", eight),
        ("activation, of all", "activation", tuple(range(1, layers + 1))),
    ]


if __name__ == "__main__":
    main()
