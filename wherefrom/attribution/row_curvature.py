r"""What the training examples share is taken out of the influence: ridge regression over the rows, in the directions of the projection.

    C = sum_z |z|^2 v(z) v(z)'              [P, P]    v: projected vectors of the corpus, their inner products estimate the kernel's cosine
    W = I - (L + r) (C + L I)^(-1), not below 0       L = 3 mean |z|^2
    net(q, z) = cosine(q, z) - v(q)' W v(z)

Whitening (`whitening`) corrects each layer by itself. What is left is the curvature that layers have in common: a direction in which hundreds of rows push (the format of a chat, a
subject that many rows have) is fitted by all of them, and leaving one of them out changes little there. Where the projection spans the rows, net(q, z) |q| |z| = L f(q)' (F'F + L I)^(-1) f(z), the
effect of a row's weight in kernel ridge regression (TRAK, arXiv:2303.14186, with the corpus' own directions in place of random ones). Directions beyond the projection count as if each had the mean curvature r of them all,
so they keep their kernel and the projected ones are weighed against them.

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
#: Ridge as a share of the rows' mean squared norm. 1, 3 and 10 gave LDS .678, .667 and .649 (order shown, choosing half of the deep bank). On a corpus of 1,131 rows
#: the 64 candidates hold .76, .95 and .98 of the ten best by it.
RIDGE = 3.0
#: Rows whose vectors are float64 at once.
_ROWS = 8192


@dataclass(frozen=True, eq=False)
class RowCurvature:
    """W of one corpus."""

    weights: Matrix  # [P, P], symmetric, eigenvalues in [0, 1)

    @classmethod
    def fit(
        cls, vectors: Matrix, norms: npt.NDArray[np.float32], *, numbers: int, ridge: float = RIDGE
    ) -> "RowCurvature":
        """Fit to a corpus.

        Args:
            vectors: projected vectors `[N, P]`, one over the kernel's norm long.
            norms: kernel norms `[N]`.
            numbers: of a whole feature, of which the projection keeps P.
            ridge: L as a share of the mean squared norm.
        """
        count, width = vectors.shape
        total = np.zeros((width, width))
        for first in range(0, len(vectors), _ROWS):
            part = vectors[first : first + _ROWS].astype(np.float64)
            part *= norms[first : first + _ROWS, None]
            total += part.T @ part
        energy = float(np.square(norms.astype(np.float64)).sum())
        floor = ridge * energy / count or 1.0  # a corpus without any gradient
        beyond = max(0.0, energy - float(np.trace(total))) / max(1, min(count, numbers) - width)
        values, directions = np.linalg.eigh(total)
        shares = (1.0 - (floor + beyond) / (values.clip(min=0.0) + floor)).clip(min=0.0)
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
