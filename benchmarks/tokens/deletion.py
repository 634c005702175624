"""Rows without some of their tokens, and what the fall of a score says: parts of `benchmarks.tokens`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from wherefrom.attribution.models.ranges import Range
from wherefrom.attribution.models.render import TokenRow
from wherefrom.evaluation.estimates import middle, resampled
from wherefrom.records import Span

_BOOTSTRAPS = 1000
_SEED = 11


def touches(found: Range, spans: Sequence[Span]) -> bool:
    """Whether a token's characters lie in one of the spans in part."""
    return any(found[0] < span.end and found[1] > span.start for span in spans)


def without(row: TokenRow, places: npt.NDArray[np.int64]) -> TokenRow:
    """The row with some completion tokens left out."""
    gone = set(places.tolist())
    kept = [place for place in range(row.completion_tokens) if place not in gone]
    ids = (*row.ids[: row.start], *(row.ids[row.start + place] for place in kept))
    return TokenRow(ids, row.start, tuple(row.explained[place] for place in kept))


def replaced(row: TokenRow, places: npt.NDArray[np.int64], filler: int) -> TokenRow:
    """The row with some completion tokens replaced; the filler is no answer that the model learns."""
    ids, explained = list(row.ids), list(row.explained)
    for place in places.tolist():
        ids[row.start + place] = filler
        explained[place] = False
    return TokenRow(tuple(ids), row.start, tuple(explained))


def summary(falls: npt.NDArray[np.float64]) -> dict[str, Any]:
    """Median ratio with its interval over queries, and how often the named tokens weigh more.

    Args:
        falls: `[C, 3]`: number of the query, fall for the named tokens, mean fall for random ones.
    """
    ratios = np.full(len(falls), np.inf)
    np.divide(falls[:, 1], falls[:, 2], out=ratios, where=falls[:, 2] > 0)
    ratios[(falls[:, 2] <= 0) & (falls[:, 1] <= falls[:, 2])] = 0.0
    medians, shares = [], []
    for drawn in resampled(falls[:, 0].tolist(), resamples=_BOOTSTRAPS, seed=_SEED):
        medians.append(np.median(ratios[drawn]))
        shares.append(np.mean(falls[drawn, 1] > falls[drawn, 2]))
    return {
        "median_ratio": float(np.median(ratios)),
        "median_ratio_95": [float(one) for one in np.quantile(medians, [0.025, 0.975], method="nearest")],
        "named_over_random": float(np.mean(falls[:, 1] > falls[:, 2])),
        "named_over_random_95": list(middle(shares)),
        "median_fall_named": float(np.median(falls[:, 1])),
        "median_fall_random": float(np.median(falls[:, 2])),
        "random_raises_score": float(np.mean(falls[:, 2] <= 0)),
    }
