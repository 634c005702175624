"""A measured effect of one row on one query, and what many of them come to."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.deep_bank.signs import share
from wherefrom.retraining.effects import normal_z, t_quantile

#: An effect stands out from this z on.
OUT_Z = 1.96


@dataclass(frozen=True)
class Effect:
    """What leaving one row out did to one query, beyond what is usual for rows; its interval leaves 0 out where abs(z) > 1.96."""

    nats: float
    low: float
    high: float
    z: float


def effect_by_t(nats: float, error: float, freedom: int) -> Effect:
    """An effect with the interval, and the z, of a t-test."""
    half = t_quantile(freedom) * error
    return Effect(nats, nats - half, nats + half, math.copysign(normal_z(abs(nats), error, freedom), nats))


def summary(effects: Sequence[Effect]) -> dict[str, Any]:
    """How many stand out, and their signs."""
    out = [one for one in effects if abs(one.z) > OUT_Z]
    return {
        "n": len(effects),
        "stand_out": share([one.z > OUT_Z for one in effects]),
        "either_way": len(out),
        "positive_of_those": share([one.nats > 0 for one in out]),
        "positive": share([one.nats > 0 for one in effects]),
        "median_nats": float(np.median([one.nats for one in effects])) if effects else None,
    }
