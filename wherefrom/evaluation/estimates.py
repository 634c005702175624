"""Measured values with their 95 % bootstrap intervals."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]

RESAMPLES = 300
_DIGITS = 5


@dataclass(frozen=True)
class Estimate:
    """One figure of the card."""

    value: float
    #: 2.5 % and 97.5 % quantile of the resamples; None where nothing was resampled.
    interval: tuple[float, float] | None
    #: How many were measured, and what they are.
    count: int
    unit: str
    #: The material it was made of.
    made_of: str
    note: str | None = None

    @property
    def finite(self) -> bool:
        """Whether value and interval are numbers that JSON has a form for."""
        return all(map(math.isfinite, (self.value, *(self.interval or ()))))

    def to_json(self) -> dict[str, Any]:
        """As the card holds it."""
        content: dict[str, Any] = {
            "value": round(self.value, _DIGITS),
            "interval": None if self.interval is None else [round(one, _DIGITS) for one in self.interval],
            "n": self.count,
            "of": self.unit,
            "made_of": self.made_of,
        }
        return content if self.note is None else content | {"note": self.note}


def resampled(groups: Sequence[Any], *, resamples: int = RESAMPLES, seed: int = 0) -> Iterator[Places]:
    """Places of whole groups that are drawn with replacement, int64 with repetitions, once for each resample.

    Args:
        groups: group of each place; distinct groups make a plain bootstrap.
        resamples: how often is drawn.
        seed: of the generator.
    """
    names = list(dict.fromkeys(groups))
    members: dict[Any, list[int]] = {name: [] for name in names}
    for place, name in enumerate(groups):
        members[name].append(place)
    of_group = [np.array(members[name], dtype=np.int64) for name in names]
    generator = np.random.default_rng(seed)
    for _ in range(resamples):
        yield np.concatenate([of_group[one] for one in generator.integers(0, len(names), len(names))])


def resampled_together(
    first: int, second: int, *, resamples: int = RESAMPLES, seed: int = 0
) -> Iterator[tuple[Places, Places]]:
    """Places of two kinds of things, such as retrained models and queries, drawn with replacement in each resample."""
    generator = np.random.default_rng(seed)
    for _ in range(resamples):
        yield generator.integers(0, first, first), generator.integers(0, second, second)


def bootstrap(
    measure: Callable[[Places], float], groups: Sequence[Any], *, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of a measure of the drawn places; see `resampled`."""
    return middle([measure(places) for places in resampled(groups, resamples=resamples, seed=seed)])


def mean_and_interval(
    values: npt.NDArray[Any], *, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float, float]:
    """Mean of one number for each query with its 95 % interval: (mean, low, high); NaN where there is none."""
    if not len(values):
        return float("nan"), float("nan"), float("nan")
    drawn = np.random.default_rng(seed).integers(len(values), size=(resamples, len(values)))
    return (float(values.mean()), *middle(values[drawn].mean(axis=1)))


def mean_of(
    values: npt.NDArray[Any],
    unit: str,
    made_of: str,
    *,
    groups: Sequence[Any] | None = None,
    note: str | None = None,
) -> Estimate:
    """Mean of one number per output, resampled over outputs or their groups.

    Raises:
        ValueError: there are no values.
    """
    if not len(values):
        raise ValueError("no values to take the mean of")
    plain = np.asarray(values, dtype=np.float64)
    drawn = bootstrap(lambda places: float(plain[places].mean()), groups or range(len(plain)))
    return Estimate(float(plain.mean()), drawn, len(plain), unit, made_of, note)


def middle(values: Sequence[float] | npt.NDArray[np.float64]) -> tuple[float, float]:
    """The middle 95 % of resampled values."""
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
