"""How often somebody may fail to sign in: a bounded memory of this process, nothing in the database."""

import threading
import time
from collections import OrderedDict, deque

#: Failures with one key's prefix, and from one address, after which further attempts wait; the address may be a proxy's.
FAILURES_OF_KEY, FAILURES_OF_ADDRESS = 5, 60
WINDOW_S = 60.0
#: Keys and addresses that are remembered; the longest known are forgotten first.
_REMEMBERED = 10_000


class SignInLimit:
    """Failures of the last minute. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failures: OrderedDict[tuple[str, str], deque[float]] = OrderedDict()

    def wait_s(self, address: str, prefix: str) -> float:
        """Seconds until another attempt is looked at; 0 where it is now."""
        now = time.monotonic()
        with self._lock:
            return max(self._wait_s(one, most, now) for one, most in _buckets(address, prefix))

    def failed(self, address: str, prefix: str) -> None:
        """Remember a failure."""
        now = time.monotonic()
        with self._lock:
            for bucket, most in _buckets(address, prefix):
                self._failures.setdefault(bucket, deque(maxlen=most)).append(now)
                self._failures.move_to_end(bucket)
            while len(self._failures) > _REMEMBERED:
                self._failures.popitem(last=False)

    def _wait_s(self, bucket: tuple[str, str], most: int, now: float) -> float:
        failures = self._failures.get(bucket) or deque()
        if len(failures) < most:
            return 0.0
        return max(0.0, failures[0] + WINDOW_S - now)


def _buckets(address: str, prefix: str) -> tuple[tuple[tuple[str, str], int], ...]:
    return (
        (("key", f"{address} {prefix[:40]}"), FAILURES_OF_KEY),
        (("address", address), FAILURES_OF_ADDRESS),
    )
