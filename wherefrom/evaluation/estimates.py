"""Measured values with their 95 % bootstrap intervals."""

from collections.abc import Callable, Sequence
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


def bootstrap(
    measure: Callable[[Places], float], groups: Sequence[Any], *, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of a measure when whole groups are drawn with replacement.

    Args:
        measure: of the chosen places (with repetitions), int64.
        groups: group of each place; distinct groups make a plain bootstrap.
        seed: of the generator.
    """
    names = list(dict.fromkeys(groups))
    members: dict[Any, list[int]] = {name: [] for name in names}
    for place, name in enumerate(groups):
        members[name].append(place)
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(RESAMPLES):
        drawn = generator.integers(0, len(names), len(names)).tolist()
        found.append(
            measure(np.array([place for one in drawn for place in members[names[one]]], dtype=np.int64))
        )
    return middle(found)


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


def middle(values: Sequence[float]) -> tuple[float, float]:
    """The middle 95 % of resampled values."""
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
