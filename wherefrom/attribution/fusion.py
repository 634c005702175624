"""The order shown to an auditor: influence, BM25 and similarity, standardised over a query's candidates and added with weights.

Two questions have different best answers: what would change if this example went (influence: best for measured effects), and
what taught this kind of output (similarity and BM25: best for tracing a source). The order shown fuses both; every part is stored
beside it, and the parts are never merged into a claim about an effect.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.float32]


@dataclass(frozen=True)
class FusionWeights:
    """Weights of the standardised parts; their scale does not matter, only their ratio."""

    influence: float = 1.0
    bm25: float = 3.0
    similarity: float = 2.0


def standardise(scores: Scores) -> Scores:
    """Zero mean and unit variance over one query's candidates; all zeros where the scores do not vary."""
    exact = scores.astype(np.float64)  # in float32 equal scores differ from their own mean
    spread = float(exact.std())
    if spread <= 1e-12 * float(np.abs(exact).max()):
        return np.zeros_like(scores)
    standard: Scores = ((exact - exact.mean()) / spread).astype(np.float32)
    return standard


def fuse(influence: Scores, bm25: Scores, similarity: Scores, weights: FusionWeights) -> Scores:
    """Fused score of each candidate, `[C]`; larger = shown earlier."""
    total = weights.influence + weights.bm25 + weights.similarity
    fused: Scores = (
        weights.influence * standardise(influence)
        + weights.bm25 * standardise(bm25)
        + weights.similarity * standardise(similarity)
    ) / total
    return fused
