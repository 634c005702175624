r"""LoGra (arXiv:2405.13954) and TrackStar (arXiv:2410.17413), written from the papers.

Per layer, with the gradient G = sum_t g_t x_t' of a row's summed loss `[O, I]`, both keep a two-sided projection

    z = vec(P_O G P_I'),        P_O [p, O],  P_I [p, I]

either random with entries N(0, 1/p), or the leading eigenvectors of mean g g' and mean x x' (LoGra's initialisation). With H = mean z z' over
the corpus and damping d = c tr(H) / p^2:

    LoGra        s(q, z) = sum_layers z_q' (H + d)^-1 z_z
    TrackStar    s(q, z) = cos over all layers jointly of (R + d)^(-1/2) z_q and (R + d)^(-1/2) z_z,      R = l R_eval + (1 - l) R_train

l lets the sorted eigenvalues of l R_eval and (1 - l) R_train, pooled over layers, meet at the 1,000th (appendix A.1.3). Deviations: TrackStar's correction by the
optimiser's second moments is left out (the folder keeps none), and R_eval comes from separate queries, not from those that are evaluated.

H has rank <= N, so a power of H + d is applied in the span of the N rows: with H = M'M = U' S U and U's rows orthonormal,
(H + d)^a = U' [(S + d)^a - d^a] U + d^a. That is exact, and it costs N^3 instead of p^6.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.peers.subject import Material, Scored, timed
from wherefrom.attribution.ekfac.factors import run_batches
from wherefrom.attribution.ekfac.gradients import LinearTaps, Visit
from wherefrom.attribution.models.render import TokenRow

DAMPING = 0.1
#: Eigenvalue, in falling order over all layers, at which TrackStar's two curves meet.
MEETING_POINT = 1000
_SEED = 7
#: Eigenvalues below this share of the largest are rounding.
_TINY = 1e-12

#: Projected gradients of each layer, `[N, p p]`.
Features = Mapping[str, Tensor]


@dataclass(frozen=True)
class Sides:
    """The two projections of one layer."""

    left: Tensor  # P_O, [p, O]
    right: Tensor  # P_I, [p, I]


def logra(subject: Material) -> dict[str, Scored]:
    """LoGra with its own initialisation, at two ranks."""
    return {f"LoGra, rank {rank}": _logra(subject, rank) for rank in (16, 64)}


def trackstar(subject: Material) -> dict[str, Scored]:
    """TrackStar at two widths."""
    return {f"TrackStar, {rank} x {rank}": _trackstar(subject, rank) for rank in (16, 64)}


def _logra(subject: Material, rank: int) -> Scored:
    taps = _taps(subject)

    def build() -> tuple[dict[str, Sides], Features, Features]:
        sides = principal_sides(taps, subject.rows, rank)
        corpus = features(taps, subject.rows, sides)
        return sides, corpus, preconditioned(corpus, DAMPING)

    (sides, corpus, solved), built = timed(build)
    scores, asked = timed(lambda: sum_products(features(taps, subject.asked, sides), solved))
    return Scored(
        scores.numpy(),
        built,
        asked / len(subject.asked),
        4 * sum(one.shape[1] for one in corpus.values()),
        "our code after the paper: eigenvector initialisation, damping .1 of the mean",
    )


def _trackstar(subject: Material, rank: int) -> Scored:
    taps = _taps(subject)
    sides = random_sides(taps, subject.rows[0], rank, _SEED)

    def build() -> tuple[dict[str, Curvature], Features]:
        corpus = features(taps, subject.rows, sides)
        mixed = mixed_curvatures(corpus, features(taps, subject.teachers, sides), DAMPING)
        return mixed, unit(apply_power(corpus, mixed, -0.5))

    (mixed, corpus), built = timed(build)

    def ask() -> Tensor:
        queries = features(taps, subject.asked, sides)
        return sum_products(unit(apply_power(queries, mixed, -0.5)), corpus)

    scores, asked = timed(ask)
    return Scored(
        scores.numpy(),
        built,
        asked / len(subject.asked),
        4 * sum(one.shape[1] for one in corpus.values()),
        "our code after the paper, without the optimiser's second moments; R_eval from the separate queries",
    )


def _taps(subject: Material) -> LinearTaps:
    language = subject.language()
    return LinearTaps(language, subject.linears(language))


def random_sides(taps: LinearTaps, probe: TokenRow, rank: int, seed: int) -> dict[str, Sides]:
    """Random projections with entries N(0, 1/p); a side that is narrower than p keeps its width.

    Args:
        taps: the tapped model.
        probe: any row; it shows how wide each layer is.
        rank: p.
        seed: same seed, same projections.
    """
    widths: dict[str, tuple[int, int]] = {}

    def note(name: str, x: Tensor, g: Tensor, _mask: Tensor) -> None:
        widths[name] = (g.shape[-1], x.shape[-1])

    taps.run([probe], note, names=taps.names, draw=None)
    generator = torch.Generator().manual_seed(seed)

    def draw(width: int) -> Tensor:
        height = min(rank, width)
        drawn: Tensor = torch.randn(height, width, generator=generator) / height**0.5
        return drawn

    return {name: Sides(draw(widths[name][0]), draw(widths[name][1])) for name in taps.names}


def principal_sides(taps: LinearTaps, rows: Sequence[TokenRow], rank: int) -> dict[str, Sides]:
    """The leading eigenvectors of mean g g' and mean x x' over the positions of the rows, orthonormal."""
    moments: dict[str, tuple[Tensor, Tensor]] = {}

    def add(name: str, x: Tensor, g: Tensor, mask: Tensor) -> None:
        held, wrong = x[mask].double(), g[mask].double()  # [S, I], [S, O]
        before = moments.get(name)
        pair = (wrong.T @ wrong, held.T @ held)
        moments[name] = pair if before is None else (before[0] + pair[0], before[1] + pair[1])

    run_batches(taps, rows, lambda _: add, names=taps.names)
    return {
        name: Sides(_leading(moments[name][0], rank), _leading(moments[name][1], rank)) for name in taps.names
    }


def _leading(moments: Tensor, rank: int) -> Tensor:
    """Eigenvectors with the largest eigenvalues in rows, `[min(rank, D), D]` float32."""
    _, vectors = torch.linalg.eigh(moments)
    leading: Tensor = vectors[:, -min(rank, len(moments)) :].flip(1).T.float().contiguous()
    return leading


def features(taps: LinearTaps, rows: Sequence[TokenRow], sides: Mapping[str, Sides]) -> dict[str, Tensor]:
    """vec(P_O G P_I') of every row and layer, `[N, p p]` float32, without forming G."""
    found = {name: torch.zeros(len(rows), len(side.left) * len(side.right)) for name, side in sides.items()}

    def visit(batch: list[int]) -> Visit:
        def keep(name: str, x: Tensor, g: Tensor, _mask: Tensor) -> None:
            left = g @ sides[name].left.T  # [B, W, p]
            right = x @ sides[name].right.T  # [B, W, p]
            found[name][batch] = (left.transpose(1, 2) @ right).flatten(1)

        return keep

    run_batches(taps, rows, visit, names=list(sides))
    return found


def preconditioned(corpus: Features, damping: float) -> dict[str, Tensor]:
    """(H + d)^-1 z of every row and layer with H = mean z z' over these rows: LoGra's side of the corpus."""
    curvatures = {name: Curvature.of(one / len(one) ** 0.5, damping) for name, one in corpus.items()}
    return apply_power(corpus, curvatures, -1.0)


def mixed_curvatures(corpus: Features, evaluation: Features, damping: float) -> dict[str, "Curvature"]:
    """R = l R_eval + (1 - l) R_train of each layer."""
    share = mixing_share(corpus, evaluation, MEETING_POINT)
    found = {}
    for name, one in corpus.items():
        evaluated = evaluation[name] * (share / len(evaluation[name])) ** 0.5
        trained = one * ((1.0 - share) / len(one)) ** 0.5
        found[name] = Curvature.of(torch.cat([evaluated, trained]), damping)
    return found


def mixing_share(corpus: Features, evaluation: Features, meeting_point: int) -> float:
    """The l for which l times the k-th eigenvalue of R_eval is (1 - l) times that of R_train, layers pooled."""
    trained = _eigenvalue(corpus, meeting_point)
    evaluated = _eigenvalue(evaluation, meeting_point)
    return trained / (trained + evaluated)


def _eigenvalue(rows: Features, place: int) -> float:
    """The eigenvalue of mean z z' at a place (from 1), in falling order over all layers."""
    values = torch.cat(
        [torch.linalg.eigvalsh(_smaller_gram(one.double())) / len(one) for one in rows.values()]
    )
    falling = values.sort(descending=True).values
    return float(falling[min(place, len(falling)) - 1])


@dataclass(frozen=True)
class Curvature:
    """M'M + d of one layer, held as the eigenvectors of M'M with an eigenvalue above zero."""

    basis: Tensor  # U, [K, D] float64, in rows
    values: Tensor  # S, [K] float64
    floor: float  # d

    @classmethod
    def of(cls, root: Tensor, damping: float) -> "Curvature":
        """Decompose.

        Args:
            root: M, `[R, D]`.
            damping: d as a share of the mean eigenvalue of M'M, zeros included; > 0.
        """
        exact = root.double()
        values, vectors = torch.linalg.eigh(_smaller_gram(exact))
        kept = values > _TINY * values[-1]
        values, vectors = values[kept], vectors[:, kept]
        if len(exact) < exact.shape[1]:
            vectors = exact.T @ vectors / values.sqrt()  # [D, K]
        return cls(vectors.T.contiguous(), values, damping * float(exact.square().sum()) / exact.shape[1])

    def power(self, rows: Tensor, exponent: float) -> Tensor:
        """(M'M + d)^exponent v of each row v, `[N, D]` float32."""
        rest: float = self.floor**exponent
        weights = (self.values + self.floor) ** exponent - rest
        exact = rows.double()
        return (((exact @ self.basis.T) * weights) @ self.basis + rest * exact).float()


def _smaller_gram(rows: Tensor) -> Tensor:
    """M M' or M'M, whichever is smaller: their eigenvalues above zero are the same."""
    return rows @ rows.T if len(rows) < rows.shape[1] else rows.T @ rows


def apply_power(rows: Features, curvatures: Mapping[str, Curvature], exponent: float) -> dict[str, Tensor]:
    """(M'M + d)^exponent z of every row and layer, `[N, p p]`."""
    return {name: curvatures[name].power(one, exponent) for name, one in rows.items()}


def unit(rows: Features) -> dict[str, Tensor]:
    """Rows of unit norm over all layers jointly; a row of zeros stays."""
    norms = torch.stack([one.square().sum(dim=1) for one in rows.values()]).sum(dim=0).sqrt()  # [N]
    return {name: one / norms.clamp_min(1e-30)[:, None] for name, one in rows.items()}


def sum_products(queries: Features, corpus: Features) -> Tensor:
    """Inner products over all layers, `[Q, N]`."""
    parts = [queries[name] @ one.T for name, one in corpus.items()]
    return torch.stack(parts).sum(dim=0)
