"""Features of training examples that a bundle does not hold: the model reads the examples that are asked for once more, as the build did.

What a bundle of this kind keeps of an example is what finds it (projected vector, pooled state, words) and its kernel norm. An audit then costs a pass over its candidates beside
its own, tens of seconds on a CPU. Nothing is lost: scores are those of the exact form without its rounding to int8, and so is every token's share.

Only the tokens in the bundle are read (`tokens`). A row that was erased from a bundle is not among them, so it cannot be read again.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from wherefrom.attribution.bundles.shards import read_rows
from wherefrom.attribution.bundles.tokens import TokenRows
from wherefrom.attribution.factors import Factors, pack
from wherefrom.attribution.gradient_sketch import ScoresFinal
from wherefrom.attribution.kernel import gradient_matrices, kernel_scores, token_kernel
from wherefrom.attribution.models.trajectory import ReadsSignals
from wherefrom.attribution.row_features import RowFeatures, Rows
from wherefrom.attribution.whitening import Whitener

#: Memory for the rows that were read last: a query asks for the same ones several times, and queries of a batch share some.
KEPT_BYTES = 256 << 20
#: Rows that are scored at once.
_ROWS = 64
#: Numbers of a gradient matrix up to which it is formed to score with (form `adapter`).
_SMALL_MATRIX = 4096


@dataclass(frozen=True)
class _Read:
    """What one row gave, on the model's device."""

    factors: Factors
    #: Raw sketches of the gradients at the final weights, `[M, D]`, in bundles that have them.
    final: Tensor | None

    @classmethod
    def of(cls, factors: Factors, final: Tensor | None) -> Self:
        """With memory of its own: a row that is cut out of its batch would keep all of the batch."""
        own = Factors(factors.a.clone(), factors.b.clone(), factors.lengths)
        return cls(own, None if final is None else final.clone())

    @property
    def size_bytes(self) -> int:
        """Memory of its tensors."""
        parts = (self.factors.a, self.factors.b, self.final)
        return sum(one.nbytes for one in parts if one is not None)


class Rereader:
    """Reads training examples by row, and keeps those that were read last."""

    def __init__(
        self,
        reader: ReadsSignals,
        whitener: Whitener,
        tokens: TokenRows,
        *,
        kept_bytes: int = KEPT_BYTES,
    ) -> None:
        """Take what reads.

        Args:
            reader: that of the corpus, as the build had it.
            whitener: of the bundle, where the model is.
            tokens: the corpus as the model saw it.
            kept_bytes: memory for the rows that were read last.
        """
        self._reader, self._whitener, self._tokens = reader, whitener, tokens
        self._kept: OrderedDict[int, _Read] = OrderedDict()
        self._kept_bytes, self._bytes = kept_bytes, 0
        #: Rows that went through the model.
        self.passes = 0

    def read(self, rows: Rows) -> list[_Read]:
        """The given rows, in their order; those that are not kept go through the model together."""
        wanted = [int(row) for row in rows]
        found = {row: self._kept[row] for row in wanted if row in self._kept}
        missing = [row for row in dict.fromkeys(wanted) if row not in found]
        if missing:
            found.update(zip(missing, self._pass(missing), strict=True))
        for row in dict.fromkeys(wanted):
            self._keep(row, found[row])
        return [found[row] for row in wanted]

    def _pass(self, rows: Sequence[int]) -> list[_Read]:
        raw = read_rows(self._tokens.read(rows), self._reader)
        self.passes += len(rows)
        final = [None] * len(rows) if raw.final is None else list(raw.final)
        each = raw.whitened(self._whitener).rows()
        return [_Read.of(one, sketch) for one, sketch in zip(each, final, strict=True)]

    def _keep(self, row: int, read: _Read) -> None:
        if row in self._kept:
            self._kept.move_to_end(row)
            return
        self._kept[row] = read
        self._bytes += read.size_bytes
        while self._bytes > self._kept_bytes and self._kept:
            self._bytes -= self._kept.popitem(last=False)[1].size_bytes


class TextStore(RowFeatures):
    """Features of a corpus by reading it; see `stored.ExampleStore`."""

    problem = "the lengths of the training examples cannot be read"

    def __init__(self, features: Path, rereader: Rereader) -> None:
        """Open what is on disk.

        Raises:
            BundleCorrupt: it cannot be read.
        """
        super().__init__(features)
        #: Reads the rows, for other scores too.
        self.rereader = rereader

    def scores(self, queries: Factors, rows: Rows) -> Tensor:
        """See `ExampleStore.scores`."""
        parts = [queries.a.new_zeros(len(queries.lengths), 0)]
        parts += [_kernel(queries, some) for some in self._parts(rows)]
        return torch.cat(parts, dim=1).cpu()

    def contributions(self, query: Factors, rows: Rows) -> tuple[Tensor, tuple[int, ...]]:
        """See `ExampleStore.contributions`; exact."""
        parts = list(self._parts(rows))
        pairs = torch.cat([token_kernel(query, some) for some in parts], dim=1)
        return pairs.cpu(), tuple(length for some in parts for length in some.lengths)

    def layer_scores(self, query: Factors, rows: Rows) -> Tensor:
        """What each kernel group adds to the kernel of one query with the given rows, `[K, G]` on the CPU."""
        asked = gradient_matrices(query)[0]  # [G, Db, Da]
        parts = [torch.einsum("kgij,gij->kg", gradient_matrices(some), asked) for some in self._parts(rows)]
        return torch.cat(parts).cpu()

    def _parts(self, rows: Rows) -> Iterator[Factors]:
        for first in range(0, len(rows), _ROWS):
            yield Factors.joined([one.factors for one in self.rereader.read(rows[first : first + _ROWS])])


def _kernel(queries: Factors, examples: Factors) -> Tensor:
    if queries.a.shape[2] * queries.b.shape[2] > _SMALL_MATRIX:
        return kernel_scores(queries, pack(examples))
    return gradient_matrices(queries).flatten(1) @ gradient_matrices(examples).flatten(1).T


@dataclass(frozen=True)
class RereadFinalGradients(ScoresFinal):
    """Gradients at the final weights by reading the rows again."""

    at_once = _ROWS

    rereader: Rereader

    def _corpus(self, rows: Rows, device: torch.device) -> Tensor:
        read = self.rereader.read(rows)
        sketches = torch.stack([one.final for one in read if one.final is not None])
        return self.whitened(sketches.to(device))
