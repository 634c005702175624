"""One thing that `doctor` looked at, and its verdict."""

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. A `problem` keeps the service from working; a `warning` may lose or hide something."""

    what: str
    verdict: Verdict
    text: str
