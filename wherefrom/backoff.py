"""How long to wait before the next attempt: doubling, capped, jittered."""

import random


def backoff_seconds(attempt: int, *, base_s: float, cap_s: float, jitter: float | None = None) -> float:
    """Seconds to wait after failure number `attempt` (1, 2, ...).

    Args:
        attempt: How many attempts have failed; 1 after the first.
        base_s: Wait after the first failure; doubles with each further one.
        cap_s: Longest wait.
        jitter: Number in [0, 1) that spreads the wait over its upper half, so that what failed together does not come
            back together; random where none is given.
    """
    doublings = min(attempt - 1, 62)  # 2**62 seconds is beyond any cap, and floats stay finite
    whole = min(cap_s, base_s * 2.0**doublings)
    spread = random.random() if jitter is None else jitter  # noqa: S311 - spreads load, guards nothing
    return whole * (0.5 + spread / 2)
