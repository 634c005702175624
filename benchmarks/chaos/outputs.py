"""The flagged outputs of a storm, for those who send them and those who count them."""

import os
from typing import Any

STREAM, HTTP, SPOOL, CLI = "stream", "http", "spool", "cli"
MODEL = "storm@1"
#: The variable that names another model.
MODEL_VARIABLE = "STORM_MODEL"
#: A word of an output that kills its process.
POISON = "poison-now"
#: Of so many outputs of the HTTP producer, the first two of one batch are poisons.
POISON_EVERY, _FIRST_POISON = 2000, 100


def key_of(name: str, number: int) -> str:
    """The idempotency key of an output, from its producer's name."""
    return f"{name}-{number}"


def kind_of(name: str) -> str:
    """The way of a producer: the first part of its name."""
    return name.partition("-")[0]


def is_poison(name: str, number: int) -> bool:
    """Two outputs side by side kill their process."""
    return kind_of(name) == HTTP and number % POISON_EVERY in {_FIRST_POISON, _FIRST_POISON + 1}


def record(name: str, number: int) -> dict[str, Any]:
    """A flagged output."""
    return {
        "idempotency_key": key_of(name, number),
        "prompt": f"question {number}",
        "completion": f"{POISON if is_poison(name, number) else 'answer'} {name} {number}",
        "model": os.environ.get(MODEL_VARIABLE, MODEL),
        "severity": "medium",
    }
