"""The flagged outputs of a storm, for those who send them and those who count them."""

import hashlib
import os
from typing import Any

from wherefrom.messages import FLAGGED_STREAM

STREAM, HTTP, SPOOL, CLI = "stream", "http", "spool", "cli"
MODEL = "storm@1"
#: Prefix of the service's keys in Redis, and the stream below it.
KEY_PREFIX = "storm:"
FLAGGED = KEY_PREFIX + FLAGGED_STREAM
#: The variable that names another model.
MODEL_VARIABLE = "STORM_MODEL"
#: A word of an output that kills its process.
POISON = "poison-now"
#: Of so many outputs of the HTTP producer, the first two of one batch are poisons.
POISON_EVERY, _FIRST_POISON = 2000, 100
#: Shortest and longest time that the answer to one output takes, seconds.
FAST_S, SLOW_S = 0.005, 0.050


def key_of(name: str, number: int) -> str:
    """The idempotency key of an output, from its producer's name."""
    return f"{name}-{number}"


def kind_of(name: str) -> str:
    """The way of a producer: the first part of its name."""
    return name.partition("-")[0]


def is_poison(name: str, number: int) -> bool:
    """Two outputs side by side kill their process."""
    return kind_of(name) == HTTP and number % POISON_EVERY in {_FIRST_POISON, _FIRST_POISON + 1}


def number_of(completion: str) -> int:
    """What decides the cost and the citations of an output: the same for every attempt and every storm."""
    return int.from_bytes(hashlib.sha256(completion.encode()).digest()[:8], "big")


def seconds_of(number: int) -> float:
    """The time that the answer to an output takes, from `number_of`."""
    return FAST_S + (SLOW_S - FAST_S) * (number % 1000) / 999


def record(name: str, number: int) -> dict[str, Any]:
    """A flagged output."""
    return {
        "idempotency_key": key_of(name, number),
        "prompt": f"question {number}",
        "completion": f"{POISON if is_poison(name, number) else 'answer'} {name} {number}",
        "model": os.environ.get(MODEL_VARIABLE, MODEL),
        "severity": "medium",
    }
