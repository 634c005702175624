r"""Cores: what the form `adapter` keeps of an example, [r, r] numbers for each adapted linear layer, however long the example is.

    F_g(z) = sum_t v~_t u~_t'                                  [r, r], from whitened u and v (`models.adapted`, `whitening`)
    k(q, z) = sum_g <F_g(q), F_g(z)>  =  sum_{t,s} M_ts        the kernel of all forms (`kernel`)

Stored as int8 with one scale per layer and example. The contributions M_ts that explain a citation would need every token's factors again. Instead each
token s of an example keeps a *sketch*, the projection (`retrieval.core_projection`) of its own rank-one core v~_s u~_s', and

    M_ts  ~  p_t . p_s + (v~_t' F(z) u~_t - sum_s' p_t . p_s') / T_z

so each output token's share is exact, M adds up to k, and only its division over the example's tokens is approximate.

*Compact* cores are what the projection leaves of them, in one bit for each of half as many numbers. With v the projected vector, which is stored to be searched,

    F(z)  ~  |z| V v(z) + S' b(z),      b(z) = bits of S (F(z) - |z| V v(z))

S adds the numbers of each layer in pairs with random signs (`_fold`). The projection alone loses much where a corpus is larger than it has directions, and bits of the whole core are
noise in the very directions that curvature takes out (docs/quality/features.md). The first coordinates of each sketch take half a byte (`arrays.coded`).
"""

import functools
import math
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np
import torch
from torch import Tensor

from wherefrom.attribution.array_files import mapped
from wherefrom.attribution.arrays import QuantisedWriter, decoded, mixed_numbers, restored, rewrite, taken
from wherefrom.attribution.factors import Factors
from wherefrom.attribution.kernel import gradient_matrices, segment_sum
from wherefrom.attribution.row_features import RowFeatures, Rows, save_offsets_and_norms
from wherefrom.errors import BundleCorrupt

#: Leading coordinates of the projection that a token's sketch keeps.
SKETCH = 128
#: Bits of a number of a compact core; coordinates of a compact sketch, and the bits of each.
CORE_BITS, COMPACT_SKETCH, SKETCH_BITS = 1, 32, 4
#: Examples, and tokens of a query, whose cores are float32 at once.
_CHUNK = 256
_CORES, _SKETCHES = ("cores", "core_scales"), ("sketches", "sketch_scales")


class Projects(Protocol):
    """Maps cores to a few numbers, linearly."""

    def project(self, cores: Tensor) -> Tensor:
        """Projected vectors `[N, P]` of cores `[N, K]`."""

    def lift(self, projected: Tensor) -> Tensor:
        """The cores `[N, K]` in the projection's directions that projected vectors `[N, P]` stand for."""


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


class CoreStore(RowFeatures):
    """Reads cores by corpus row, memory-mapped."""

    problem = "the cores cannot be opened"

    def __init__(self, folder: Path, projection: Projects | None = None, *, rank: int | None = None) -> None:
        """Open a folder.

        Args:
            folder: the bundle's folder of features.
            projection: without it, tokens cannot be told apart (`contributions`).
            rank: r, of compact cores, whose files do not tell it.

        Raises:
            BundleCorrupt: a file cannot be read.
        """
        super().__init__(folder, _CORES if projection is None else _CORES + _SKETCHES)
        #: Projected vectors `[N, P]`, which belong to the search; compact cores are what they leave.
        self._vectors = None if rank is None else self._mapped(folder, "vectors")
        self._projection, self._rank = projection, rank
        self._compact = self._arrays["cores"].dtype == np.uint8
        if self._compact and (rank is None or projection is None):
            raise BundleCorrupt(f"{folder}: compact cores without their rank and projection")

    @property
    def shape(self) -> tuple[int, int]:
        """Adapted layers, and directions of each."""
        _, groups, numbers = self._arrays["cores"].shape
        return int(groups), self._rank or math.isqrt(int(numbers))

    def cores(self, rows: Rows, device: torch.device | None = None) -> Tensor:
        """Cores of the given rows, float32 `[K, G r r]`, on a device (None: the CPU)."""
        held, scales = self._arrays["cores"], self._arrays["core_scales"]
        if self._vectors is None or self._projection is None:
            return restored(held, scales, rows, device).flatten(1)
        rest = decoded(*taken((held, scales), rows, device), bits=CORE_BITS, numbers=_folded(self.shape[1]))
        lifted = _lifted(self._projection, taken((self._vectors, self.norms), rows, device))
        return lifted + _unfold(rest, self.shape[1]).flatten(1)

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
        device = query.a.device
        own = sketches(query, self._projection)
        kept = self._sketches(self.tokens(rows), device, numbers=own.shape[1])
        pairs = own[:, : kept.shape[1]] @ kept.T  # [T_q, S]
        lacking = self._by_token(query, rows) - segment_sum(pairs.T.contiguous(), lengths).T  # [T_q, K]
        counts = torch.tensor(lengths, device=device)
        return (pairs + torch.repeat_interleave(lacking / counts, counts, dim=1)).cpu(), lengths

    def _sketches(self, tokens: Rows, device: torch.device, *, numbers: int) -> Tensor:
        """Sketches of the given tokens; `numbers` is what a whole one has."""
        held, scales = self._arrays["sketches"], self._arrays["sketch_scales"]
        if not self._compact:
            return restored(held, scales, tokens, device)
        kept = min(COMPACT_SKETCH, numbers)
        return decoded(*taken((held, scales), tokens, device), bits=SKETCH_BITS, numbers=kept)

    def _by_token(self, query: Factors, rows: Rows) -> Tensor:
        """What each token of a query shares with each row, `[T_q, K]`: v' F u over all layers."""
        cores = self.cores(rows, query.a.device).T  # [G r r, K]
        parts = [
            token_cores(Factors(a, b, (len(a),))) @ cores
            for a, b in zip(query.a.split(_CHUNK), query.b.split(_CHUNK), strict=True)
        ]
        return torch.cat(parts)


