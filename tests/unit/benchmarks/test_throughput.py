"""The rates of the benchmark of throughput."""

from datetime import UTC, datetime, timedelta

import pytest

from benchmarks.throughput import Flood, steady_rate
from wherefrom.errors import ConfigurationError

START = datetime(2026, 11, 27, tzinfo=UTC)


def moments(*, batch: int, every_s: float, batches: int, first_s: float = 0.0) -> list[datetime]:
    """Commits of batches at even intervals, the first one late."""
    return [
        START + timedelta(seconds=first_s + number * every_s)
        for number in range(batches)
        for _ in range(batch)
    ]


@pytest.mark.parametrize("batch", [1, 7, 32])
def test_the_steady_rate_is_that_of_the_middle(batch: int) -> None:
    """Neither the size of a commit nor a late start or end changes it."""
    found = moments(batch=batch, every_s=0.5, batches=50)
    assert steady_rate(found) == pytest.approx(2 * batch)
    late = [START - timedelta(seconds=90), *found, found[-1] + timedelta(seconds=60)]
    assert steady_rate(late) == pytest.approx(2 * batch)


def test_one_commit_has_no_rate() -> None:
    """Everything in one moment."""
    with pytest.raises(ConfigurationError, match="send more"):
        steady_rate(moments(batch=50, every_s=1.0, batches=1))


def test_the_engine_takes_the_same_time_for_the_same_outputs() -> None:
    """Between 5 and 50 ms each, and no output is a poison."""
    flood = Flood("flood-2", 400)
    assert 0.02 < flood.engine_s / flood.count < 0.035
    assert not any("poison" in one["completion"] for one in flood.records())
