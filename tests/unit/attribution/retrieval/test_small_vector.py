"""The small vector keeps the cosine, fits its bound, and is the same every time."""

import numpy as np
import pytest

from wherefrom.attribution.retrieval.small_vector import small_vector
from wherefrom.records.bounds import MAX_VECTOR_BYTES


@pytest.mark.parametrize(("width", "close"), [(64, 0.01), (256, 0.01), (512, 0.01), (4096, 0.15)])
def test_the_cosine_is_kept(width: int, close: float) -> None:
    """int8 loses little; the projection of a wide vector loses what theory says (about 3 / sqrt(512))."""
    generator = np.random.default_rng(0)
    vectors = generator.standard_normal((20, width)).astype(np.float32)
    vectors[1] = vectors[0] + 0.3 * vectors[1]
    made = [small_vector(one) for one in vectors]
    assert made == [small_vector(one) for one in vectors]
    assert all(one is not None and len(one) == min(width, MAX_VECTOR_BYTES) for one in made)
    small = np.array([np.frombuffer(one or b"", dtype=np.int8) for one in made], dtype=np.float32)

    def cosines(rows: np.ndarray) -> np.ndarray:
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return unit @ unit.T

    assert np.abs(cosines(small) - cosines(vectors)).max() < close


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_no_direction_no_vector(value: float) -> None:
    """Zeros and what is not finite give none."""
    assert small_vector(np.full(8, value, dtype=np.float32)) is None
