"""Standardising and fusing scores."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from wherefrom.attribution.fusion import FusionWeights, ShownParts, fuse, standardise

scores = arrays(np.float32, st.integers(1, 30), elements=st.floats(-100, 100, width=32))


@given(scores)
def test_standardise(values: np.ndarray) -> None:
    """Zero mean and unit variance, or all zeros where nothing varies; the order stays."""
    standard = standardise(values)
    assert np.isfinite(standard).all()
    if standard.any():
        assert float(standard.std()) == pytest.approx(1.0, abs=1e-2)
        assert float(standard.mean()) == pytest.approx(0.0, abs=1e-2)
        assert (np.diff(standard[np.argsort(values, kind="stable")]) >= -1e-6).all()


ONE, TWO, THREE, FOUR = np.array([[1, 2, 3], [0, 0, 6], [5, 5, 5], [9, 1, 1]], dtype=np.float32)
SAME = np.full(3, 7, dtype=np.int64)


def test_fuse() -> None:
    """The weighted mean of the standardised parts; the weights' scale does not matter; without an encoder its weight does not count."""
    parts = ShownParts(ONE, TWO, THREE, SAME)
    fused = fuse(parts, FusionWeights(1, 3, 4))
    np.testing.assert_allclose(fused, (standardise(ONE) + 3 * standardise(TWO)) / 8, rtol=1e-6)
    np.testing.assert_allclose(fused, fuse(parts, FusionWeights(2, 6, 8)), rtol=1e-6)
    np.testing.assert_allclose(fuse(parts, FusionWeights(1, 0, 0)), standardise(ONE), rtol=1e-6)


def test_encoder_counts_where_there_is_one() -> None:
    """A fourth part with a weight of its own."""
    fused = fuse(ShownParts(ONE, TWO, THREE, SAME, FOUR), FusionWeights(1, 0, 0, encoder=3))
    np.testing.assert_allclose(fused, (standardise(ONE) + 3 * standardise(FOUR)) / 4, rtol=1e-6)


def test_length_is_taken_out() -> None:
    """An example e times as long stands `length` lower; scores that grow with the logarithm of the length lose it."""
    tokens = np.array([10, 10, 27], dtype=np.int64)
    level = fuse(ShownParts(THREE, THREE, THREE, tokens), FusionWeights(1, 1, 1, length=0.5))
    assert level[0] - level[2] == pytest.approx(0.5 * np.log(2.7), abs=1e-6)
    assert level.mean() == pytest.approx(0.0, abs=1e-6)
    assert not fuse(ShownParts(THREE, THREE, THREE, SAME), FusionWeights()).any()


columns = st.integers(11, 40).flatmap(
    lambda count: st.tuples(
        *(arrays(np.float32, count, elements=st.floats(-50, 50, width=16), unique=True) for _ in range(3))
    )
)


@given(columns)
def test_the_first_by_words_is_among_ten(values: tuple[np.ndarray, ...]) -> None:
    """It is shown whatever the others say; the nine best by the sum keep their places, and nobody else's score changes."""
    influence, bm25, similarity = values
    tokens = np.full(len(influence), 7, dtype=np.int64)
    found = fuse(ShownParts(influence, bm25, similarity, tokens), FusionWeights())
    plain = (standardise(influence) + 3 * standardise(bm25) + 2 * standardise(similarity)) / 6
    first = int(np.argmax(bm25))
    assert first in np.argsort(-found, kind="stable")[:10]
    np.testing.assert_allclose(np.sort(found)[::-1][:9], np.sort(plain)[::-1][:9], atol=1e-5)
    np.testing.assert_allclose(np.delete(found, first), np.delete(plain, first), atol=1e-5)
    assert found[first] >= plain[first] - 1e-5


def test_words_without_weight_or_without_opinion_raise_nobody() -> None:
    """BM25 is not asked where it weighs nothing, nor where all its scores are the same."""
    rising, tokens = np.arange(20, dtype=np.float32), np.full(20, 7, dtype=np.int64)
    for words, weight in ((rising[::-1].copy(), 0), (np.zeros(20, dtype=np.float32), 3)):
        found = fuse(ShownParts(rising, words, rising, tokens), FusionWeights(1, weight, 0))
        assert np.argsort(-found, kind="stable").tolist() == list(range(19, -1, -1))
