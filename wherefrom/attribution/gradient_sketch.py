r"""Sketches of the gradients of A and B: a few numbers that hold the inner products of very many.

    g = vec(dL/dA) or vec(d L / d(s B))  of one adapted layer              [n]
    S(g)_d = sum_{i: h(i) = d} e(i) g_i                                    [D]    h(i) in 0..D-1 and e(i) = +-1, pseudorandom
    f = (C + l I)^(-1/2) S(g),    C = mean_z S(g_z) S(g_z)',   l = damping tr(C) / D
    final(q, z) = sum over matrices <f(q), f(z)>

S is a count sketch: <S(g), S(g')> is <g, g'> but for noise of |g| |g'| / sqrt(D), and the noise of hundreds of matrices averages out. C is the whole empirical Fisher matrix
of each of A and B in the sketch, so final(q, z) is the influence of z's gradient step on q with its inverse.

References:
    Count sketch: Charikar, Chen, Farach-Colton 2002; inner products by it: Weinberger et al., arXiv:0902.2206.
    Attribution by random projections of gradients: TRAK (arXiv:2303.14186); per matrix: LoGra (arXiv:2405.13954).
"""

import functools
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from wherefrom.attribution.arrays import QuantisedWriter, restored
from wherefrom.attribution.whitening import inverse_roots, outer_sums
from wherefrom.errors import BundleCorrupt

Rows = npt.NDArray[np.int64]

#: D, numbers of one sketched matrix: a power of two. 32, 64, 128 and 256 gave LDS .725, .732, .738 and .741 of the order shown (choosing half of the deep bank).
NUMBERS = 128
#: Flat from .1 to 1 (LDS .739, .741, .740, .739 there at .13, .38, .77 and 1.3).
FINAL_DAMPING = 0.3
#: Rows whose sketches are float32 at once.
_ROWS = 256
WHITENING, _SKETCHES, _SCALES = "final_whitening.safetensors", "final.npy", "final_scales.npy"


class GradientSketch:
    """The count sketch of matrices of known shapes; the same numbers on every machine and in every release."""

    def __init__(self, shapes: Sequence[tuple[int, int]], device: torch.device) -> None:
        """Draw h and e.

        Args:
            shapes: rows and columns of each matrix.
            device: where matrices will be.
        """
        self._places, self._signs = [], []
        for number, (rows, columns) in enumerate(shapes):
            mixed = _mixed(np.arange(rows * columns, dtype=np.uint64) + (np.uint64(number) << np.uint64(40)))
            places = (mixed >> np.uint64(33)).astype(np.int64) % NUMBERS
            signs = (mixed >> np.uint64(63)).astype(np.float32) * 2.0 - 1.0
            self._places.append(torch.from_numpy(places).int().to(device))
            self._signs.append(torch.from_numpy(signs).to(device, torch.int8))

    def __len__(self) -> int:
        return len(self._places)

    def of(self, number: int, matrices: Tensor) -> Tensor:
        """Sketches `[B, D]` of matrices `[B, rows, columns]` that stand at the place `number`."""
        values = matrices.flatten(1) * self._signs[number]
        return values.new_zeros(len(values), NUMBERS).index_add_(1, self._places[number], values)


def _mixed(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finalizer of SplitMix64 (Steele, Lea, Flood 2014): neighbouring numbers become unrelated ones."""
    mixed = values * np.uint64(0x9E3779B97F4A7C15)  # wraps around, as it should
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    found: npt.NDArray[np.uint64] = mixed ^ (mixed >> np.uint64(31))
    return found


@dataclass(frozen=True)
class FinalGradients:
    """Whitened sketches of a corpus, memory-mapped, and what whitens those of a query."""

    #: (C + l I)^(-1/2) of each matrix, `[M, D, D]` float32.
    roots: Tensor
    #: `[N, M, D]` int8 and `[N, M]` float32.
    sketches: npt.NDArray[np.int8]
    scales: npt.NDArray[np.float32]

    @property
    def bytes_per_example(self) -> float:
        """Bytes on disk per training example."""
        return float(self.sketches.nbytes + self.scales.nbytes) / len(self.sketches)

    def whitened(self, sketches: Tensor) -> Tensor:
        """F `[B, M D]` of raw sketches `[B, M, D]`, where the roots are."""
        return whitened(sketches, self.roots).flatten(1)

    def scores(self, query: Tensor, rows: Rows) -> npt.NDArray[np.float32]:
        """final(q, z) `[K]` of one whitened query `[M D]` with the given rows."""
        parts = [query.new_zeros(0)]
        for first in range(0, len(rows), _ROWS):
            held = restored(self.sketches, self.scales, rows[first : first + _ROWS], query.device)
            parts.append(held.flatten(1) @ query)
        found: npt.NDArray[np.float32] = torch.cat(parts).cpu().numpy()
        return found

    @classmethod
    def write(cls, features: Path, parts: Callable[[], Iterable[Tensor]], *, count: int) -> None:
        """Whiten and store the sketches of a corpus.

        Args:
            features: the bundle's folder of features.
            parts: gives raw sketches `[B, M, D]` in corpus order, from the beginning each time.
            count: N.
        """
        moments = functools.reduce(operator.iadd, map(outer_sums, parts()))  # [M, D, D]
        roots = inverse_roots(moments / count, FINAL_DAMPING)
        save_file({"roots": roots}, features / WHITENING)
        _write(features, parts(), roots, count=count)

    def write_more(self, features: Path, parts: Iterable[Tensor], *, count: int) -> None:
        """Store the sketches of further rows in another folder, whitened as those of the corpus.

        Args:
            features: the folder.
            parts: raw sketches `[B, M, D]`.
            count: rows in all.
        """
        _write(features, parts, self.roots, count=count)

    @classmethod
    def load(cls, features: Path, device: torch.device) -> "FinalGradients":
        """Read what `write` wrote.

        Raises:
            BundleCorrupt: a file cannot be read.
        """
        try:
            sketches, scales = (
                np.load(features / name, mmap_mode="r", allow_pickle=False) for name in (_SKETCHES, _SCALES)
            )
            return cls(load_file(features / WHITENING)["roots"].to(device), sketches, scales)
        except (OSError, KeyError, ValueError, SafetensorError) as error:
            raise BundleCorrupt(
                f"{features}: the sketches of final gradients cannot be read: {error}"
            ) from error


def _write(features: Path, parts: Iterable[Tensor], roots: Tensor, *, count: int) -> None:
    with QuantisedWriter(features / _SKETCHES, features / _SCALES, count=count) as written:
        for part in parts:
            written.append(whitened(part, roots.to(part.device)))
        written.finish()


def whitened(sketches: Tensor, roots: Tensor) -> Tensor:
    """Sketches `[B, M, D]` times the root of each matrix `[M, D, D]`."""
    return torch.einsum("bmd,mde->bme", sketches, roots)
