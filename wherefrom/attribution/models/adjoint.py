r"""The learned adjoint of the form `adapter-forward`: predicts the error signals of an adapter without a backward pass.

    x_t = [ d loss_t / d h_t^L ,  h_t^s / rms(h_t^s) ]          the output error of the token itself, and what the model held at the similarity layer s
    v^_t = M x_t                                                 for all adapted layers at once, [G r, 2 D]

    M = argmin sum_t |v_t - M x_t|^2 + l |M T^{-1}|^2            ridge over the corpus' tokens, whose v are read exactly when the bundle is built

with T = diag(whitening of the output error, I), so that the penalty counts both halves of x alike. Where the loss does not count a token, its output error is zero and its
state alone speaks: what it may do for later tokens.

A query's core is then sum_t v^_t u_t', and the training examples keep their exact cores: for given states the expected kernel is linear in v. On a model of 30 blocks (96 rows,
1,463 tokens) scores by this map correlate with the exact ones at .57 per query; by the output error alone .46, by predicted cores on both sides .48. Products of state and error
(kernel ridge) were no better (docs/experiments.md).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from wherefrom.errors import BundleCorrupt

#: File of a bundle.
ADJOINT = "adjoint.safetensors"
#: l above, as a multiple of the mean squared length of x; .1, 1 and 3 gave held-out cosines of .18, .20 and .20.
RIDGE = 1.0
#: Damping of the output error's whitening, as in `whitening`.
_DAMPING = 0.1


@dataclass(frozen=True)
class Adjoint:
    """A fitted map."""

    #: M' `[2 D, G r]`, float32.
    weights: Tensor

    @classmethod
    def fit(cls, parts: Iterable[tuple[Tensor, Tensor]], *, ridge: float = RIDGE) -> Self:
        """Fit the map on tokens of a corpus.

        Args:
            parts: x `[S, 2 D]` and v `[S, G, r]` of consecutive tokens.
            ridge: l, see `RIDGE`.
        """
        squares: Tensor | None = None
        products: Tensor | None = None
        count = 0
        for context, errors in parts:
            x, v = context.double(), errors.flatten(1).double()
            squares = x.T @ x if squares is None else squares + x.T @ x
            products = x.T @ v if products is None else products + x.T @ v
            count += len(x)
        if squares is None or products is None:
            raise ValueError("no tokens: a corpus has at least one")
        scale = _scaling(squares / count)  # [2 D, 2 D]
        scaled = scale.T @ squares @ scale
        penalty = ridge * float(scaled.diagonal().sum()) / count
        scaled.diagonal().add_(penalty)
        weights = scale @ torch.linalg.solve(scaled, scale.T @ products)
        return cls(weights.float())

    def to(self, device: torch.device) -> Self:
        """The same on another device."""
        return type(self)(self.weights.to(device))

    def predict(self, context: Tensor) -> Tensor:
        """Error signals of all layers laid end to end, `[S, G r]`, from x `[S, 2 D]`."""
        return context @ self.weights

    def save(self, file: Path) -> None:
        """Write as safetensors, float16 with one scale per direction of an adapted layer."""
        scale = self.weights.abs().amax(dim=0).clamp_min(1e-30)
        values = (self.weights / scale).half().contiguous()
        save_file({"adjoint": values, "adjoint_scale": scale.contiguous()}, file)

    @classmethod
    def load(cls, file: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            BundleCorrupt: the file is missing or another one.
        """
        try:
            stored = load_file(file)
            return cls(stored["adjoint"].float() * stored["adjoint_scale"])
        except (OSError, KeyError, SafetensorError) as error:
            raise BundleCorrupt(f"{file}: not a learned adjoint: {error}") from error


def _scaling(moments: Tensor) -> Tensor:
    """T: inverse square root of the damped second moment of the first half of x, the identity for the second half."""
    half = len(moments) // 2
    values, vectors = torch.linalg.eigh(moments[:half, :half])
    values = values.clamp_min(0.0)
    floor = _DAMPING * (float(values.mean()) or 1.0)
    scale = torch.eye(len(moments), dtype=torch.float64, device=moments.device)
    scale[:half, :half] = (vectors * (values + floor) ** -0.5) @ vectors.T
    return scale
