"""What the stored features of a corpus have in common, whatever their form: where the tokens of each row begin, and the kernel norms."""

from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from wherefrom.attribution.array_files import Array, mapped
from wherefrom.errors import BundleCorrupt

Rows = npt.NDArray[np.int64]

_OFFSETS, _NORMS = "offsets", "norms"


def save_offsets_and_norms(folder: Path, lengths: "array[int]", norms: "array[float]") -> None:
    """Write where the tokens of each row begin, `[N + 1]`, and the kernel norms, `[N]`."""
    np.save(folder / f"{_OFFSETS}.npy", np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
    np.save(folder / f"{_NORMS}.npy", np.array(norms, dtype=np.float32))


class RowFeatures:
    """Reads features by corpus row, memory-mapped."""

    #: What an error says of files that cannot be opened.
    problem: ClassVar[str]

    def __init__(self, folder: Path, names: Iterable[str] = ()) -> None:
        """Open a folder.

        Args:
            folder: the bundle's folder of features.
            names: of the arrays beside offsets and norms.

        Raises:
            BundleCorrupt: a file cannot be read.
        """
        self._arrays = {name: self._mapped(folder, name) for name in (*names, _OFFSETS, _NORMS)}
        #: `[N + 1]` where the explained tokens of each row begin, and `[N]` kernel norms |z|.
        self.offsets: Rows = np.asarray(self._arrays[_OFFSETS])
        self.norms: npt.NDArray[np.float32] = np.asarray(self._arrays[_NORMS])

    def _mapped(self, folder: Path, name: str) -> Array:
        try:
            return mapped(folder / f"{name}.npy")
        except (OSError, ValueError) as error:
            raise BundleCorrupt(f"{folder}: {self.problem}: {error}") from error

    def __len__(self) -> int:
        return len(self.norms)

    @property
    def bytes_per_example(self) -> float:
        """Mean bytes on disk per training example."""
        return float(sum(array.nbytes for array in self._arrays.values())) / len(self)

    def lengths(self, rows: Rows) -> Rows:
        """Explained tokens of the given rows."""
        found: Rows = self.offsets[rows + 1] - self.offsets[rows]
        return found

    def tokens(self, rows: Rows) -> Rows:
        """Places of the tokens of the given rows, behind each other."""
        return np.concatenate([np.arange(self.offsets[row], self.offsets[row + 1]) for row in rows])
