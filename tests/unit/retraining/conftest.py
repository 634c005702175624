"""A small corpus of random rows and a recipe of a few steps."""

import pytest

from tests.tiny import random_row
from wherefrom.attribution.models.render import TokenRow
from wherefrom.retraining.recipe import Recipe


@pytest.fixture
def rows() -> list[TokenRow]:
    """A corpus."""
    return [random_row(4 + number % 3, 3 + number % 5, seed=number) for number in range(24)]


@pytest.fixture
def queries() -> list[TokenRow]:
    """Queries that are not in the corpus."""
    return [random_row(5, 6, seed=100 + number) for number in range(4)]


@pytest.fixture
def recipe() -> Recipe:
    """Six steps: two epochs of three batches."""
    return Recipe(learning_rate=3e-3, batch_size=8, epochs=2, bucket_batches=2)
