r"""Cores: what the form `adapter` keeps of an example, [r, r] numbers for each adapted linear layer, however long the example is.

    F_g(z) = sum_t v~_t u~_t'                                  [r, r], from whitened u and v (`models.adapted`, `whitening`)
    k(q, z) = sum_g <F_g(q), F_g(z)>  =  sum_{t,s} M_ts        the kernel of all forms (`kernel`)

Stored as int8 with one scale per layer and example. The contributions M_ts that explain a citation would need every token's factors again. Instead each
token s of an example keeps a *sketch*, the projection (`retrieval.core_projection`) of its own rank-one core v~_s u~_s', and

    M_ts  ~  p_t . p_s + (v~_t' F(z) u~_t - sum_s' p_t . p_s') / T_z

so each output token's share is exact, M adds up to k, and only its division over the example's tokens is approximate.
"""

import math
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wherefrom.attribution.arrays import QuantisedWriter, restored
from wherefrom.attribution.factors import Factors, save_offsets_and_norms
from wherefrom.attribution.kernel import gradient_matrices, segment_sum
from wherefrom.errors import BundleCorrupt

Rows = npt.NDArray[np.int64]

#: Leading coordinates of the projection that a token's sketch keeps.
SKETCH = 128
#: Examples, and tokens of a query, whose cores are float32 at once.
_CHUNK = 256
_FILES = ("cores", "core_scales", "offsets", "norms", "sketches", "sketch_scales")


class Projects(Protocol):
    """Maps cores to a few numbers, linearly."""

    def project(self, cores: Tensor) -> Tensor:
        """Projected vectors `[N, P]` of cores `[N, K]`."""


def cores_of(factors: Factors) -> Tensor:
    """Cores of each row laid end to end, `[N, G r r]`."""
    return gradient_matrices(factors).flatten(1)


def token_cores(factors: Factors) -> Tensor:
    """The rank-one core of every token laid end to end, `[S, G r r]`."""
    return torch.einsum("tgi,tgj->tgij", factors.b, factors.a).flatten(1)


def sketches(factors: Factors, projection: Projects) -> Tensor:
    """Sketches of every token, `[S, SKETCH]` or fewer coordinates."""
    parts = [
        projection.project(token_cores(Factors(a, b, (len(a),))))[:, :SKETCH]
        for a, b in zip(factors.a.split(_CHUNK), factors.b.split(_CHUNK), strict=True)
    ]
    return torch.cat(parts)


