r"""The learned projection: an example's whitened features G~^g = sum_t b~_t a~_t' to P numbers, within a budget of bytes.

    R^g = U_a^g' (sum_t a~_t b~_t') U_b^g / |z|        two-sided bases: leading eigenvectors of the features' mode products (HOSVD,
                                                       De Lathauwer et al. 2000), [Da, r] and [Db, r]
    v   = core' concat_g vec(R^g)                      core: uncentred PCA of R over the corpus, int8 with a scale per column, [G r r, P]

Inner products of v approximate the cosine of the exact kernel. A dense PCA map is far bigger than the model; random projections lose half the
quality at the same P (on a prototype: LDS .589 and .231 at 1,024). Its one task: the candidates hold what the exact form would rank first.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from wherefrom.attribution.factors import Factors, FactorStore
from wherefrom.errors import BundleCorrupt

#: Wanted length of a projected vector.
DIMENSIONS = 512
#: Rows of the corpus that the core is fitted on at most.
FIT_ROWS = 4096
_RANKS = (128, 96, 64, 48, 32, 24, 16, 12, 8, 4)
#: Numbers per example that all two-sided features together may have; bounds the core's memory while it is fitted.
_MAX_REDUCED = 16_384
#: Rows unpacked at once.
_ROWS = 64


@dataclass(frozen=True)
class ProjectionSize:
    """Shape of a projection."""

    rank_a: int
    rank_b: int
    dimensions: int

    def bytes(self, groups: int, width_a: int, width_b: int) -> int:
        """Bytes of the stored module: float16 bases, int8 core, float32 column scales."""
        bases = 2 * groups * (width_a * self.rank_a + width_b * self.rank_b)
        return bases + (groups * self.rank_a * self.rank_b + 4) * self.dimensions


def choose_size(
    *, groups: int, width_a: int, width_b: int, examples: int, budget_bytes: int
) -> ProjectionSize:
    """The largest bases whose core still keeps three quarters of the wanted dimensions within the budget.

    Rank was worth more than dimensions on a small model: 128 x 128 x 512 beat 192 x 96 x 448 and 128 x 64 x 800 (docs/experiments.md).
    """
    wanted = min(DIMENSIONS, examples)
    best = ProjectionSize(1, 1, 1)
    for rank in _RANKS:
        rank_a, rank_b = min(rank, width_a), min(rank, width_b)
        if groups * rank_a * rank_b > _MAX_REDUCED:
            continue
        fixed = ProjectionSize(rank_a, rank_b, 0).bytes(groups, width_a, width_b)
        # 4 KiB are left for the file's header
        affordable = (budget_bytes - fixed - 4096) // (groups * rank_a * rank_b + 4)
        best = ProjectionSize(rank_a, rank_b, max(1, min(wanted, affordable)))
        if affordable >= 0.75 * wanted:
            break
    return best


@dataclass(frozen=True)
class Projection:
    """A fitted projection."""

    bases_a: Tensor  # [G, Da, ra]
    bases_b: Tensor  # [G, Db, rb]
    core: Tensor  # [G ra rb, P] float32, values on the int8 grid
    core_scale: Tensor  # [P]

    @classmethod
    def fit(
        cls, store: FactorStore, size: ProjectionSize, device: torch.device | None = None
    ) -> "Projection":
        """Fit bases and core on (a sample of) the corpus' factors, on a device (None: the CPU)."""
        sample = _sample_rows(len(store))
        bases_a, bases_b = _fit_bases(store, sample, size, device)
        bases_a, bases_b = bases_a.half().float(), bases_b.half().float()
        reduced = torch.cat(
            [_reduce(rows, norms, bases_a, bases_b) for rows, norms in _batches(store, sample, device)]
        )  # [n, K]
        values, vectors = torch.linalg.eigh((reduced @ reduced.T).double())
        values, vectors = values.flip(0)[: size.dimensions], vectors.flip(1)[:, : size.dimensions]
        kept = values > values[0] * 1e-9
        core = reduced.T @ (vectors[:, kept] * values[kept].rsqrt()).float()  # [K, P]
        scale = core.abs().amax(dim=0).clamp_min(1e-20) / 127.0
        return cls(bases_a, bases_b, (core / scale).round() * scale, scale)

    @property
    def dimensions(self) -> int:
        """P, the length of a projected vector."""
        return int(self.core.shape[1])

    def to(self, device: torch.device | None) -> "Projection":
        """The same on another device (None: the CPU)."""
        parts = (one.to(device or "cpu") for one in (self.bases_a, self.bases_b, self.core, self.core_scale))
        return Projection(*parts)

    def apply(self, factors: Factors, norms: Tensor) -> Tensor:
        """Projected vectors `[N, P]`; their inner products estimate the kernel's cosine, so they are not brought to unit length.

        Args:
            factors: whitened factors of N rows, where the projection is.
            norms: `[N]` kernel norms, there too.
        """
        return _reduce(factors, norms, self.bases_a, self.bases_b) @ self.core

    def apply_all(self, store: FactorStore) -> Tensor:
        """Projected vectors of the whole corpus, `[N, P]` on the CPU."""
        return torch.cat(list(self.apply_each(store)))

    def apply_each(self, store: FactorStore) -> Iterator[Tensor]:
        """The same in parts, in corpus order."""
        every, device = torch.arange(len(store)), self.core.device
        return (self.apply(rows, norms).cpu() for rows, norms in _batches(store, every, device))

    def save(self, file: Path) -> None:
        """Write as safetensors: float16 bases, int8 core."""
        save_file(
            {
                "bases_a": self.bases_a.half().contiguous(),
                "bases_b": self.bases_b.half().contiguous(),
                "core": (self.core / self.core_scale).round().to(torch.int8).contiguous(),
                "core_scale": self.core_scale.float().contiguous(),
            },
            file,
        )

    @classmethod
    def load(cls, file: Path) -> "Projection":
        """Read what `save` wrote."""
        try:
            stored = load_file(file)
            scale = stored["core_scale"]
            return cls(
                stored["bases_a"].float(), stored["bases_b"].float(), stored["core"].float() * scale, scale
            )
        except (OSError, KeyError, SafetensorError) as error:
            raise BundleCorrupt(f"{file}: not a projection: {error}") from error


