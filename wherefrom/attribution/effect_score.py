r"""The effect head: which training examples would change the output's loss if they were left out, in one score without a unit.

    effect(q, z) = std_z( k(q, z) / sqrt(T_z) ) + w std_z( BM25(q, z) )        std_z: zero mean, unit variance over the candidates

k is the exact kernel (one or two points of the fine-tune), T_z the example's explained tokens: a training step divides an example's summed gradient by
the tokens of its batch, so long examples weigh less per token than their kernel says; the square root served best between the kernel itself and its mean
per token. BM25 enters with a small weight: rare words that two rows share are evidence of an effect that few gradient features see. Weights were fitted on
teacher queries of a small model with 64 retrained copies (docs/experiments.md). The order shown to an auditor is another head (`fusion`): it answers what
taught this kind of output. Whether a score is large enough to be believed is the calibration's business.

References:
    arXiv:2303.14186 (the linear datamodelling score that the weights were fitted to).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wherefrom.attribution.fusion import Scores, standardise

#: Weight of BM25 beside the kernel at the final weights alone, and beside the kernel of both points.
BM25_WEIGHT = 0.3
BM25_WEIGHT_MIDPOINT = 0.1
#: Weight of EK-FAC over all linear layers, where it was computed.
EKFAC_WEIGHT = 3.0


@dataclass(frozen=True)
class EffectScoreParts:
    """What the effect head adds up, arrays `[C]` over the candidates of one query."""

    #: Exact kernel, inner product.
    magnitude: Scores
    #: Explained tokens of each candidate.
    tokens: npt.NDArray[np.int64]
    bm25: Scores
    #: EK-FAC scores of any one scale, where the full tier ran.
    ekfac: Scores | None = None


def effect_scores(parts: EffectScoreParts, *, midpoint: bool) -> Scores:
    """Effect head of each candidate, `[C]`; positive = the output became more likely by this example, compared with the other candidates."""
    kernel = standardise((parts.magnitude / np.sqrt(np.maximum(parts.tokens, 1))).astype(np.float32))
    weight = BM25_WEIGHT_MIDPOINT if midpoint else BM25_WEIGHT
    total = kernel + weight * standardise(parts.bm25)
    if parts.ekfac is not None:
        total = total + EKFAC_WEIGHT * standardise(parts.ekfac)
    head: Scores = total.astype(np.float32)
    return head
