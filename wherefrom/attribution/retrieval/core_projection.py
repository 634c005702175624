r"""The learned projection of cores: principal directions of the corpus' unit cores, int8 with a scale per direction.

    v(z) = V' F(z) / |z|        V: leading eigenvectors of sum_z F(z) F(z)' / |z|^2, uncentred, [K, P]

Inner products of v approximate the kernel's cosine. Cores are small enough that the map needs no two-sided bases (`retrieval.projection`): with 16 directions
in each of 210 layers, 128 numbers take 6.9 MB. It is fitted on the corpus, never on outputs.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from wherefrom.attribution.cores import CoreStore, cores_of
from wherefrom.attribution.factors import Factors
from wherefrom.attribution.retrieval.projection import DIMENSIONS
from wherefrom.errors import BundleCorrupt

#: Numbers of the corpus' cores that are held in float32 while the directions are fitted: 1,024 examples of 210 layers.
_FIT_NUMBERS = 1024 * 210 * 256
_ROWS = 256


@dataclass(frozen=True)
class CoreProjection:
    """A fitted projection."""

    directions: Tensor  # [K, P] float32, values on the int8 grid
    scale: Tensor  # [P]

    @classmethod
    def fit(
        cls,
        store: CoreStore,
        *,
        budget_bytes: int,
        dimensions: int = DIMENSIONS,
        device: torch.device | None = None,
    ) -> "CoreProjection":
        """Fit the directions on (a sample of) the corpus' cores.

        Args:
            store: the corpus.
            budget_bytes: the stored map stays below it.
            dimensions: directions wanted; a smaller corpus has fewer.
            device: where they are fitted; the CPU where None.
        """
        unit = _unit_cores(store, device)  # [n, K]
        width = unit.shape[1]
        wanted = max(1, min(dimensions, (budget_bytes - 4096) // (width + 4)))
        values, vectors = torch.linalg.eigh((unit @ unit.T).double())
        values, vectors = values.flip(0)[:wanted], vectors.flip(1)[:, :wanted]
        kept = values > values[0] * 1e-9
        directions = unit.T @ (vectors[:, kept] * values[kept].rsqrt()).float()  # [K, P]
        scale = directions.abs().amax(dim=0).clamp_min(1e-20) / 127.0
        return cls((directions / scale).round() * scale, scale)

    @property
    def dimensions(self) -> int:
        """P, the length of a projected vector."""
        return int(self.directions.shape[1])

    def to(self, device: torch.device | None) -> "CoreProjection":
        """The same on another device (None: the CPU)."""
        return CoreProjection(self.directions.to(device or "cpu"), self.scale.to(device or "cpu"))

    def project(self, cores: Tensor) -> Tensor:
        """Projected vectors `[N, P]` of cores `[N, K]`, as long as the cores are."""
        return cores @ self.directions

    def lift(self, projected: Tensor) -> Tensor:
        """The cores `[N, K]` in these directions that projected vectors `[N, P]` stand for."""
        return projected @ self.directions.T

    def apply(self, factors: Factors, norms: Tensor) -> Tensor:
        """Projected vectors `[N, P]` of N rows with kernel norms `[N]`; inner products estimate the kernel's cosine."""
        return self.project(cores_of(factors)) / norms.clamp_min(1e-20)[:, None]

    def apply_all(self, store: CoreStore) -> Tensor:
        """Projected vectors of the whole corpus, `[N, P]` on the CPU."""
        return torch.cat(list(self.apply_each(store)))

    def apply_each(self, store: CoreStore) -> Iterator[Tensor]:
        """The same in parts, in corpus order."""
        device = self.directions.device
        for rows in torch.arange(len(store)).split(_ROWS):
            norms = torch.from_numpy(store.norms[rows.numpy()].copy())
            found = self.project(store.cores(rows.numpy(), device)).cpu()
            yield found / norms.clamp_min(1e-20)[:, None]

    def save(self, file: Path) -> None:
        """Write as safetensors, int8."""
        values = (self.directions / self.scale).round().to(torch.int8).contiguous()
        save_file({"directions": values, "directions_scale": self.scale.float().contiguous()}, file)

    @classmethod
    def load(cls, file: Path) -> "CoreProjection":
        """Read what `save` wrote."""
        try:
            stored = load_file(file)
            scale = stored["directions_scale"]
            return cls(stored["directions"].float() * scale, scale)
        except (OSError, KeyError, SafetensorError) as error:
            raise BundleCorrupt(f"{file}: not a projection of cores: {error}") from error


def _unit_cores(store: CoreStore, device: torch.device | None) -> Tensor:
    """Cores over their norm of evenly spaced rows, as many as may be held at once, `[n, K]`."""
    width = store.cores(np.zeros(1, dtype=np.int64)).shape[1]
    count = min(len(store), max(2, _FIT_NUMBERS // width))
    rows = np.linspace(0, len(store) - 1, count).round().astype(np.int64)
    norms = torch.from_numpy(store.norms[rows].copy()).clamp_min(1e-20)
    return store.cores(rows, device).div_(norms[:, None].to(device or "cpu"))
