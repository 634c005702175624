r"""What similarity compares: mean states of the explained tokens, centred at the corpus' mean, brought to unit length and, where they are wide, to their principal directions.

    s(z) = V' (m(z) - c) / |m(z) - c|           c: mean of m over the corpus

m is the mean hidden state of one layer, or for the forms that read an adapter the mean of what all adapted layers saw, u laid end to end. The latter is some thousand numbers
wide; its `DIRECTIONS` principal directions over the corpus keep the inner products between training examples, and a query's products with them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from wherefrom.attribution.models.signals import Similarity

#: Principal directions that are kept of the adapter's states.
DIRECTIONS = 256
#: Rows on which they are fitted, evenly spaced.
_FIT_ROWS = 2048
_CENTRE, _BASIS = "pooled_centre.npy", "pooled_basis.npy"


@dataclass(frozen=True)
class Pooling:
    """From mean states to the vectors that similarity compares."""

    centre: Tensor  # [D]
    basis: Tensor | None = None  # [D, P]

    @classmethod
    def fit(cls, states: Tensor, similarity: Similarity) -> Self:
        """From the corpus' mean states `[N, D]`."""
        centre = states.mean(dim=0)
        if similarity == "hidden":
            return cls(centre)
        rows = torch.linspace(0, len(states) - 1, min(len(states), _FIT_ROWS)).round().long()
        unit = cls(centre).apply(states[rows])
        values, vectors = torch.linalg.eigh((unit @ unit.T).double())
        values, vectors = values.flip(0)[:DIRECTIONS], vectors.flip(1)[:, :DIRECTIONS]
        kept = values > values[0] * 1e-9
        return cls(centre, unit.T @ (vectors[:, kept] * values[kept].rsqrt()).float())

    def to(self, device: torch.device) -> Self:
        """The same on another device."""
        basis = None if self.basis is None else self.basis.to(device)
        return type(self)(self.centre.to(device), basis)

    def apply(self, states: Tensor) -> Tensor:
        """Vectors `[B, P]` of mean states `[B, D]`."""
        unit = torch.nn.functional.normalize(states - self.centre, dim=1)
        return unit if self.basis is None else unit @ self.basis

    def save(self, features: Path) -> None:
        """Write into a bundle's folder of features."""
        np.save(features / _CENTRE, self.centre.numpy())
        if self.basis is not None:
            np.save(features / _BASIS, self.basis.half().numpy())

    @classmethod
    def load(cls, features: Path) -> Self:
        """Read what `save` wrote."""
        centre = torch.from_numpy(np.load(features / _CENTRE, allow_pickle=False))
        file = features / _BASIS
        basis = torch.from_numpy(np.load(file, allow_pickle=False)).float() if file.is_file() else None
        return cls(centre, basis)
