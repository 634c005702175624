r"""Scores from the gradients of the LoRA weights as they are, DataInf (arXiv:2310.00902) and what it approximates, written from the papers.

With G_n the gradient of a row's summed loss at one matrix (A or B of one adapted layer), all sums over the 420 matrices:

    product    s(q, z) = sum <G_q, G_z>                       TracIn (arXiv:2002.08484) at its last checkpoint
    cosine     s(q, z) = sum <G_q, G_z> / (|G_q| |G_z|)       norms over all matrices together
    DataInf    s(q, z) = sum (1 / (N l)) sum_i [ <G_q, G_z> - <G_q, G_i> <G_i, G_z> / (l + |G_i|^2) ]
    Fisher     s(q, z) = sum <G_q, (F + k)^-1 G_z>            F = mean_i G_i G_i' of the matrix, as a whole: no DataInf's swap of mean and inverse, no EK-FAC's eigenbasis

with l a share (the published code: a tenth) of the mean squared entry of the corpus' gradients of that matrix, and k a share of their mean squared norm. Everything is a function of inner
products, so each matrix is held for all rows once, and its `[Q + N, N]` products are what is left of it: with K = <G_i, G_j>,

    <G_q, (F + k)^-1 G_z> = (K_qz - K_q. (K + N k)^-1 K_.z) / k
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.peers.subject import Material, Scored, timed
from wherefrom.attribution.ekfac.factors import run_batches
from wherefrom.attribution.ekfac.gradients import LinearTaps, Visit
from wherefrom.attribution.models.lora import block_of, first_block_read
from wherefrom.attribution.models.render import TokenRow

#: DataInf's damping as a share of the mean squared entry, as its authors have it.
DATAINF_DAMPING = 0.1
#: The Fisher matrix' damping as a share of the mean squared norm: LDS on the choosing half at .01, .003, .001 and .0003 is .545, .564, .558 and .540 (read at .5: .634, .651, .646 and .620).
FISHER_DAMPING = 3e-3

Gradients = Mapping[str, Tensor]


@dataclass(frozen=True)
class Products:
    """Inner products of gradients at one matrix, float64."""

    #: Of the layer.
    name: str
    #: Queries with the corpus `[Q, N]`, and the corpus with itself `[N, N]`.
    queries: Tensor
    corpus: Tensor
    #: |G_q|^2 `[Q]`.
    squares: Tensor
    #: Numbers of the matrix.
    size: int


def products(subject: Material) -> dict[str, Scored]:
    """Products, cosines and DataInf; one pass serves all of them."""
    taps = taps_of(subject)
    held, built = timed(lambda: gradients_of(taps, subject.rows))
    asked, passed = timed(lambda: gradients_of(taps, subject.asked))
    found, joined = timed(lambda: products_of(asked, held))

    def row(
        some: Sequence[Products], score: Callable[[Sequence[Products]], Tensor], more: str = ""
    ) -> Scored:
        scores, seconds = timed(lambda: score(some).float().numpy())
        each = (passed + joined + seconds) / len(subject.asked)
        numbers = sum(one.size for one in some)
        note = f"{numbers:,} numbers in {len(some)} matrices, summed loss{more}"
        return Scored(scores, built, each, 4.0 * numbers, note)

    damped = (
        f"; damping {FISHER_DAMPING:g} of the mean squared norm, as the blocks chosen on the choosing half"
    )
    return {
        "gradient product (TracIn)": row(found, total_of),
        "gradient cosine": row(found, cosines),
        "DataInf": row(
            found, datainf, f"; damping {DATAINF_DAMPING:g} of the mean squared entry, as published"
        ),
        "influence, whole Fisher per matrix": row(found, fisher, damped),
        "influence, whole Fisher per matrix, upper half": row(upper_half(found), fisher, damped),
    }


def taps_of(subject: Material) -> LinearTaps:
    """The layers whose weights are compared, tapped."""
    language = subject.language()
    return LinearTaps(language, subject.linears(language))


def gradients_of(taps: LinearTaps, rows: Sequence[TokenRow]) -> dict[str, Tensor]:
    """Gradients of every row at every matrix, `[N, O I]` float32 each."""
    found: dict[str, Tensor] = {}

    def visit(batch: list[int]) -> Visit:
        def keep(name: str, x: Tensor, g: Tensor, _mask: Tensor) -> None:
            if name not in found:
                found[name] = torch.zeros(len(rows), g.shape[-1] * x.shape[-1])
            found[name][batch] = (g.transpose(1, 2) @ x).flatten(1)

        return keep

    run_batches(taps, rows, visit, names=taps.names)
    return found


def products_of(queries: Gradients, corpus: Gradients) -> list[Products]:
    """Inner products at every matrix."""
    found = []
    for name, held in corpus.items():
        exact, asked = held.double(), queries[name].double()
        found.append(
            Products(name, asked @ exact.T, exact @ exact.T, asked.square().sum(dim=1), held.shape[1])
        )
    return found


def total_of(found: Sequence[Products]) -> Tensor:
    """Inner products over all matrices, `[Q, N]` float64."""
    return torch.stack([one.queries for one in found]).sum(dim=0)


def cosines(found: Sequence[Products]) -> Tensor:
    """Cosines over all matrices together, `[Q, N]` float32."""
    asked = torch.stack([one.squares for one in found]).sum(dim=0).sqrt()
    held = torch.stack([one.corpus.diagonal() for one in found]).sum(dim=0).sqrt()
    return (total_of(found) / asked[:, None] / held).float()


def datainf(found: Sequence[Products], damping: float = DATAINF_DAMPING) -> Tensor:
    """DataInf of all pairs, `[Q, N]` float32; see the module's text."""
    parts = []
    for one in found:
        squares = one.corpus.diagonal()
        ridge = damping * squares.mean() / one.size
        shared = one.queries @ (one.corpus / (ridge + squares)[:, None]) / len(squares)
        parts.append((one.queries - shared) / ridge)
    return torch.stack(parts).sum(dim=0).float()


def fisher(found: Sequence[Products], damping: float = FISHER_DAMPING) -> Tensor:
    """Influence with the whole empirical Fisher matrix of every matrix, `[Q, N]` float32; see the module's text."""
    parts = []
    for one in found:
        ridge = damping * one.corpus.diagonal().mean()
        damped = one.corpus + len(one.corpus) * ridge * torch.eye(len(one.corpus), dtype=one.corpus.dtype)
        parts.append((one.queries - one.queries @ torch.linalg.solve(damped, one.corpus)) / ridge)
    return torch.stack(parts).sum(dim=0).float()


def upper_half(found: Sequence[Products]) -> list[Products]:
    """The matrices of the blocks that the form `adapter` reads."""
    first = first_block_read(one.name for one in found) or 0
    return [one for one in found if (block_of(one.name) or 0) >= first]
