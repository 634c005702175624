"""A prediction says whether it can be told from nothing."""

import pytest

from wherefrom.records.what_if import differs


@pytest.mark.parametrize(
    ("chance", "low", "high", "told"),
    [
        (0.4, -0.01, 0.03, False),
        (0.4, 0.01, 0.03, True),
        (0.005, -0.03, -0.01, True),
        (0.005, 0.0, 0.03, False),
        (0.005, None, None, True),
        (0.025, None, None, True),
        (0.026, None, None, False),
        (1.0, None, None, True),
        (None, None, None, None),
    ],
)
def test_what_can_be_told_from_nothing(
    chance: float | None, low: float | None, high: float | None, *, told: bool | None
) -> None:
    """By its range in nats where there is one, else by how many random lists score as high, or as low."""
    assert differs(chance=chance, low_nats=low, high_nats=high) is told
