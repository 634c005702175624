"""Says what a benchmark ran on, and prints its closing JSON line."""

import json
import subprocess
import sys
from typing import Any

from wherefrom.evaluation.material import machine


def describe() -> dict[str, Any]:
    """Processor, cores, load, Python, main libraries and the commit."""
    return machine() | {"commit": _commit()}


def report(lines: list[str]) -> None:
    """Print lines for people."""
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def finish(result: dict[str, Any], *, as_json: bool) -> None:
    """End with one JSON line where it was asked for."""
    if as_json:
        report([json.dumps(result)])


def _commit() -> str:
    try:
        done = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()
