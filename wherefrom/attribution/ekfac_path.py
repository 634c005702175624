r"""The full tier along the way from the base model to the audited one.

Training examples acted while the weights moved; at the end, what was learned has little gradient left. So EK-FAC scores are summed over points of the
straight line between the two models, each point with factors of its own:

    theta_p = theta_base + p (theta_audited - theta_base),      score(q, z) = sum_p dot_p(q, z) / rms_z' dot_p(q, z')

as TracIn sums over checkpoints (arXiv:2002.08484), but without any: only the base model is needed. For a LoRA fine-tune that is the same folder without
the adapter. The root mean square over the examples of the call keeps one point from drowning another (a query that the audited model has memorised has
small gradients there); taken over the candidates of an audit it serves as well as over the corpus. Measured LDS: audited model alone .689, halfway
.694, both .745 (form `forward` .627). Without a base model the only point is 1, the audited model: the order is plain EK-FAC's (`ekfac`).
"""

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wherefrom.attribution.ekfac import EkfacScorer, EkfacScores, build_ekfac
from wherefrom.attribution.ekfac_factors import EkfacFactors, Progress
from wherefrom.attribution.ekfac_gradients import Labels
from wherefrom.attribution.model import LanguageModel
from wherefrom.attribution.render import TokenRow
from wherefrom.errors import BundleCorrupt, BundleMismatch, ConfigurationError

#: Folder of the tier in a bundle.
FOLDER = "ekfac"
#: Points where a base model is given.
POINTS = (0.5, 1.0)

_INDEX = "path.json"


def model_between(base: LanguageModel, audited: LanguageModel, point: float) -> LanguageModel:
    """The model at a point of the straight line from the base (0) to the audited model (1).

    Raises:
        BundleMismatch: the two have other weights than each other.
    """
    if point == 1.0:
        return audited
    known = dict(base.model.named_parameters())
    model = copy.deepcopy(audited.model)
    for name, weight in model.named_parameters():
        if name not in known or known[name].shape != weight.shape:
            raise BundleMismatch(
                f"{base.base_folder} is no base model of {audited.base_folder}: weight {name} is missing or has another shape"
            )
        weight.data.lerp_(known[name].data, 1.0 - point)
    return replace(audited, model=model)


@dataclass(frozen=True)
class PathScores:
    """Scores of every query with every example; positive = proponent."""

    #: `[Q, N]` float32, no unit: the points' dot products, each divided by its root mean square over the examples. Comparable within a query.
    balanced: Tensor
    #: The points' own scores, base to audited.
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
    base: LanguageModel | None,
    audited: LanguageModel,
    rows: Sequence[TokenRow],
    *,
    bundle: Path,
    labels: Labels = "data",
    progress: Progress,
) -> EkfacPath:
    """Fit and store the tier in a bundle's folder `ekfac`, one folder per point.

    Args:
        base: the model before the fine-tune; None: the audited model is the only point.
        audited: the model whose outputs are explained.
        rows: the whole corpus in its order; norms are stored per row.
        bundle: the bundle's folder.
        labels: see `fit_ekfac`.
        progress: see `Progress`.

    Raises:
        BundleMismatch: `base` is no base model of `audited`.
        ConfigurationError, UnusableModel: see `fit_ekfac`.
    """
    points = (1.0,) if base is None else POINTS
    scorers = []
    for point in points:
        language = audited if base is None else model_between(base, audited, point)
        factors = build_ekfac(
            language, rows, bundle / FOLDER / _name(point), labels=labels, progress=progress
        )
        scorers.append(EkfacScorer(language, factors))
    index = {
        "points": points,
        "base_weights_sha256": None if base is None else base.fingerprint.weights_sha256,
    }
    (bundle / FOLDER / _INDEX).write_text(json.dumps(index) + "\n", encoding="utf-8")
    return EkfacPath(scorers)


def load_path(base: LanguageModel | None, audited: LanguageModel, bundle: Path) -> EkfacPath | None:
    """The tier stored in a bundle; None where the bundle has none.

    Raises:
        BundleMismatch: a point needs the base model and none is given, or it is another one.
        BundleCorrupt: a file is missing or cannot be read.
    """
    file = bundle / FOLDER / _INDEX
    if not file.is_file():
        return None
    try:
        index = json.loads(file.read_text(encoding="utf-8"))
        points, wanted = [float(point) for point in index["points"]], index["base_weights_sha256"]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise BundleCorrupt(f"{file}: cannot be read: {error}") from error
    given = None if base is None or wanted is None else base.fingerprint.weights_sha256
    if given != wanted:
        raise BundleMismatch(
            f"{bundle}: the full tier was built with the base model of SHA-256 {wanted[:12]}, given {(given or 'none')[:12]}"
        )
    scorers = []
    for point in points:
        language = audited if base is None else model_between(base, audited, point)
        scorers.append(EkfacScorer(language, EkfacFactors.load(bundle / FOLDER / _name(point))))
    return EkfacPath(scorers)


def _name(point: float) -> str:
    return f"point-{point:.2f}"
