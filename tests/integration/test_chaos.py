"""The short storm of faults over the whole service, as `python -m benchmarks.chaos --short` raises it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.chaos.run import CLOSING

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.redis
@pytest.mark.timeout(420)
def test_the_short_storm_loses_nothing() -> None:
    """At least 500 accepted and 10 SIGKILLs: nothing lost, doubled or half-written; fenced answers show that the fence was needed."""
    command = [sys.executable, "-m", "benchmarks.chaos", "--short", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert tuple(figures) == CLOSING
    assert figures["accepted"] >= 500
    assert figures["kills"] >= 10
    assert [figures[name] for name in ("lost", "duplicate_citations", "half_written")] == [0, 0, 0]
