r"""Kernels of whole weight gradients, raw and whitened by K-FAC, over all linear layers of the blocks.

For a linear layer y_t = W x_t and g_t = dL / dy_t over all positions t of a row,

    raw:       G = sum_t g_t x_t'
    whitened:  G = sum_t (C_g + m_g I)^(-1/2) g_t x_t' (C_x + m_x I)^(-1/2),   m = damping * mean diagonal of C

with C_x and C_g the second moments over the examples' positions. A kernel is the inner product of two rows' G, summed over the layers.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.deep_bank.proxies.scores import Kernel
from wherefrom.attribution.ekfac.factors import run_batches
from wherefrom.attribution.ekfac.gradients import LinearTaps, Visit, block_linears
from wherefrom.attribution.models.model import LanguageModel
from wherefrom.attribution.models.render import TokenRow
from wherefrom.attribution.whitening import inverse_roots

#: Linear layers whose inputs and gradients are held at a time (about 4 KB a position and layer).
LAYERS_AT_A_TIME = 70
DAMPING = 0.1


@dataclass(frozen=True)
class Positions:
    """One layer's inputs `[S, I]` and output gradients `[S, O]`, the positions of all rows behind each other."""

    x: Tensor
    g: Tensor
    lengths: tuple[int, ...]

    def gradients(self) -> Tensor:
        """G of every row, `[N, O * I]`."""
        pairs = zip(self.x.split(self.lengths), self.g.split(self.lengths), strict=True)
        found: Tensor = torch.stack([(g.T @ x).flatten() for x, g in pairs])
        return found

    def mapped(self, of_x: Tensor, of_g: Tensor) -> "Positions":
        """Inputs and gradients times symmetric matrices."""
        return Positions(self.x @ of_x, self.g @ of_g, self.lengths)

    def first(self, rows: int) -> "Positions":
        """Those of the first rows."""
        count = sum(self.lengths[:rows])
        return Positions(self.x[:count], self.g[:count], self.lengths[:rows])


def gradient_kernels(
    language: LanguageModel, examples: Sequence[TokenRow], queries: Sequence[TokenRow]
) -> tuple[Kernel, Kernel]:
    """The raw and the whitened kernel of every query with every example.

    Args:
        language: The model; an adapter is merged already.
        examples: N rows, which whiten as well.
        queries: Q rows.
    """
    raw, whitened = _nothing(queries, examples), _nothing(queries, examples)
    for layer in _layers(language, [*examples, *queries]):
        raw += _kernel(layer, len(examples))
        own = layer.first(len(examples))
        whitened += _kernel(layer.mapped(inverse_root(own.x), inverse_root(own.g)), len(examples))
    return raw, whitened


def inverse_root(tokens: Tensor) -> Tensor:
    """(C + m I)^(-1/2) of the second moments C of tokens `[S, D]`, float32 `[D, D]`."""
    moments = tokens.double().T @ tokens.double() / len(tokens)
    return inverse_roots(moments[None].numpy(), DAMPING)[0]


def _layers(language: LanguageModel, rows: Sequence[TokenRow]) -> Iterator[Positions]:
    """Layer after layer; the rows go through the model once for each handful of layers."""
    names = block_linears(language)
    taps = LinearTaps(language, names)
    for start in range(0, len(names), LAYERS_AT_A_TIME):
        yield from _read(taps, rows, names[start : start + LAYERS_AT_A_TIME])


def _read(taps: LinearTaps, rows: Sequence[TokenRow], names: Sequence[str]) -> Iterator[Positions]:
    held: dict[str, dict[int, tuple[Tensor, Tensor]]] = {name: {} for name in names}

    def visit(batch: list[int]) -> Visit:
        def keep(name: str, x: Tensor, g: Tensor, mask: Tensor) -> None:
            for place, row in enumerate(batch):
                held[name][row] = x[place][mask[place]], g[place][mask[place]]

        return keep

    run_batches(taps, rows, visit, names=names)
    for name in names:
        of_layer = held.pop(name)
        pairs = [of_layer[row] for row in range(len(rows))]
        yield Positions(
            torch.cat([x for x, _ in pairs]),
            torch.cat([g for _, g in pairs]),
            tuple(len(x) for x, _ in pairs),
        )


def _kernel(layer: Positions, examples: int) -> Kernel:
    gradients = layer.gradients()
    own, asked = gradients[:examples], gradients[examples:]
    return Kernel(asked @ own.T, asked.square().sum(dim=1), own.square().sum(dim=1))


def _nothing(queries: Sequence[TokenRow], examples: Sequence[TokenRow]) -> Kernel:
    asked, own = len(queries), len(examples)
    return Kernel(torch.zeros(asked, own), torch.zeros(asked), torch.zeros(own))
