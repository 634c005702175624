"""Per-example factors of the exact rerank, on disk: whitened a~ and b~ of every explained token as int8 with one scale each.

int8 with a scale per token lost nothing against float32 (LDS .612 both, on a prototype), a low-rank factor per example did. Files are plain
`.npy`, opened memory-mapped; hashes are checked by `bundles.manifest` before they are opened.
"""

import shutil
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wherefrom.attribution.array_files import write_all
from wherefrom.attribution.arrays import decoded, quantise, rewrite
from wherefrom.attribution.row_features import RowFeatures, save_offsets_and_norms

#: Bits of a number of a compact factor a and b: 1 and 1, 1 and 2, 2 and 2, 2 and 4 gave LDS .526, .554, .572 and .581 beside .585 (small model, teacher queries).
TOKEN_BITS = {"a": 2, "b": 4}
_FILES = ("a", "a_scale", "b", "b_scale")
#: Bytes that are copied at once.
_COPIED = 1 << 20


@dataclass(frozen=True)
class Factors:
    """Factors of some rows; tokens of all rows stand behind each other."""

    a: Tensor  # [S, G, Da] float32
    b: Tensor  # [S, G, Db] float32
    lengths: tuple[int, ...]

    @classmethod
    def joined(cls, parts: Sequence["Factors"]) -> "Factors":
        """The rows of several factors behind each other."""
        return cls(
            torch.cat([one.a for one in parts]),
            torch.cat([one.b for one in parts]),
            tuple(length for one in parts for length in one.lengths),
        )

    def rows(self) -> list["Factors"]:
        """One `Factors` per row."""
        return [
            Factors(a, b, (length,))
            for a, b, length in zip(
                self.a.split(list(self.lengths)), self.b.split(list(self.lengths)), self.lengths, strict=True
            )
        ]


@dataclass(frozen=True)
class PackedFactors:
    """Quantised factors of some rows."""

    a: Tensor  # [S, G, Da] int8; float32 of compact ones
    a_scale: Tensor  # [S, G] float32
    b: Tensor  # [S, G, Db] int8; float32 of compact ones
    b_scale: Tensor  # [S, G] float32
    lengths: tuple[int, ...]

    def to(self, device: torch.device) -> "PackedFactors":
        """The same on another device."""
        a, a_scale, b, b_scale = (one.to(device) for one in (self.a, self.a_scale, self.b, self.b_scale))
        return PackedFactors(a, a_scale, b, b_scale, self.lengths)

    def tokens(self, start: int, stop: int) -> "PackedFactors":
        """Tokens `start` to `stop` (excluded) as one row."""
        part = slice(start, stop)
        return PackedFactors(
            self.a[part], self.a_scale[part], self.b[part], self.b_scale[part], (stop - start,)
        )

    def unpack(self) -> Factors:
        """Back to float32."""
        return Factors(self.a * self.a_scale[..., None], self.b * self.b_scale[..., None], self.lengths)


def pack(factors: Factors) -> PackedFactors:
    """Quantise to int8, one scale per token and group."""
    a, a_scale = quantise(factors.a)
    b, b_scale = quantise(factors.b)
    return PackedFactors(a, a_scale, b, b_scale, factors.lengths)


class FactorWriter:
    """Appends packed factors to the files of a folder; the folder is complete after `finish`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        # unbuffered: nothing is left to be written when a full disk ends the build
        self._parts = {name: (folder / f"{name}.part").open("wb", buffering=0) for name in _FILES}
        self._shapes: dict[str, tuple[tuple[int, ...], np.dtype[np.generic]]] = {}
        self._lengths, self._norms = array("q"), array("f")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for part in self._parts.values():
            part.close()

    def append(self, packed: PackedFactors, norms: Sequence[float]) -> None:
        """Add rows in corpus order with their kernel norms."""
        for name, values in (
            ("a", packed.a),
            ("a_scale", packed.a_scale),
            ("b", packed.b),
            ("b_scale", packed.b_scale),
        ):
            array = values.cpu().numpy()
            self._shapes[name] = (array.shape[1:], array.dtype)
            write_all(self._parts[name], memoryview(array.tobytes()))
        self._lengths.extend(packed.lengths)
        self._norms.extend(norms)

    def finish(self) -> None:
        """Turn the parts into `.npy` files and write the offsets and norms."""
        tokens = sum(self._lengths)
        for name, part in self._parts.items():
            part.close()
            shape, dtype = self._shapes[name]
            header = {
                "descr": np.lib.format.dtype_to_descr(dtype),
                "fortran_order": False,
                "shape": (tokens, *shape),
            }
            # copied, not mapped into memory: on a full disk a mapped file ends the process (SIGBUS)
            with Path(part.name).open("rb") as source, (self._folder / f"{name}.npy").open("wb") as target:
                np.lib.format.write_array_header_1_0(target, header)
                shutil.copyfileobj(source, target, _COPIED)
            Path(part.name).unlink()
        save_offsets_and_norms(self._folder, self._lengths, self._norms)


def compact_factors(folder: Path) -> None:
    """Write the factors of a folder anew with few bits, part by part, in place of the whole ones."""
    for side, bits in TOKEN_BITS.items():
        rewrite(folder, (side, f"{side}_scale"), lambda one, _: one, bits=bits)


class FactorStore(RowFeatures):
    """Reads factors by corpus row, memory-mapped."""

    problem = "the factors cannot be opened"

    def __init__(self, folder: Path, widths: tuple[int, int] | None = None) -> None:
        """Open a folder.

        Args:
            folder: the bundle's folder of features.
            widths: Da and Db of compact factors, whose files do not tell them; None for whole ones.

        Raises:
            BundleCorrupt: a file cannot be read.
        """
        super().__init__(folder, _FILES)
        self._widths = widths

    def gather(self, rows: npt.NDArray[np.int64]) -> PackedFactors:
        """Packed factors of the given rows, in that order."""
        return self._take(self.tokens(rows), self.lengths(rows))

    def range(self, first: int, last: int) -> PackedFactors:
        """Packed factors of rows `first` to `last` (excluded)."""
        tokens = slice(int(self.offsets[first]), int(self.offsets[last]))
        return self._take(tokens, np.diff(self.offsets[first : last + 1]))

    def _take(self, tokens: npt.NDArray[np.int64] | slice, lengths: npt.NDArray[np.int64]) -> PackedFactors:
        a, a_scale, b, b_scale = (torch.from_numpy(np.array(self._arrays[name][tokens])) for name in _FILES)
        if self._widths is not None:
            (a, b), a_scale, b_scale = self._levels(a, b), a_scale.float(), b_scale.float()
        return PackedFactors(a, a_scale, b, b_scale, tuple(int(length) for length in lengths))

    def _levels(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Compact numbers without their scales, float32."""
        found = [
            decoded(one, one.new_ones(one.shape[:-1]), bits=bits, numbers=width)
            for one, bits, width in zip((a, b), TOKEN_BITS.values(), self._widths or (), strict=True)
        ]
        return found[0], found[1]
