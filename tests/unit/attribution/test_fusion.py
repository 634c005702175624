"""Standardising and fusing scores."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from wherefrom.attribution.fusion import FusionWeights, fuse, standardise

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


def test_fuse() -> None:
    """The weighted mean of the standardised parts; the weights' scale does not matter."""
    one, two, three = np.array([[1, 2, 3], [0, 0, 6], [5, 5, 5]], dtype=np.float32)
    fused = fuse(one, two, three, FusionWeights(1, 3, 4))
    np.testing.assert_allclose(fused, (standardise(one) + 3 * standardise(two)) / 8, rtol=1e-6)
    np.testing.assert_allclose(fused, fuse(one, two, three, FusionWeights(2, 6, 8)), rtol=1e-6)
    np.testing.assert_allclose(fuse(one, two, three, FusionWeights(1, 0, 0)), standardise(one), rtol=1e-6)
