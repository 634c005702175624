r"""What the training examples share is taken out of the influence: ridge regression over the rows, in the directions of the projection.

    C = sum_z |z|^2 v(z) v(z)'              [P, P]    v: projected vectors of the corpus, their inner products estimate the kernel's cosine
    W = I - L (C + L I)^(-1)                          L = mean |z|^2
    net(q, z) = cosine(q, z) - v(q)' W v(z)

Whitening (`whitening`) corrects each layer by itself. What is left is the curvature that layers have in common: a direction in which hundreds of rows push (the format of a chat, a
subject that many rows have) is fitted by all of them, and leaving one of them out changes little there. Where the projection spans the rows, net(q, z) |q| |z| = L f(q)' (F'F + L I)^(-1) f(z), the
effect of a row's weight in kernel ridge regression (TRAK, arXiv:2303.14186, with the corpus' own directions in place of random ones). Directions beyond the projection keep their kernel.

The ridge does not grow with the corpus: a fine-tune of E epochs in batches of B makes N E / B steps over the mean loss, so in the sum over rows early stopping
weighs B / (E rate), whatever N is.

The sign of a citation stays that of the influence itself (`kernel`); the net score orders. Measured on the deep bank (docs/quality/deep-model.md).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wherefrom.errors import BundleCorrupt

Matrix = npt.NDArray[np.float32]
FILE = "row_curvature.npy"
#: Ridge as a share of the rows' mean squared norm; .3, 1 and 3 gave LDS .674, .678 and .667 (order shown, choosing half of the deep bank).
RIDGE = 1.0
#: Rows whose vectors are float64 at once.
_ROWS = 65_536


@dataclass(frozen=True, eq=False)
class RowCurvature:
    """W of one corpus."""

    weights: Matrix  # [P, P], symmetric, eigenvalues in [0, 1)

    @classmethod
    def fit(cls, vectors: Matrix, norms: npt.NDArray[np.float32], *, ridge: float = RIDGE) -> "RowCurvature":
        """Fit to a corpus.

        Args:
            vectors: projected vectors `[N, P]`, one over the kernel's norm long.
            norms: kernel norms `[N]`.
            ridge: L as a share of the mean squared norm.
        """
        width = vectors.shape[1]
        total = np.zeros((width, width))
        for first in range(0, len(vectors), _ROWS):
            part = vectors[first : first + _ROWS].astype(np.float64)
            part *= norms[first : first + _ROWS, None]
            total += part.T @ part
        floor = (
            ridge * float(np.square(norms.astype(np.float64)).mean()) or 1.0
        )  # a corpus without any gradient
        values, directions = np.linalg.eigh(total)
        shares = values.clip(min=0.0) / (values.clip(min=0.0) + floor)
        return cls(((directions * shares) @ directions.T).astype(np.float32))

    def net(self, cosines: Matrix, projected: Matrix, vectors: Matrix) -> Matrix:
        """Net influence of rows on one query, `[K]`.

        Args:
            cosines: influence of the rows `[K]`, exact or as the projection estimates it.
            projected: the query's projected vector `[P]`.
            vectors: the rows' projected vectors `[K, P]`.
        """
        found: Matrix = (cosines - vectors @ (self.weights @ projected)).astype(np.float32)
        return found

    def sought(self, projected: Matrix) -> Matrix:
        """The vector `[P]` whose inner products with projected rows are net influences, for the search."""
        found: Matrix = projected - self.weights @ projected
        return found

    def save(self, features: Path) -> None:
        """Write into a bundle's folder of features."""
        np.save(features / FILE, self.weights)

    @classmethod
    def load(cls, features: Path) -> "RowCurvature | None":
        """Read what `save` wrote; None in a bundle without it.

        Raises:
            BundleCorrupt: the file cannot be read.
        """
        file = features / FILE
        if not file.exists():
            return None
        try:
            return cls(np.load(file, allow_pickle=False))
        except (OSError, ValueError) as error:
            raise BundleCorrupt(f"{file}: not the curvature of a corpus: {error}") from error
