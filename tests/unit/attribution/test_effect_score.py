"""The effect head."""

import numpy as np
import pytest

from wherefrom.attribution.effect_score import (
    BM25_WEIGHT,
    BM25_WEIGHT_MIDPOINT,
    EKFAC_WEIGHT,
    EffectScoreParts,
    effect_scores,
)
from wherefrom.attribution.fusion import Scores


def parts(*, ekfac: bool = False) -> EffectScoreParts:
    """Six candidates with scores of different sizes."""
    generator = np.random.default_rng(3)

    def scores(scale: float) -> Scores:
        drawn: Scores = (scale * generator.standard_normal(6)).astype(np.float32)
        return drawn

    return EffectScoreParts(
        magnitude=scores(1e4),
        tokens=np.array([4, 9, 16, 25, 1, 36]),
        bm25=scores(12.0),
        ekfac=scores(1e-3) if ekfac else None,
    )


@pytest.mark.parametrize("midpoint", [False, True])
@pytest.mark.parametrize("ekfac", [False, True])
def test_against_a_plain_loop(midpoint: bool, ekfac: bool) -> None:
    """Standardised kernel over the root of the length, plus weighted standardised parts."""
    one = parts(ekfac=ekfac)

    def standard(values: list[float]) -> list[float]:
        mean = sum(values) / len(values)
        spread = (sum((value - mean) ** 2 for value in values) / len(values)) ** 0.5
        return [(value - mean) / spread for value in values]

    kernel = standard([k / t**0.5 for k, t in zip(one.magnitude.tolist(), one.tokens.tolist(), strict=True)])
    words = standard(one.bm25.tolist())
    weight = BM25_WEIGHT_MIDPOINT if midpoint else BM25_WEIGHT
    expected = [k + weight * w for k, w in zip(kernel, words, strict=True)]
    if one.ekfac is not None:
        full = standard(one.ekfac.tolist())
        expected = [e + EKFAC_WEIGHT * f for e, f in zip(expected, full, strict=True)]
    np.testing.assert_allclose(effect_scores(one, midpoint=midpoint), expected, rtol=1e-4, atol=1e-5)


def test_a_part_without_variation_adds_nothing() -> None:
    """BM25 that knows no word of the query leaves the kernel's order."""
    one = parts()
    silent = EffectScoreParts(one.magnitude, one.tokens, np.zeros(6, dtype=np.float32))
    order = np.argsort(one.magnitude / np.sqrt(one.tokens))
    assert np.argsort(effect_scores(silent, midpoint=False)).tolist() == order.tolist()
