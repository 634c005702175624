r"""EK-FAC influence scores over all linear layers: the full tier, for audits marked important.

With G the gradient of the summed loss of a row, G^ = Q_S' G Q_A its image in a layer's eigenbasis, and w = 1 / (Lambda + damping x mean Lambda)
(`factors`):

    dot(q, z) = sum_layers <G_q, (H + lambda)^-1 G_z>  = sum_layers sum_ij w_ij G^_q,ij G^_z,ij
    |z|^2     = dot(z, z),       cosine = dot / (|q| |z|)

so the cosine has the inverse square root on both sides before anything is normalised. Positive = more weight on z lowers the loss of q.

Queries are held as preconditioned gradients, layer by layer; training examples are run through the model afresh, and nothing of them is kept but the
scores. Where the queries of all layers do not fit into the memory given, layers are taken in turns, at one more pass over queries and examples per turn.
With stored norms the examples' gradients need no rotation: the queries are rotated back instead.

References: arXiv:1806.03884 (the factors), arXiv:2308.03296 (for language models). Conventions are kronfluence's: loss summed over a row's explained
tokens, eigenvalues averaged over examples, damping a share of each layer's mean eigenvalue.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wherefrom.attribution.ekfac.factors import (
    DAMPING,
    EkfacFactors,
    LayerFactors,
    Progress,
    fit_ekfac,
    run_batches,
)
from wherefrom.attribution.ekfac.gradients import Labels, LinearTaps, Visit
from wherefrom.attribution.models.model import LanguageModel
from wherefrom.attribution.models.render import TokenRow
from wherefrom.errors import BundleMismatch, ConfigurationError

#: Bytes that the preconditioned gradients of the queries may take at once.
MEMORY_BYTES = 3 << 30


@dataclass(frozen=True)
class EkfacScores:
    """Scores of every query with every example, all float32 on the CPU; positive = proponent."""

    dot: Tensor  # [Q, N]
    query_norms: Tensor  # [Q]
    norms: Tensor  # [N]

    @property
    def cosine(self) -> Tensor:
        """Dot product over both norms, dot / (|q| |z|), `[Q, N]`; 0 where a gradient vanishes."""
        scale = self.query_norms[:, None] * self.norms[None]
        return torch.where(scale > 0, self.dot / scale, torch.zeros_like(self.dot))


def build_ekfac(
    language: LanguageModel,
    rows: Sequence[TokenRow],
    folder: Path,
    *,
    labels: Labels = "data",
    progress: Progress,
) -> EkfacFactors:
    """Fit the factors of a corpus, add its examples' norms and store both in a folder.

    Raises:
        ConfigurationError, UnusableModel: see `fit_ekfac`.
    """
    factors = fit_ekfac(language, rows, labels=labels, progress=progress)
    progress("EK-FAC norms (rows)", 0, len(rows))
    factors = factors.with_norms(EkfacScorer(language, factors).norms(rows), DAMPING)
    progress("EK-FAC norms (rows)", len(rows), len(rows))
    factors.save(folder)
    return factors


class EkfacScorer:
    """Scores queries against training examples with one model's factors."""

    def __init__(
        self,
        language: LanguageModel,
        factors: EkfacFactors,
        *,
        damping: float = DAMPING,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        if damping <= 0:
            raise ConfigurationError(f"damping must be above 0, not {damping}")
        self._taps = LinearTaps(language, list(factors.layers))
        self._factors = factors.beside(language.model)
        self._damping = damping
        self._memory_bytes = memory_bytes
        _check_shapes(language, factors)

    def scores(self, queries: Sequence[TokenRow], rows: Sequence[TokenRow]) -> EkfacScores:
        """Dot products and norms, summed over all layers.

        Args:
            queries: rows whose explained tokens are the target function; loss summed over them.
            rows: training examples (or the candidates of an audit), in any order.

        Returns:
            Scores in the orders given.
        """
        total = _zero_scores(len(queries), len(rows))
        for part in self.layer_scores(queries, rows).values():
            total.dot.add_(part.dot)
            total.query_norms.add_(part.query_norms.square())
            total.norms.add_(part.norms.square())
        return EkfacScores(total.dot, total.query_norms.sqrt(), total.norms.sqrt())

    def layer_scores(
        self, queries: Sequence[TokenRow], rows: Sequence[TokenRow]
    ) -> Mapping[str, EkfacScores]:
        """The same for each layer on its own; `[Q, N]` floats per layer are held."""
        parts: dict[str, EkfacScores] = {}
        for names in self._turns(len(queries)):
            held = self._precondition(queries, names)
            found = {name: _zero_scores(len(queries), len(rows)) for name in names}
            visit = partial(partial, self._score, held, found)
            run_batches(self._taps, rows, visit, names=names)
            for name in names:
                parts[name] = EkfacScores(found[name].dot, held[name].norms.cpu(), found[name].norms.sqrt())
        return parts

    def stored_scores(
        self,
        queries: Sequence[TokenRow],
        candidates: Sequence[TokenRow],
        numbers: npt.NDArray[np.int64],
    ) -> EkfacScores:
        """The same as `scores` for rows of the corpus whose norms are stored, at about two thirds of the time.

        Args:
            queries: see `scores`.
            candidates: rows of the corpus that the factors were built on.
            numbers: their numbers in the corpus, `[K]`.

        Raises:
            ConfigurationError: no norms are stored, or those of another damping than this scorer's.
        """
        facts, norms = self._factors.facts, self._factors.norms
        if norms is None or facts.norms_damping != self._damping:
            raise ConfigurationError(
                f"the EK-FAC factors hold no norms at damping {self._damping}; build them with `build_ekfac`"
            )
        dot = torch.zeros(len(queries), len(candidates))
        of_queries = torch.zeros(len(queries))
        for names in self._turns(len(queries)):
            held = self._precondition(queries, names)
            of_queries += sum(one.norms.square().cpu() for one in held.values())
            raw = {name: _rotate_back(self._factors.layers[name], one) for name, one in held.items()}
            del held
            run_batches(self._taps, candidates, partial(partial, _score_raw, raw, dot), names=names)
        return EkfacScores(dot, of_queries.sqrt(), norms[torch.from_numpy(numbers)])

    def norms(self, rows: Sequence[TokenRow]) -> Tensor:
        """|H^(-1/2) G| of each row, `[N]`, in one pass."""
        squares = torch.zeros(len(rows))
        weights = {
            name: layer.inverse(self._damping).flatten() for name, layer in self._factors.layers.items()
        }

        def visit(batch: list[int]) -> Visit:
            def add(name: str, x: Tensor, g: Tensor, _mask: Tensor) -> None:
                image = self._factors.layers[name].rotate(x, g).flatten(1)  # [B, O I]
                squares[batch] += (image.square_() @ weights[name]).cpu()

            return add

        run_batches(self._taps, rows, visit, names=self._taps.names)
        return squares.sqrt()

    def _score(
        self,
        held: Mapping[str, "_Held"],
        found: Mapping[str, EkfacScores],
        batch: list[int],
        *tapped: *tuple[str, Tensor, Tensor, Tensor],
    ) -> None:
        """Scores and squared norms of a batch of examples at one layer."""
        name, x, g, _ = tapped
        image = self._factors.layers[name].rotate(x, g).flatten(1)  # [B, O I]
        found[name].dot[:, batch] = (held[name].gradients @ image.T).cpu()
        found[name].norms[batch] = (image.square_() @ held[name].weights).cpu()

    def _turns(self, queries: int) -> Iterator[list[str]]:
        """Layers whose preconditioned queries fit into memory together, at least one at a time."""
        taken: list[str] = []
        used = 0
        for name, layer in self._factors.layers.items():
            size = 4 * queries * layer.eigenvalues.numel()
            if taken and used + size > self._memory_bytes:
                yield taken
                taken, used = [], 0
            taken.append(name)
            used += size
        yield taken

    def _precondition(self, queries: Sequence[TokenRow], names: Sequence[str]) -> dict[str, "_Held"]:
        """One pass over the queries."""
        held = {
            name: _Held(
                layer.eigenvalues.new_zeros(len(queries), layer.eigenvalues.numel()),
                layer.inverse(self._damping).flatten(),
                layer.eigenvalues.new_zeros(len(queries)),
            )
            for name, layer in self._factors.layers.items()
            if name in names
        }

        def visit(batch: list[int]) -> Visit:
            def keep(name: str, x: Tensor, g: Tensor, _mask: Tensor) -> None:
                image = self._factors.layers[name].rotate(x, g).flatten(1)  # [B, O I]
                weighted = image * held[name].weights
                held[name].gradients[batch] = weighted
                held[name].norms[batch] = (image * weighted).sum(dim=1).sqrt()

            return keep

        run_batches(self._taps, queries, visit, names=names)
        return held


@dataclass(frozen=True)
class _Held:
    """What is kept of the queries for one layer."""

    gradients: Tensor  # [Q, O I]: w G^
    weights: Tensor  # w, [O I]
    norms: Tensor  # [Q]


def _zero_scores(queries: int, rows: int) -> EkfacScores:
    return EkfacScores(torch.zeros(queries, rows), torch.zeros(queries), torch.zeros(rows))


def _score_raw(
    raw: Mapping[str, Tensor],
    dot: Tensor,
    batch: list[int],
    *tapped: *tuple[str, Tensor, Tensor, Tensor],
) -> None:
    """Add one layer's products with a batch of examples, in the weights' own basis."""
    name, x, g, _ = tapped
    gradient = (g.transpose(1, 2) @ x).flatten(1)  # [B, O I]
    dot[:, batch] += (raw[name] @ gradient.T).cpu()


def _rotate_back(layer: LayerFactors, held: _Held) -> Tensor:
    """Preconditioned gradients in the weights' own basis, `[Q, O I]`."""
    image = held.gradients.view(-1, *layer.eigenvalues.shape)
    return (layer.q_s @ image @ layer.q_a.T).flatten(1)


def _check_shapes(language: LanguageModel, factors: EkfacFactors) -> None:
    """Refuse factors of another model.

    Raises:
        BundleMismatch: a layer's weights have another shape.
    """
    for name, layer in factors.layers.items():
        module = language.model.get_submodule(name)
        numbers = sum(one.numel() for one in module.parameters())
        if layer.eigenvalues.numel() != numbers:
            raise BundleMismatch(
                f"the EK-FAC factors of layer {name} cover {layer.eigenvalues.numel()} weights, the model's layer has {numbers}"
            )
