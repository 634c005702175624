r"""Separable whitening of the signals, per layer: curvature correction without a second pass over the model.

    C_a = mean_t a_t a_t'            (uncentred, over all explained positions of the corpus; C_b likewise)
    W_a = (C_a + g tr(C_a)/D I)^(-1/2)          a~ = W_a a,   b~ = W_b b

With gradient blocks G = sum_t b_t a_t', whitening both sides is the Kronecker-factored inverse square root of the Gauss-Newton
matrix (K-FAC: Martens & Grosse, arXiv:1503.05671), so that <G~_q, G~_z> is an influence with the damped inverse.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

#: Damping as a share of the mean eigenvalue; .1, .3 and 1 gave LDS .627, .622 and .604 on a small model (on a prototype).
DAMPING = 0.1
#: The same for the form `adapter`, whose r x r moments are better conditioned: .1, .03 and .01 gave LDS .664, .675 and .679 on a deep model (on a prototype).
ADAPTER_DAMPING = 0.03


@dataclass
class SecondMoments:
    """Running sums of outer products, `[L, D, D]` float64, and the number of positions."""

    a: npt.NDArray[np.float64]
    b: npt.NDArray[np.float64]
    count: int

    @classmethod
    def zeros(cls, a_layers: int, b_layers: int, width: int) -> "SecondMoments":
        """Empty sums."""
        return cls(np.zeros((a_layers, width, width)), np.zeros((b_layers, width, width)), 0)

    @classmethod
    def of(cls, a: Tensor, b: Tensor) -> "SecondMoments":
        """Sums over positions: `a [S, La, D]` and `b [S, Lb, D]`."""
        found = cls.zeros(a.shape[1], b.shape[1], a.shape[2])
        found.add(a, b)
        return found

    def add(self, a: Tensor, b: Tensor) -> None:
        """Add positions: `a [S, La, D]` and `b [S, Lb, D]`."""
        self.a += outer_sums(a)
        self.b += outer_sums(b)
        self.count += len(a)

    def merge(self, other: "SecondMoments") -> None:
        """Add another shard's sums."""
        self.a += other.a
        self.b += other.b
        self.count += other.count


def outer_sums(values: Tensor) -> npt.NDArray[np.float64]:
    """Sums of outer products over the first axis: `[S, L, D]` to `[L, D, D]`."""
    stacked = values.transpose(0, 1).double()  # [L, S, D]
    sums: npt.NDArray[np.float64] = (stacked.transpose(1, 2) @ stacked).cpu().numpy()  # [L, D, D]
    return sums


@dataclass(frozen=True)
class Whitener:
    """The two stacks of whitening matrices, `[La, D, D]` and `[Lb, D, D]` float32."""

    a: Tensor
    b: Tensor

    @classmethod
    def fit(
        cls, moments: SecondMoments, damping: float = DAMPING, *, ranks: Sequence[int] | None = None
    ) -> "Whitener":
        """Inverse square roots of the damped second moments, by float64 eigendecomposition.

        Args:
            moments: of the corpus' positions.
            damping: g above.
            ranks: directions of each layer, where layers are filled up with zeros to a common width D; D everywhere where None.
        """
        return cls(
            inverse_roots(moments.a / moments.count, damping, ranks),
            inverse_roots(moments.b / moments.count, damping, ranks),
        )

    def to(self, device: torch.device) -> "Whitener":
        """The same on another device."""
        return Whitener(self.a.to(device), self.b.to(device))

    def apply(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Whiten signals and put them into kernel groups, one per error signal.

        Where one error signal stands for several layers of `a` (form `forward`), these are laid end to end into one group, since
        sum_l (a_l . a'_l)(b . b') = (a . a')(b . b') for the concatenated a.

        Args:
            a: `[S, La, D]`.
            b: `[S, Lb, D]`, where Lb divides La.

        Returns:
            Factors `a [S, Lb, D La / Lb]` and `b [S, Lb, D]`, on the whitener's device.
        """
        white_a = torch.einsum("sld,lde->sle", a.to(self.a.device), self.a)
        white_b = torch.einsum("sld,lde->sle", b.to(self.b.device), self.b)
        return white_a.reshape(len(a), b.shape[1], -1), white_b


def inverse_roots(
    moments: npt.NDArray[np.float64], damping: float, ranks: Sequence[int] | None = None
) -> Tensor:
    """(C + g I)^(-1/2) of second moments C `[L, D, D]`, float32; g is `damping` times the mean of C's diagonal over its directions."""
    roots = []
    for layer, matrix in enumerate(moments):
        values, vectors = np.linalg.eigh(matrix)
        values = values.clip(min=0.0)
        width = len(values) if ranks is None else ranks[layer]
        floor = damping * (values.sum() / width or 1.0)  # a signal that is all zero stays zero
        roots.append((vectors * (values + floor) ** -0.5) @ vectors.T)
    return torch.from_numpy(np.stack(roots)).float()
