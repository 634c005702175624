"""The order shown to an auditor: influence, BM25, similarity and, where the bundle has one, a sentence encoder, standardised over a query's candidates and added.

    shown(q, z) = sum_p w_p std_z( s_p(q, z) ) / sum_p w_p  -  c ( ln T_z - mean ln T )        T_z: explained tokens of the example

Two questions have different best answers: what would change if this example went (influence: best for measured effects), and
what taught this kind of output (similarity, BM25 and the encoder: best for tracing a source). The order shown fuses both; every part is stored
beside it, and the parts are never merged into a claim about an effect. The last term takes out what a score gains by an example's length alone. Weights were
chosen on teacher queries (docs/experiments.md).

The first by BM25 stands among the ten shown, at the last place if need be: a cause written in look-alike letters is first by its words (`retrieval.folding`) and nowhere by
the model's states, and would drown in the sum.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wherefrom.attribution.models.reading import BundleForm, reads_adapter

Scores = npt.NDArray[np.float32]

#: Places among which the first by BM25 stands.
PLACES = 10


@dataclass(frozen=True)
class FusionWeights:
    """Weights of the standardised parts; their scale does not matter, only their ratio. `length` is what a factor e in tokens costs."""

    influence: float = 1.0
    bm25: float = 3.0
    similarity: float = 2.0
    encoder: float = 3.0
    length: float = 0.2
    #: Of the gradients at the final weights, where the bundle has them.
    final: float = 0.0


#: Of the forms that read an adapter: influence finds both the source and the effect, and words beside it find the reworded facts. Chosen on the choosing half of
#: the deep bank (docs/quality/deep-model.md): without and with the gradients at the final weights.
HALF_WAY_WEIGHTS = FusionWeights(influence=1.0, bm25=0.5, similarity=0.0)
ADAPTER_WEIGHTS = FusionWeights(influence=1.0, bm25=0.6, similarity=0.0, final=0.75)


def default_weights(form: BundleForm, *, final: bool) -> FusionWeights:
    """Weights of a form where nobody chose others; `final`: whether it reads gradients at the final weights."""
    if not reads_adapter(form):
        return FusionWeights()
    return ADAPTER_WEIGHTS if final else HALF_WAY_WEIGHTS


@dataclass(frozen=True)
class ShownParts:
    """What the order shown adds up, arrays `[C]` over the candidates of one query."""

    influence: Scores
    bm25: Scores
    similarity: Scores
    #: Explained tokens of each candidate.
    tokens: npt.NDArray[np.int64]
    #: Cosine of the sentence encoder, where the bundle has one.
    encoder: Scores | None = None
    #: Influence by the gradients at the final weights, where the bundle has them.
    final: Scores | None = None


def standardise(scores: Scores) -> Scores:
    """Zero mean and unit variance over one query's candidates; all zeros where the scores do not vary."""
    exact = scores.astype(np.float64)  # in float32 equal scores differ from their own mean
    spread = float(exact.std())
    if spread <= 1e-12 * float(np.abs(exact).max()):
        return np.zeros_like(scores)
    standard: Scores = ((exact - exact.mean()) / spread).astype(np.float32)
    return standard


def fuse(parts: ShownParts, weights: FusionWeights) -> Scores:
    """Fused score of each candidate, `[C]`; larger = shown earlier."""
    weighted = [
        (weights.influence, parts.influence),
        (weights.bm25, parts.bm25),
        (weights.similarity, parts.similarity),
    ]
    if parts.encoder is not None:
        weighted.append((weights.encoder, parts.encoder))
    if parts.final is not None:
        weighted.append((weights.final, parts.final))
    total = sum(weight for weight, _ in weighted)
    mean = sum(weight * standardise(scores) for weight, scores in weighted) / total
    length = np.log(np.maximum(parts.tokens, 1))
    fused: Scores = (mean - weights.length * (length - length.mean())).astype(np.float32)
    return _with_first_by_words(fused, parts.bm25) if weights.bm25 > 0 else fused


def _with_first_by_words(fused: Scores, bm25: Scores) -> Scores:
    """The fused scores with the first by BM25 raised to just below the ninth best, where it stands lower."""
    if len(fused) <= PLACES or float(bm25.max()) <= float(bm25.min()):
        return fused
    first = int(np.argmax(bm25))
    raised = fused.copy()
    before = np.sort(fused)[1 - PLACES]
    raised[first] = max(fused[first], np.nextafter(before, np.float32(-np.inf)))
    return raised
