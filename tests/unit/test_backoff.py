"""The wait between attempts."""

from hypothesis import given
from hypothesis import strategies as st

from wherefrom.backoff import backoff_seconds


@given(st.integers(min_value=1, max_value=100_000), st.floats(min_value=0, max_value=1, exclude_max=True))
def test_the_wait_stays_between_half_and_whole_of_its_cap(attempt, jitter):
    """However many attempts failed, nobody waits longer than the cap, and nobody comes back at once."""
    wait = backoff_seconds(attempt, base_s=2, cap_s=300, jitter=jitter)
    assert 1 <= wait <= 300


def test_the_wait_doubles():
    """Each failure doubles the wait until the cap."""
    assert [backoff_seconds(n, base_s=2, cap_s=12, jitter=0) for n in (1, 2, 3, 4, 5)] == [1, 2, 4, 6, 6]


def test_random_jitter_stays_in_range():
    """Without a given jitter the wait is spread over its upper half."""
    assert all(1 <= backoff_seconds(1, base_s=2, cap_s=300) < 2 for _ in range(100))