def compact_cores(folder: Path, projection: Projects) -> None:
    """Write the cores and sketches of a folder anew with few bits, part by part, in place of the whole ones; the projected vectors stand there."""
    whole = CoreStore(folder)
    groups, rank = whole.shape
    vectors = mapped(folder / "vectors.npy")

    def rest(cores: Tensor, rows: Rows) -> Tensor:
        lifted = _lifted(projection, taken((vectors, whole.norms), rows, None))
        return _fold(cores - lifted.view(len(rows), groups, -1), rank)

    rewrite(folder, ("cores", "core_scales"), rest, bits=CORE_BITS)
    rewrite(
        folder,
        ("sketches", "sketch_scales"),
        lambda one, _: one[:, :COMPACT_SKETCH],
        bits=SKETCH_BITS,
    )


def _lifted(projection: Projects, vectors_and_norms: Iterable[Tensor]) -> Tensor:
    """|z| V v(z) `[K, G r r]` of projected vectors `[K, P]` and norms `[K]`."""
    vectors, norms = vectors_and_norms
    return projection.lift(vectors * norms[:, None])


def _folded(rank: int) -> int:
    """Numbers of a layer of a compact core."""
    return (rank**2 + 1) // 2


def _fold(cores: Tensor, rank: int) -> Tensor:
    """S `[N, G, r r]` to `[N, G, ceil(r r / 2)]`."""
    places, signs = _pairs(cores.shape[1], rank)
    flat = (cores * signs.to(cores.device)).flatten(1)
    return (
        flat.new_zeros(len(flat), cores.shape[1] * _folded(rank))
        .index_add_(1, places.to(flat.device), flat)
        .view(len(flat), cores.shape[1], -1)
    )


def _unfold(folded: Tensor, rank: int) -> Tensor:
    """S' `[N, G, ceil(r r / 2)]` to `[N, G, r r]`."""
    places, signs = _pairs(folded.shape[1], rank)
    spread = folded.flatten(1)[:, places.to(folded.device)].view(len(folded), folded.shape[1], -1)
    return spread * signs.to(folded.device)


@functools.lru_cache(maxsize=4)
def _pairs(groups: int, rank: int) -> tuple[Tensor, Tensor]:
    """Where each number of each layer goes, `[G r r]`, and its sign, `[G, r r]`; the same on every machine and in every release."""
    mixed = mixed_numbers(np.arange(groups * rank**2, dtype=np.uint64)).reshape(groups, -1)
    order = np.argsort(np.argsort(mixed, axis=1, kind="stable"), axis=1, kind="stable")
    places = order % _folded(rank) + np.arange(groups)[:, None] * _folded(rank)
    signs = (mixed & np.uint64(1)).astype(np.float32) * 2.0 - 1.0
    return torch.from_numpy(places.ravel()), torch.from_numpy(signs)


def _chunks(rows: Rows) -> list[Rows]:
    return [rows[first : first + _CHUNK] for first in range(0, len(rows), _CHUNK)]
