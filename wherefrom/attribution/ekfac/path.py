r"""The full tier along the way from the base model to the audited one.

Training examples acted while the weights moved; at the end, what was learned has little gradient left. So EK-FAC scores are summed over points of the
straight line between the two models (`models.trajectory`: the audited one and the half-way one), each point with factors of its own:

    score(q, z) = sum_p dot_p(q, z) / rms_z' dot_p(q, z')

as TracIn sums over checkpoints (arXiv:2002.08484), but without any. The root mean square over the examples of the call keeps one point from drowning another (a query that the audited model has memorised has
small gradients there); taken over the candidates of an audit it serves as well as over the corpus. Measured LDS: audited model alone .689, halfway
.694, both .745 (form `forward` .627). With the audited model as the only point the order is plain EK-FAC's (`scores`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wherefrom.attribution.ekfac.factors import EkfacFactors, Progress
from wherefrom.attribution.ekfac.gradients import Labels
from wherefrom.attribution.ekfac.scores import EkfacScorer, EkfacScores, build_ekfac
from wherefrom.attribution.models.model import LanguageModel
from wherefrom.attribution.models.render import TokenRow
from wherefrom.errors import ConfigurationError

#: Folder of the tier in a bundle.
FOLDER = "ekfac"


@dataclass(frozen=True)
class PathScores:
    """Scores of every query with every example; positive = proponent."""

    #: `[Q, N]` float32, no unit: the points' dot products, each divided by its root mean square over the examples. Comparable within a query.
    balanced: Tensor
    #: The points' own scores, the audited model first.
    points: tuple[EkfacScores, ...]

    @classmethod
    def of(cls, points: Sequence[EkfacScores]) -> "PathScores":
        """Sum balanced dot products; a point at which a query has no gradient adds nothing."""
        total = torch.zeros_like(points[0].dot)
        for point in points:
            size = point.dot.square().mean(dim=1, keepdim=True).sqrt()  # [Q, 1]
            total += torch.where(size > 0, point.dot / size, torch.zeros_like(total))
        return cls(total, tuple(points))

    @property
    def cosine(self) -> Tensor:
        """Mean over the points of dot / (|q| |z|), `[Q, N]`, in [-1, 1]."""
        return torch.stack([point.cosine for point in self.points]).mean(dim=0)


class EkfacPath:
    """Scores queries against training examples, summed over the points of a path."""

    def __init__(self, scorers: Sequence[EkfacScorer]) -> None:
        if not scorers:
            raise ConfigurationError("a path needs at least one point")
        self._scorers = tuple(scorers)

    @property
    def points(self) -> int:
        """Number of points; a score costs as many passes over the rows."""
        return len(self._scorers)

    def scores(self, queries: Sequence[TokenRow], rows: Sequence[TokenRow]) -> PathScores:
        """Scores of every query with every example; see `EkfacScorer.scores`."""
        return PathScores.of([scorer.scores(queries, rows) for scorer in self._scorers])

    def candidate_scores(
        self, queries: Sequence[TokenRow], candidates: Sequence[TokenRow], numbers: npt.NDArray[np.int64]
    ) -> PathScores:
        """The same for an audit's candidates, whose norms are stored with the bundle; cheaper.

        Args:
            queries: see `EkfacScorer.scores`.
            candidates: rows of the corpus.
            numbers: their numbers in the corpus, `[K]`.

        Raises:
            ConfigurationError: the factors were stored without norms, or for another damping.
        """
        return PathScores.of([scorer.stored_scores(queries, candidates, numbers) for scorer in self._scorers])


def build_path(
    points: Sequence[LanguageModel],
    rows: Sequence[TokenRow],
    *,
    bundle: Path,
    labels: Labels = "data",
    progress: Progress,
) -> EkfacPath:
    """Fit and store the tier in a bundle's folder `ekfac`, one folder per point.

    Args:
        points: the models whose gradients are summed, the audited one first; one or more.
        rows: the whole corpus in its order; norms are stored per row.
        bundle: the bundle's folder.
        labels: see `fit_ekfac`.
        progress: see `Progress`.

    Raises:
        ConfigurationError, UnusableModel: see `fit_ekfac`.
    """
    scorers = []
    for number, language in enumerate(points):
        factors = build_ekfac(language, rows, point_folder(bundle, number), labels=labels, progress=progress)
        scorers.append(EkfacScorer(language, factors))
    return EkfacPath(scorers)


def load_path(points: Sequence[LanguageModel], bundle: Path) -> EkfacPath | None:
    """The tier stored in a bundle for the same points; None where the bundle has none.

    Raises:
        BundleMismatch: the factors do not fit a model.
        BundleCorrupt: a file is missing or cannot be read.
    """
    if not (bundle / FOLDER).is_dir():
        return None
    return EkfacPath(
        [
            EkfacScorer(language, EkfacFactors.load(point_folder(bundle, number)))
            for number, language in enumerate(points)
        ]
    )


def point_folder(bundle: Path, number: int) -> Path:
    """Where a bundle has the factors of one point."""
    return bundle / FOLDER / f"point-{number}"
