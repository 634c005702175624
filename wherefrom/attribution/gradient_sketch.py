r"""Sketches of the gradients of A and B: a few numbers that hold the inner products of very many.

    g = vec(dL/dA) or vec(d L / d(s B))  of one adapted layer              [n]
    S(g)_d = sum_{i: h(i) = d} e(i) g_i                                    [D]    h(i) in 0..D-1 and e(i) = +-1, pseudorandom
    f = (C + l I)^(-1/2) S(g),    C = mean_z S(g_z) S(g_z)',   l = damping tr(C) / D
    final(q, z) = sum over matrices <f(q), f(z)>

S is a count sketch: <S(g), S(g')> is <g, g'> but for noise of |g| |g'| / sqrt(D), and the noise of hundreds of matrices averages out. C is the whole empirical Fisher matrix
of each of A and B in the sketch, so final(q, z) is the influence of z's gradient step on q with its inverse.

*Compact* bundles keep f of the s B alone, in one bit for each number (`arrays.coded`): it ranks as well as both do, and A alone does worse (docs/quality/features.md).

References:
    Count sketch: Charikar, Chen, Farach-Colton 2002; inner products by it: Weinberger et al., arXiv:0902.2206.
    Attribution by random projections of gradients: TRAK (arXiv:2303.14186); per matrix: LoGra (arXiv:2405.13954).
"""

import functools
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from wherefrom.attribution.array_files import mapped
from wherefrom.attribution.arrays import (
    QuantisedWriter,
    decoded,
    mixed_numbers,
    restored,
    rewrite,
    taken,
)
from wherefrom.attribution.whitening import inverse_roots, outer_sums
from wherefrom.errors import BundleCorrupt

Rows = npt.NDArray[np.int64]

#: D, numbers of one sketched matrix: a power of two. 32, 64, 128 and 256 gave LDS .725, .732, .738 and .741 of the order shown (choosing half of the deep bank).
NUMBERS = 128
#: Flat from .1 to 1 (LDS .739, .741, .740, .739 there at .13, .38, .77 and 1.3).
FINAL_DAMPING = 0.3
#: Bits of a number of a compact sketch, and the places of s B among the matrices.
FINAL_BITS, _HIGH = 1, slice(1, None, 2)
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
            mixed = mixed_numbers(
                np.arange(rows * columns, dtype=np.uint64) + (np.uint64(number) << np.uint64(40))
            )
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


@dataclass(frozen=True)
class ScoresFinal:
    """Influence by the gradients at the final weights; a subclass has those of the corpus."""

    #: Rows whose sketches are float32 at once.
    at_once: ClassVar[int]

    #: (C + l I)^(-1/2) of each matrix that counts, `[M, D, D]` float32, where the model is.
    roots: Tensor

    def whitened(self, sketches: Tensor) -> Tensor:
        """F `[B, M D]` of raw sketches `[B, M, D]`, where the roots are."""
        return whitened(sketches, self.roots).flatten(1)

    def scores(self, query: Tensor, rows: Rows) -> npt.NDArray[np.float32]:
        """final(q, z) `[K]` of one whitened query `[M D]` with the given rows."""
        parts = [query.new_zeros(0)]
        parts += [
            self._corpus(rows[first : first + self.at_once], query.device) @ query
            for first in range(0, len(rows), self.at_once)
        ]
        found: npt.NDArray[np.float32] = torch.cat(parts).cpu().numpy()
        return found

    def _corpus(self, rows: Rows, device: torch.device) -> Tensor:
        """F `[K, M D]` of the given rows."""
        raise NotImplementedError


@dataclass(frozen=True)
class FinalGradients(ScoresFinal):
    """Whitened sketches of a corpus, memory-mapped, and what whitens those of a query."""

    at_once = 256

    #: `[N, M, D]` int8 and `[N, M]` float32, or one bit for each number and float16.
    sketches: npt.NDArray[np.int8]
    scales: npt.NDArray[np.float32]

    @property
    def bytes_per_example(self) -> float:
        """Bytes on disk per training example."""
        return float(self.sketches.nbytes + self.scales.nbytes) / len(self.sketches)

    def _corpus(self, rows: Rows, device: torch.device) -> Tensor:
        if self.sketches.dtype != np.uint8:
            return restored(self.sketches, self.scales, rows, device).flatten(1)
        some = taken((self.sketches, self.scales), rows, device)
        return decoded(*some, bits=FINAL_BITS, numbers=self.roots.shape[1]).flatten(1)

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
        roots = _save_roots(features, roots)
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
            sketches, scales = (mapped(features / name) for name in (_SKETCHES, _SCALES))
            return cls(load_roots(features, device), sketches, scales)
        except (OSError, ValueError) as error:
            raise BundleCorrupt(
                f"{features}: the sketches of final gradients cannot be read: {error}"
            ) from error


def load_roots(features: Path, device: torch.device) -> Tensor:
    """What whitens the sketches of each matrix that counts, `[M, D, D]` float32.

    Raises:
        BundleCorrupt: the file cannot be read.
    """
    try:
        stored = load_file(features / WHITENING)
        roots = stored["roots"].float()
        if "scales" in stored:  # float32 without scales in bundles of earlier releases
            roots *= stored["scales"][:, None, None]
        return roots.to(device)
    except (OSError, KeyError, SafetensorError) as error:
        raise BundleCorrupt(
            f"{features}: what whitens the final gradients cannot be read: {error}"
        ) from error


def has_scales(features: Path) -> bool:
    """Whether what whitens sketches is float16 with a scale for each matrix; false where there is none."""
    file = features / WHITENING
    if not file.is_file():
        return False
    with safe_open(file, framework="pt") as stored:
        names = stored.keys()
    return "scales" in names


def _save_roots(features: Path, roots: Tensor) -> Tensor:
    """Write roots as float16 with a scale each; returns what is read again."""
    scales = roots.abs().amax(dim=(1, 2)).clamp_min(1e-30)
    save_file({"roots": (roots / scales[:, None, None]).half(), "scales": scales}, features / WHITENING)
    return load_roots(features, roots.device)


def compact_final(features: Path) -> None:
    """Write the sketches of a folder anew in place of the whole ones. What whitens them stands only in the folder of a whole bundle; in another, A was left out already."""
    both = (features / WHITENING).is_file()
    if both:
        _save_roots(features, load_roots(features, torch.device("cpu"))[_HIGH])
    rewrite(
        features, ("final", "final_scales"), lambda one, _: one[:, _HIGH] if both else one, bits=FINAL_BITS
    )


def _write(features: Path, parts: Iterable[Tensor], roots: Tensor, *, count: int) -> None:
    with QuantisedWriter(features / _SKETCHES, features / _SCALES, count=count) as written:
        for part in parts:
            written.append(whitened(part, roots.to(part.device)))
        written.finish()


def whitened(sketches: Tensor, roots: Tensor) -> Tensor:
    """Sketches of each A and s B in turn times the root of each matrix that counts, `[B, M, D]`: all of them, or those of s B."""
    counted = sketches if len(roots) == sketches.shape[1] else sketches[:, _HIGH]
    return torch.einsum("bmd,mde->bme", counted, roots)
