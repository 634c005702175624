"""The slope of a soak: it finds growth and is not fooled by noise."""

import os

import numpy as np
import pytest

from benchmarks.soak import BLOCKS, Watch, figures, figures_of, slope_of
from wherefrom.errors import ConfigurationError

SECONDS = 1800.0


def looks(*, per_hour: float, noise: float, seed: int = 0) -> list[tuple[float, float]]:
    """Values of a process that is looked at every five seconds."""
    at = np.arange(0.0, SECONDS, 5.0)
    values = 100.0 + per_hour * at / 3600 + np.random.default_rng(seed).normal(scale=noise, size=len(at))
    return list(zip(at.tolist(), values.tolist(), strict=True))


def test_the_interval_holds_the_slope() -> None:
    """In about 95 of 100 runs."""
    found = [slope_of(looks(per_hour=20.0, noise=5.0, seed=seed)) for seed in range(200)]
    inside = sum(low <= 20.0 <= high for _, low, high in found)
    assert 180 <= inside <= 199
    assert np.mean([slope for slope, _, _ in found]) == pytest.approx(20.0, abs=0.7)


@pytest.mark.parametrize(("per_hour", "grows"), [(0.0, False), (10.0, False), (60.0, True)])
def test_growth_is_told_beyond_what_is_allowed(per_hour: float, *, grows: bool) -> None:
    """Nothing, a little that the allocator may keep, and a leak of 30 MB in half an hour; a step in the warm-up counts for nothing."""
    watch = Watch()
    for at, value in looks(per_hour=per_hour, noise=1.0):
        memory = value if at > 300 else 20.0
        watch.seen["web"].append((at, {"memory_mb": memory, "files": 9.0, "sockets": 3.0, "threads": 4.0}))
    found = figures(watch, seconds=SECONDS)
    assert bool(found["grows"]) == grows
    assert found["processes"]["web"]["files"]["per_hour"] == 0.0


def test_too_few_looks_are_refused() -> None:
    """A slope needs a look for each block."""
    with pytest.raises(ConfigurationError, match="let it run longer"):
        slope_of([(0.0, 1.0)] * (BLOCKS - 1))


def test_a_process_is_looked_at_and_one_that_is_gone_is_not() -> None:
    """This process has memory, files and a thread."""
    found = figures_of(os.getpid())
    assert found is not None
    assert found["memory_mb"] > 10
    assert found["threads"] >= 1
    assert figures_of(2**22 + 1) is None
