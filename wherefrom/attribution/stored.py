"""What the engine asks of the stored features of a corpus, whatever their form."""

from pathlib import Path
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wherefrom.attribution.cores import CoreStore
from wherefrom.attribution.factors import Factors, FactorStore
from wherefrom.attribution.kernel import kernel_scores, token_kernel
from wherefrom.attribution.models.reading import BundleForm, reads_adapter
from wherefrom.attribution.retrieval.core_projection import CoreProjection
from wherefrom.attribution.retrieval.projection import Projection

Rows = npt.NDArray[np.int64]


class ExampleStore(Protocol):
    """Features of all training examples, on disk."""

    #: `[N]` kernel norms |z|, and `[N + 1]` where each row's explained tokens begin.
    norms: npt.NDArray[np.float32]
    offsets: Rows

    def __len__(self) -> int: ...

    @property
    def bytes_per_example(self) -> float:
        """Mean bytes on disk per training example."""

    def lengths(self, rows: Rows) -> Rows:
        """Explained tokens of the given rows."""

    def scores(self, queries: Factors, rows: Rows) -> Tensor:
        """Kernel values `[Q, K]` of every query with the given rows; computed where the queries are, given on the CPU."""

    def contributions(self, query: Factors, rows: Rows) -> tuple[Tensor, tuple[int, ...]]:
        """Contributions of token pairs `[T_q, S]` on the CPU, the tokens of all rows behind each other, and the tokens of each row."""


class Projects(Protocol):
    """Maps rows to the few numbers that retrieval searches."""

    @property
    def dimensions(self) -> int:
        """Length of a projected vector."""

    def to(self, device: torch.device | None) -> Self:
        """The same on another device."""

    def apply(self, factors: Factors, norms: Tensor) -> Tensor:
        """Projected vectors `[N, P]`, where the projection is; their inner products estimate the kernel's cosine."""


class TokenStore(FactorStore):
    """The factors of every token: forms `forward` and `activation`."""

    def scores(self, queries: Factors, rows: Rows) -> Tensor:
        """See `ExampleStore.scores`."""
        return kernel_scores(queries, self.gather(rows)).cpu()

    def contributions(self, query: Factors, rows: Rows) -> tuple[Tensor, tuple[int, ...]]:
        """See `ExampleStore.contributions`; exact."""
        packed = self.gather(rows).to(query.a.device)
        return token_kernel(query, packed.unpack()).cpu(), packed.lengths


def open_features(
    bundle: Path, form: BundleForm, device: torch.device | None = None, *, rank: int | None = None
) -> tuple[ExampleStore, Projects]:
    """The stored features of a bundle and their projection.

    Args:
        bundle: its folder.
        form: its form.
        device: where the projection is put; None for the CPU.
        rank: r of compact cores; None for whole ones.

    Raises:
        BundleCorrupt: a file cannot be read.
    """
    features = bundle / "features"
    projection = open_projection(bundle, form, device)
    if isinstance(projection, CoreProjection):
        return CoreStore(features, projection, rank=rank), projection
    widths = None if rank is None else (projection.bases_a.shape[1], projection.bases_b.shape[1])
    return TokenStore(features, widths), projection


def open_projection(
    bundle: Path, form: BundleForm, device: torch.device | None = None
) -> CoreProjection | Projection:
    """The projection of a bundle, on a device (None: the CPU).

    Raises:
        BundleCorrupt: the file cannot be read.
    """
    file = bundle / "projection.safetensors"
    if reads_adapter(form):
        return CoreProjection.load(file).to(device)
    return Projection.load(file).to(device)
