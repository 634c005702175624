r"""How far stated probabilities and scores can be trusted: reliability bins with their calibration error, and AUROC.

    ECE = sum_b (n_b / n) |mean stated probability of bin b - share of bin b that came true|

over bins of equally many citations in the order of the stated probability (Naeini et al. 2015, with equal counts), so that no bin is too small to be
judged. AUROC = P(score of a positive > score of a negative), ties count half (Mann and Whitney).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wherefrom.attribution.ranking_metrics import ranks

Values = npt.NDArray[np.float64]

#: Fewest citations in a bin.
BIN_CITATIONS = 100


@dataclass(frozen=True)
class Bin:
    """Citations with similar stated probabilities."""

    count: int
    #: Mean stated probability.
    stated: float
    #: Share that came true.
    realised: float


def reliability_bins(
    stated: Values, came_true: npt.NDArray[np.bool_], *, smallest: int = BIN_CITATIONS, most: int = 15
) -> list[Bin]:
    """Bins of equal counts, lowest stated probability first; equal probabilities may fall into two bins.

    Args:
        stated: `[N]` probabilities.
        came_true: `[N]`.
        smallest: fewest members of a bin (one bin holds all where there are not enough).
        most: most bins.
    """
    order = np.argsort(stated, kind="stable")
    bins = max(1, min(most, len(order) // smallest))
    return [
        Bin(len(part), float(stated[part].mean()), float(came_true[part].mean()))
        for part in np.array_split(order, bins)
        if len(part)
    ]


def calibration_error(bins: list[Bin]) -> float:
    """ECE of bins, [0, 1]."""
    count = sum(one.count for one in bins)
    return sum(one.count * abs(one.stated - one.realised) for one in bins) / count


def auroc(positives: Values, negatives: Values) -> float:
    """Chance that a positive scores above a negative; nan where one of them is empty."""
    if not len(positives) or not len(negatives):
        return float("nan")
    ranked = ranks(np.concatenate([positives, negatives]))[: len(positives)]
    above = ranked.sum() - len(positives) * (len(positives) + 1) / 2
    return float(above / (len(positives) * len(negatives)))
