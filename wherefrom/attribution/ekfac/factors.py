r"""EK-FAC factors of a model's linear layers: the curvature in which per-example gradients are compared.

Per layer, over the positions t (all that the model reads) and the examples n of the corpus:

    A = mean_t x_t x_t'  [I, I],     S = mean_t g_t g_t'  [O, O],     A = Q_A diag(.) Q_A',  S = Q_S diag(.) Q_S'
    Lambda_ij = mean_n (Q_S' G_n Q_A)_ij^2                                                   [O, I]

with G_n the gradient of the summed loss of example n (`gradients`). The curvature is then H = sum_ij Lambda_ij v_ij v_ij' for the
rank-one directions v_ij = Q_S,i Q_A,j' (George et al., arXiv:1806.03884); labels are the data's own (the empirical Fisher matrix) or drawn
from the model (the Fisher matrix). Eigenvectors come from float64 decompositions; everything is stored in float32.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from wherefrom.attribution.batching import pack_rows
from wherefrom.attribution.ekfac.gradients import BATCH_TOKENS, Labels, LinearTaps, Visit
from wherefrom.attribution.models.model import LanguageModel
from wherefrom.attribution.models.render import TokenRow
from wherefrom.errors import BundleCorrupt, BundleMismatch, ConfigurationError
from wherefrom.json_text import read_json

#: Damping as a share of the mean eigenvalue of each layer.
DAMPING = 0.1
#: Seed of labels drawn from the model; the row's number is added.
SEED = 20_000

_TENSORS = "factors.safetensors"
_FACTS = "ekfac.json"
#: Name of the tensor of `norms`.
NORMS = "norms"

#: Called with a stage's name, what is done and what there is to do.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class LayerFactors:
    """Curvature of one layer; `I` counts the bias' 1 where the layer has a bias."""

    q_a: Tensor  # [I, I] float32, eigenvectors in columns
    q_s: Tensor  # [O, O] float32, eigenvectors in columns
    eigenvalues: Tensor  # Lambda, [O, I] float32

    def to(self, device: torch.device) -> "LayerFactors":
        """The same on another device."""
        return LayerFactors(*(one.to(device) for one in (self.q_a, self.q_s, self.eigenvalues)))

    def rotate(self, x: Tensor, g: Tensor) -> Tensor:
        """Gradients in the eigenbasis, Q_S' G Q_A, `[B, O, I]`, by the cheaper of two orders."""
        inputs, outputs = len(self.q_a), len(self.q_s)
        if x.shape[1] * (inputs**2 + outputs**2) <= inputs * outputs * (inputs + outputs):
            return (g @ self.q_s).transpose(1, 2) @ (x @ self.q_a)
        return self.q_s.T @ (g.transpose(1, 2) @ x) @ self.q_a

    def inverse(self, damping: float) -> Tensor:
        """1 / (Lambda + damping x its mean), `[O, I]`; 0 where no example has a gradient at all."""
        floor = damping * self.eigenvalues.mean()
        if float(floor) <= 0.0:
            return torch.zeros_like(self.eigenvalues)
        return (self.eigenvalues + floor).reciprocal()


@dataclass(frozen=True)
class EkfacFacts:
    """How factors were fitted."""

    labels: Labels
    examples: int
    #: Positions that went into A and S.
    tokens: int
    #: Share of the model's parameters that the layers hold.
    coverage: float
    #: Damping of the stored norms.
    norms_damping: float = DAMPING


@dataclass(frozen=True)
class EkfacFactors:
    """Factors of all layers, in the model's order."""

    layers: Mapping[str, LayerFactors]
    facts: EkfacFacts
    #: `[N]` float32: |H^(-1/2) G_n| of the corpus' examples, where they were stored; saves most of the work of an audit.
    norms: Tensor | None = None

    @property
    def parameters(self) -> int:
        """Number of weights (and biases) that the factors cover."""
        return sum(layer.eigenvalues.numel() for layer in self.layers.values())

    def save(self, folder: Path) -> None:
        """Write `factors.safetensors` and `ekfac.json` into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {
            f"{name}/{part}": value.contiguous()
            for name, layer in self.layers.items()
            for part, value in vars(layer).items()
        }
        if self.norms is not None:
            tensors[NORMS] = self.norms
        save_file(tensors, folder / _TENSORS)
        facts = {"layers": list(self.layers), **asdict(self.facts)}
        (folder / _FACTS).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "EkfacFactors":
        """Read what `save` wrote; the tensors stay on disk until they are used.

        Raises:
            BundleCorrupt: a file is missing, cannot be read or lacks a layer.
        """
        try:
            facts = read_json((folder / _FACTS).read_text(encoding="utf-8"))
            tensors = load_file(folder / _TENSORS)
            layers = {
                name: LayerFactors(
                    tensors[f"{name}/q_a"], tensors[f"{name}/q_s"], tensors[f"{name}/eigenvalues"]
                )
                for name in facts.pop("layers")
            }
            return cls(layers, EkfacFacts(**facts), tensors.get(NORMS))
        except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
            raise BundleCorrupt(f"{folder}: the EK-FAC factors cannot be read: {error}") from error

    def beside(self, model: Any) -> "EkfacFactors":
        """The same with each layer's factors where the layer of a model is.

        Raises:
            BundleMismatch: the model has no layer of a name.
        """
        try:
            found = {
                name: layer.to(next(model.get_submodule(name).parameters()).device)
                for name, layer in self.layers.items()
            }
        except AttributeError as error:
            raise BundleMismatch(f"the EK-FAC factors do not belong to this model: {error}") from error
        return replace(self, layers=found)

    def with_norms(self, norms: Tensor, damping: float) -> "EkfacFactors":
        """The same factors with the norms of the corpus' examples."""
        return replace(self, norms=norms, facts=replace(self.facts, norms_damping=damping))


