"""What reads bytes from outside refuses broken ones in our own words: the fuzz targets, for a moment and from one seed."""

import random

import pytest

from scripts.fuzz import SEEDS, TARGETS, broken, refuses


@pytest.mark.parametrize("name", TARGETS)
def test_broken_input_is_refused_or_taken(name: str) -> None:
    """Any other error than ours would pass out of here. Some of the input is refused, so the targets are reached."""
    chance = random.Random(2027)
    refused = [refuses(TARGETS[name], data) for data in (*SEEDS, *(broken(chance) for _ in range(150)))]
    assert sum(refused) > 100


def test_a_fault_is_found() -> None:
    """A target that raises something else is no refusal."""
    with pytest.raises(ZeroDivisionError):
        refuses(lambda data: None if data != b"x" else [][1 // 0], b"x")
