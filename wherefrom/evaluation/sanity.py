r"""Whether citations depend on what the model learned, are spread over the corpus, and leave alone what the model never saw.

    model randomisation   score outputs and a sample of the corpus again with every block's weights shuffled: influence must change
    top-k cardinality     different training examples among the k first of all outputs / (k x outputs); 1 where none is cited twice
    mixed corpus          put rows that the model never saw beside the corpus: their share of the k first, beside the share by chance

References:
    Sanity checks by randomisation: Adebayo et al. (arXiv:1810.03292); for training examples Hanawa et al. (arXiv:2006.04528).
    Cardinality and mixed datasets: Quanda (arXiv:2410.07158).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from wherefrom.attribution.bundles.bundle import Bundle
from wherefrom.attribution.bundles.shards import RawShard, read_rows
from wherefrom.attribution.factors import Factors, pack
from wherefrom.attribution.kernel import kernel_norms, kernel_scores
from wherefrom.attribution.models.adapted import AdapterReader
from wherefrom.attribution.models.reading import ranks_of
from wherefrom.attribution.query import ReadQuery
from wherefrom.attribution.ranking_metrics import Matrix, best_rows, spearman_rows
from wherefrom.attribution.retrieval.index import evenly
from wherefrom.attribution.whitening import SecondMoments, Whitener
from wherefrom.evaluation.estimates import Estimate, mean_of

#: Citations of an output that are looked at.
TOP = 10
#: Training examples and outputs that are scored with the shuffled model, at most.
SAMPLED_ROWS, SAMPLED_OUTPUTS = 128, 32
#: Below these nothing is said.
FEWEST_ROWS, FEWEST_OUTPUTS = 3 * TOP, 5
_SEED = 0


def cardinality(scores: Matrix, *, made_of: str) -> dict[str, Estimate]:
    """Share of different training examples among the first ones of all outputs, and how often the most cited one is cited.

    Args:
        scores: order of each output, `[Q, N]`.
        made_of: the material.
    """
    first = best_rows(scores, TOP)
    cited, times = np.unique(first, return_counts=True)
    unit = "outputs"
    return {
        "different examples among the ten first of all outputs": Estimate(
            len(cited) / first.size, None, len(first), unit, made_of
        ),
        "outputs that cite the most cited example": Estimate(
            float(times.max()) / len(first), None, len(first), unit, made_of
        ),
    }


def mixed_corpus(
    influence: Matrix, asked: Sequence[ReadQuery], foreign: Sequence[ReadQuery], *, made_of: str
) -> dict[str, Estimate]:
    """Share of the most influential rows that the model never saw, where such rows stand beside the corpus.

    Args:
        influence: kernel cosines of the outputs with the corpus, `[Q, N]`.
        asked: the outputs.
        foreign: rows that the model never saw, read by the bundle's model.
        made_of: the material.
    """
    beside = _cosines(_factors_of(asked), _factors_of(foreign))
    both = np.concatenate([influence, beside], axis=1)
    shares = (best_rows(both, TOP) >= influence.shape[1]).mean(axis=1)
    chance = len(foreign) / both.shape[1]
    note = f"{chance:.3f} by chance: {len(foreign)} such rows beside {influence.shape[1]}"
    return {
        "rows that the model never saw among the ten of most influence": mean_of(
            shares, "outputs", made_of, note=note
        )
    }


def randomised(
    bundle: Bundle, influence: Matrix, asked: Sequence[ReadQuery], *, made_of: str
) -> dict[str, Estimate]:
    """How much of the influence stays when the weights of all blocks are shuffled.

    Args:
        bundle: the bundle; its model is as before afterwards.
        influence: kernel cosines of the outputs with the corpus, `[Q, N]`.
        asked: the outputs.
        made_of: the material.

    Returns:
        Spearman correlation of both scores and overlap of the first ten, over a sample of the corpus; nothing where the shuffled model gives values that are
        not finite.
    """
    count = influence.shape[1]
    rows = evenly(count, SAMPLED_ROWS)
    outputs = list(asked[:SAMPLED_OUTPUTS])
    with shuffled(_learned_weights(bundle), seed=_SEED):
        examples = read_rows(bundle.tokens.read(rows), bundle.reader)
        queries = read_rows([one.row for one in outputs], bundle.reader)
    if not all(torch.isfinite(values).all() for one in (examples, queries) for values in (one.a, one.b)):
        return {}
    whitener = _whitener(bundle, examples)
    by_chance = _cosines(queries.whitened(whitener), examples.whitened(whitener))
    real = influence[: len(outputs), rows]
    kept = [
        len(np.intersect1d(one, other)) / TOP
        for one, other in zip(best_rows(real, TOP), best_rows(by_chance, TOP), strict=True)
    ]
    unit = f"outputs, over {len(rows)} training examples"
    note = f"{TOP / len(rows):.3f} by chance"
    return {
        "influence of a shuffled model: rank correlation with the model's": mean_of(
            spearman_rows(real, by_chance), unit, made_of, note="0 by chance"
        ),
        "influence of a shuffled model: overlap of the ten first": mean_of(
            np.array(kept), unit, made_of, note=note
        ),
    }


@contextmanager
def shuffled(tensors: Sequence[Tensor], *, seed: int) -> Iterator[None]:
    """While it is open, the values of each tensor stand in another order; orders are drawn again to put them back, so no copy is kept."""
    done: list[tuple[int, Tensor]] = []
    try:
        for place, tensor in enumerate(tensors):
            _reorder(tensor, _order(tensor, seed + place))
            done.append((seed + place, tensor))
        yield
    finally:
        for own, tensor in done:
            _reorder(tensor, torch.argsort(_order(tensor, own)))


def _order(tensor: Tensor, seed: int) -> Tensor:
    return torch.randperm(tensor.numel(), generator=torch.Generator().manual_seed(seed))


def _reorder(tensor: Tensor, order: Tensor) -> None:
    with torch.no_grad():
        tensor.copy_(tensor.flatten()[order.to(tensor.device)].view_as(tensor))


def _learned_weights(bundle: Bundle) -> list[Tensor]:
    """Matrices of all blocks at every point that is read, and the adapter's where the reader keeps them; embeddings and head stay."""
    found: dict[int, Tensor] = {}
    for point in bundle.points:
        kept = {id(table.weight) for table in _tables(point.model)}
        for weight in point.model.parameters():
            if weight.dim() >= 2 and id(weight) not in kept:
                found[weight.data_ptr()] = weight
    if isinstance(bundle.reader, AdapterReader):
        for layer in bundle.reader.adapted:
            for side in (layer.low, layer.high, layer.read_low, layer.read_high):
                found[side.data_ptr()] = side
    return list(found.values())


def _tables(model: nn.Module) -> list[nn.Module]:
    tables = (model.get_input_embeddings(), model.get_output_embeddings())  # type: ignore[operator]  # transformers' own
    return [table for table in tables if table is not None]


def _whitener(bundle: Bundle, examples: RawShard) -> Whitener:
    """Whitening fitted on the sample, as the build fits it on the corpus."""
    moments = SecondMoments.of(examples.a, examples.b)
    return Whitener.fit(moments, bundle.manifest.parameters.damping, ranks=ranks_of(bundle.reader))


def _cosines(queries: Factors, examples: Factors) -> Matrix:
    """Kernel cosines `[Q, N]`."""
    kernel = kernel_scores(queries, pack(examples))
    norms = kernel_norms(queries)[:, None] * kernel_norms(examples)
    found: Matrix = (kernel / norms.clamp_min(1e-20)).numpy()
    return found


def _factors_of(queries: Sequence[ReadQuery]) -> Factors:
    return Factors.joined([one.signals.of_completion() for one in queries])