def fit_ekfac(
    language: LanguageModel,
    rows: Sequence[TokenRow],
    *,
    labels: Labels = "data",
    modules: Sequence[str] | None = None,
    progress: Progress,
) -> EkfacFactors:
    """Fit factors in two passes (forward and backward) over the rows.

    Args:
        language: the audited model; an adapter is merged already.
        rows: training examples, a sample of some thousands for a large corpus.
        labels: see `Labels`; `data` agrees with kronfluence's `use_empirical_fisher=True`.
        modules: names of linear layers; None: all those of the transformer blocks.
        progress: see `Progress`; counts rows.

    Raises:
        ConfigurationError: no rows, an unknown layer or an unknown kind of labels.
        UnusableModel: the model's layers cannot be tapped; see `LinearTaps`.
    """
    if not rows:
        raise ConfigurationError("EK-FAC factors cannot be fitted on no rows")
    if labels not in get_args(Labels):
        raise ConfigurationError(f"labels must be one of {get_args(Labels)}, not {labels!r}")
    taps = LinearTaps(language, modules)
    bases = _eigenbases(taps, rows, labels=labels, progress=progress)
    layers = _correct(taps, rows, bases, labels=labels, progress=progress)
    tokens = sum(len(row.ids) - 1 for row in rows)
    return EkfacFactors(layers, EkfacFacts(labels, len(rows), tokens, taps.coverage))


def run_batches(
    taps: LinearTaps,
    rows: Sequence[TokenRow],
    visit: Callable[[list[int]], Visit],
    *,
    names: Sequence[str],
    labels: Labels = "data",
) -> None:
    """Take all rows through the model in batches of like length.

    Args:
        taps: the tapped model.
        rows: in any order.
        visit: called with the row numbers of each batch before its pass; returns what to call per layer.
        names: the layers to visit.
        labels: whose labels the loss is taken on; drawn ones are the same in every pass.
    """
    for batch in pack_rows([len(row.ids) for row in rows], BATCH_TOKENS):
        draw = [SEED + index for index in batch] if labels == "sampled" else None
        taps.run([rows[index] for index in batch], visit(batch), names=names, draw=draw)


def _eigenbases(
    taps: LinearTaps, rows: Sequence[TokenRow], *, labels: Labels, progress: Progress
) -> dict[str, tuple[Tensor, Tensor]]:
    """First pass: eigenvectors of A and S of each layer (their scale does not matter)."""
    sums: dict[str, tuple[Tensor, Tensor]] = {}
    done = 0

    def add(name: str, x: Tensor, g: Tensor, mask: Tensor) -> None:
        if name not in sums:
            sums[name] = x.new_zeros(x.shape[-1], x.shape[-1]), g.new_zeros(g.shape[-1], g.shape[-1])
        held, wrong = x[mask], g[mask]  # [S, I], [S, O]
        sums[name][0].addmm_(held.T, held)
        sums[name][1].addmm_(wrong.T, wrong)

    def visit(batch: list[int]) -> Visit:
        nonlocal done
        progress("EK-FAC second moments (rows)", done, len(rows))
        done += len(batch)
        return add

    run_batches(taps, rows, visit, names=taps.names, labels=labels)
    progress("EK-FAC second moments (rows)", done, len(rows))
    return {name: (_eigenvectors(sums[name][0]), _eigenvectors(sums[name][1])) for name in taps.names}


def _eigenvectors(moments: Tensor) -> Tensor:
    """Eigenvectors of a symmetric matrix in columns, computed in float64."""
    exact = moments.double()
    _, vectors = torch.linalg.eigh((exact + exact.T) / 2)
    found: Tensor = vectors.float().contiguous()
    return found


def _correct(
    taps: LinearTaps,
    rows: Sequence[TokenRow],
    bases: Mapping[str, tuple[Tensor, Tensor]],
    *,
    labels: Labels,
    progress: Progress,
) -> dict[str, LayerFactors]:
    """Second pass: the mean squared entry of the rows' gradients in the eigenbases."""
    layers = {
        name: LayerFactors(q_a, q_s, q_a.new_zeros(len(q_s), len(q_a))) for name, (q_a, q_s) in bases.items()
    }
    done = 0

    def add(name: str, x: Tensor, g: Tensor, _mask: Tensor) -> None:
        layers[name].eigenvalues.add_(layers[name].rotate(x, g).square_().sum(dim=0))

    def visit(batch: list[int]) -> Visit:
        nonlocal done
        progress("EK-FAC eigenvalues (rows)", done, len(rows))
        done += len(batch)
        return add

    run_batches(taps, rows, visit, names=taps.names, labels=labels)
    progress("EK-FAC eigenvalues (rows)", done, len(rows))
    for layer in layers.values():
        layer.eigenvalues.div_(len(rows))
    return layers