class CoreWriter:
    """Writes the cores of a corpus of known size; `finish` and `write_sketches` complete the folder."""

    def __init__(self, folder: Path, examples: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._cores = QuantisedWriter(folder / "cores.npy", folder / "core_scales.npy", count=examples)
        self._lengths, self._norms = array("q"), array("f")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cores.__exit__(kind, error, trace)

    def append(self, factors: Factors, norms: Sequence[float]) -> None:
        """Add rows in corpus order with their kernel norms."""
        groups = factors.a.shape[1]
        self._cores.append(cores_of(factors).view(len(factors.lengths), groups, -1))
        self._lengths.extend(factors.lengths)
        self._norms.extend(norms)

    def finish(self) -> None:
        """Write what belongs to the cores: scales, offsets and norms."""
        self._cores.finish()
        save_offsets_and_norms(self._folder, self._lengths, self._norms)


def write_sketches(folder: Path, parts: Iterable[Factors], projection: Projects) -> None:
    """Write the sketches of a corpus' tokens, in order; the cores stand in the folder already."""
    tokens = int(np.load(folder / "offsets.npy", allow_pickle=False)[-1])
    with QuantisedWriter(folder / "sketches.npy", folder / "sketch_scales.npy", count=tokens) as written:
        for part in parts:
            written.append(sketches(part, projection))
        written.finish()


class CoreStore:
    """Reads cores by corpus row, memory-mapped."""

    def __init__(self, folder: Path, projection: Projects | None = None) -> None:
        """Open a folder; without a projection, tokens cannot be told apart (`contributions`)."""
        wanted = _FILES if projection is not None else _FILES[:4]
        try:
            self._arrays = {
                name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in wanted
            }
        except (OSError, ValueError) as error:
            raise BundleCorrupt(f"{folder}: the cores cannot be opened: {error}") from error
        self._projection = projection
        self.offsets: Rows = np.asarray(self._arrays["offsets"])
        #: `[N]` kernel norms |z|.
        self.norms: npt.NDArray[np.float32] = np.asarray(self._arrays["norms"])

    def __len__(self) -> int:
        return len(self.norms)

    @property
    def shape(self) -> tuple[int, int]:
        """Adapted layers, and directions of each."""
        _, groups, numbers = self._arrays["cores"].shape
        return int(groups), math.isqrt(int(numbers))

    @property
    def bytes_per_example(self) -> float:
        """Mean bytes on disk per training example."""
        return float(sum(array.nbytes for array in self._arrays.values())) / len(self)

    def lengths(self, rows: Rows) -> Rows:
        """Explained tokens of the given rows."""
        found: Rows = self.offsets[rows + 1] - self.offsets[rows]
        return found

    def cores(self, rows: Rows, device: torch.device | None = None) -> Tensor:
        """Cores of the given rows, float32 `[K, G r r]`, on a device (None: the CPU)."""
        held = self._arrays
        return restored(held["cores"], held["core_scales"], rows, device).flatten(1)

    def scores(self, queries: Factors, rows: Rows) -> Tensor:
        """Kernel values `[Q, K]` of every query with the given rows, on the CPU."""
        asked = cores_of(queries)
        return torch.cat([asked @ self.cores(part, asked.device).T for part in _chunks(rows)], dim=1).cpu()

    def layer_scores(self, query: Factors, rows: Rows) -> Tensor:
        """What each adapted layer adds to the kernel of one query with the given rows, `[K, G]` on the CPU."""
        asked = cores_of(query).view(self.shape[0], -1)  # [G, r r]
        parts = [
            torch.einsum("kgi,gi->kg", self.cores(part, asked.device).view(len(part), *asked.shape), asked)
            for part in _chunks(rows)
        ]
        return torch.cat(parts).cpu()

    def layer_products(self, row: int, others: Rows) -> Tensor:
        """What each adapted layer adds to the kernel of one row with others, `[K, G]`."""
        one, rest = self.cores(np.array([row])), self.cores(others)
        return (one * rest).view(len(others), self.shape[0], -1).sum(dim=2)

    def contributions(self, query: Factors, rows: Rows) -> tuple[Tensor, tuple[int, ...]]:
        """Contributions of token pairs `[T_q, S]` on the CPU, the tokens of all rows behind each other, and the tokens of each row."""
        if self._projection is None:
            raise BundleCorrupt("cores without their projection cannot distinguish tokens")
        lengths = tuple(self.lengths(rows).tolist())
        tokens = np.concatenate([np.arange(self.offsets[row], self.offsets[row + 1]) for row in rows])
        device = query.a.device
        kept = restored(self._arrays["sketches"], self._arrays["sketch_scales"], tokens, device)
        pairs = sketches(query, self._projection) @ kept.T  # [T_q, S]
        lacking = self._by_token(query, rows) - segment_sum(pairs.T.contiguous(), lengths).T  # [T_q, K]
        counts = torch.tensor(lengths, device=device)
        return (pairs + torch.repeat_interleave(lacking / counts, counts, dim=1)).cpu(), lengths

    def _by_token(self, query: Factors, rows: Rows) -> Tensor:
        """What each token of a query shares with each row, `[T_q, K]`: v' F u over all layers."""
        cores = self.cores(rows, query.a.device).T  # [G r r, K]
        parts = [
            token_cores(Factors(a, b, (len(a),))) @ cores
            for a, b in zip(query.a.split(_CHUNK), query.b.split(_CHUNK), strict=True)
        ]
        return torch.cat(parts)


def _chunks(rows: Rows) -> list[Rows]:
    return [rows[first : first + _CHUNK] for first in range(0, len(rows), _CHUNK)]