def _reduce(factors: Factors, norms: Tensor, bases_a: Tensor, bases_b: Tensor) -> Tensor:
    """Two-sided features `[N, G ra rb]` of rows, over their kernel norm."""
    small_a = torch.einsum("sgd,gdr->sgr", factors.a, bases_a)
    small_b = torch.einsum("sgd,gdr->sgr", factors.b, bases_b)
    lengths = list(factors.lengths)
    features = [
        torch.einsum("tgi,tgj->gij", a, b).flatten()
        for a, b in zip(small_a.split(lengths), small_b.split(lengths), strict=True)
    ]
    return torch.stack(features) / norms.clamp_min(1e-20)[:, None]


def _fit_bases(
    store: FactorStore, sample: Tensor, size: ProjectionSize, device: torch.device | None
) -> tuple[Tensor, Tensor]:
    """Leading eigenvectors of sum_z F F' and sum_z F' F over unit features F = sum_t a~_t b~_t', without forming F."""
    sums: tuple[Tensor, Tensor] | None = None
    for rows, norms in _batches(store, sample, device):
        if sums is None:
            groups, width_a, width_b = rows.a.shape[1], rows.a.shape[2], rows.b.shape[2]
            sums = rows.a.new_zeros(groups, width_a, width_a), rows.a.new_zeros(groups, width_b, width_b)
        for row, norm in zip(rows.rows(), norms, strict=True):
            a, b = row.a.transpose(0, 1) / norm.clamp_min(1e-20), row.b.transpose(0, 1)  # [G, T, D]
            sums[0].add_(a.transpose(1, 2) @ (b @ b.transpose(1, 2)) @ a)
            sums[1].add_(b.transpose(1, 2) @ (a @ a.transpose(1, 2)) @ b)
    if sums is None:
        raise BundleCorrupt("the projection has no rows to be fitted on")
    return _leading(sums[0], size.rank_a), _leading(sums[1], size.rank_b)


def _leading(matrices: Tensor, rank: int) -> Tensor:
    vectors: Tensor = torch.linalg.eigh(matrices.double()).eigenvectors
    return vectors.flip(-1)[..., :rank].float()


def _sample_rows(count: int) -> Tensor:
    """At most `FIT_ROWS` rows, evenly spaced."""
    if count <= FIT_ROWS:
        return torch.arange(count)
    return torch.linspace(0, count - 1, FIT_ROWS).round().long()


def _batches(
    store: FactorStore, rows: Tensor, device: torch.device | None
) -> Iterator[tuple[Factors, Tensor]]:
    place, norms = device or torch.device("cpu"), torch.from_numpy(store.norms.copy())
    for part in rows.split(_ROWS):
        yield store.gather(part.numpy()).to(place).unpack(), norms[part].to(place)
