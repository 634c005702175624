"""Private memory of this process: `RssAnon`, pages that are neither of the page cache nor of mapped files."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SAMPLE_S = 0.05
_MIB = 1 << 20


class Highest:
    """The highest `RssAnon` so far, in all and by stage."""

    def __init__(self) -> None:
        self.by_stage: dict[str, int] = {}
        self._stage = "read corpus"

    def __call__(self) -> int:
        """In all, bytes."""
        self.sample()
        return max(self.by_stage.values())

    def sample(self) -> None:
        """Look once."""
        self.by_stage[self._stage] = max(self.by_stage.get(self._stage, 0), private_bytes())

    def enter(self, stage: str, _done: int, _total: int) -> None:
        """What a build tells its progress to."""
        self.sample()
        self._stage = stage

    def mib(self) -> dict[str, int]:
        """By stage."""
        return {stage: round(seen / _MIB) for stage, seen in self.by_stage.items()}


@contextmanager
def highest_private_bytes() -> Iterator[Highest]:
    """Watches the memory of this process within the block."""
    highest, ended = Highest(), threading.Event()

    def sample() -> None:
        while not ended.wait(_SAMPLE_S):
            highest.sample()

    highest.sample()
    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield highest
    finally:
        ended.set()
        thread.join()


def private_bytes() -> int:
    """As it is now."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0
