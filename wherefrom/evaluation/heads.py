r"""Scores of every query with every training example, by each head of the engine, for comparison with measured truth.

    exact(q, z)    = effect head with every pair scored exactly
    effect(q, z)   = effect head as an audit has it: exact kernel for the candidates, the projection's estimate of it for the others
    shown(q, z)    = order shown for the candidates; the others stand behind them in the projection's order
    important(q,z) = effect head with EK-FAC on the candidates; the others get what a least-squares line through the candidates says of `effect`

The heads standardise within a query, so over the corpus they are computed as `wherefrom.attribution.effect_score` does over the candidates.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from wherefrom.attribution.attributor import LanguageAttributor
from wherefrom.attribution.batching import pack_queries
from wherefrom.attribution.bundles.build import Progress
from wherefrom.attribution.bundles.bundle import Bundle
from wherefrom.attribution.effect_score import EffectScoreParts, effect_scores
from wherefrom.attribution.offline import BATCH_TOKENS, exact_scores, prepare_all
from wherefrom.attribution.query import ScoredQuery
from wherefrom.attribution.ranking_metrics import Matrix
from wherefrom.records import Query

Row = npt.NDArray[np.float32]
#: Puts all scores of examples that are no candidates behind those of candidates.
_BEHIND = 1e3


@dataclass(frozen=True, eq=False)
class Heads:
    """Scores `[Q, N]`, positive = proponent."""

    #: Kernel cosine of every pair.
    influence: Matrix
    exact: Matrix
    effect: Matrix
    shown: Matrix
    bm25: Matrix
    #: None in a bundle without the full tier.
    important: Matrix | None = None

    def judged(self) -> dict[str, Matrix]:
        """The heads that are measured, by name."""
        named = {
            "effect": self.effect,
            "effect, every pair exact": self.exact,
            "order shown": self.shown,
            "BM25 alone": self.bm25,
        }
        return named if self.important is None else named | {"effect, important audits": self.important}


def ask(
    attributor: LanguageAttributor, queries: Sequence[Query], *, max_tokens: int, progress: Progress
) -> list[ScoredQuery]:
    """Send queries through search and scoring; acceptable answers are left aside, because banks hold losses of the completion.

    Raises:
        PermanentError: a query cannot be attributed.
    """
    plain = [query.model_copy(update={"preferred": None}) for query in queries]
    prepared = prepare_all(attributor, plain, max_tokens=max_tokens, over_long="truncate")
    found: dict[int, ScoredQuery] = {}
    for batch in pack_queries(prepared, BATCH_TOKENS):
        read = attributor.signals([prepared[index] for index in batch])
        found.update(zip(batch, map(attributor.score, read), strict=True))
        progress("ask", len(found), len(prepared))
    return [found[index] for index in range(len(prepared))]


def heads_of(
    attributor: LanguageAttributor, bundle: Bundle, asked: Sequence[ScoredQuery], progress: Progress
) -> Heads:
    """Scores of all heads; `[Q, N]` float32 each, so the corpus should have fewer than about 100,000 examples."""
    influence = exact_scores(bundle, asked, progress)
    exact, effect, shown, bm25 = (np.empty_like(influence) for _ in range(4))
    important = None if bundle.full is None else np.empty_like(influence)
    for row, one in enumerate(asked):
        chosen = one.scores.candidates.rows
        bm25[row] = bundle.lexical.scores(one.text)
        projected = np.asarray(bundle.vectors @ one.signals.projected)
        exact[row] = effect_over_corpus(bundle, influence[row], bm25[row])
        guessed = projected.copy()
        guessed[chosen] = one.scores.influence
        effect[row] = effect_over_corpus(bundle, guessed, bm25[row])
        shown[row] = projected - _BEHIND
        shown[row, chosen] = one.scores.shown
        if important is not None:
            important[row] = _with_full_tier(attributor, one, effect[row])
            progress("full tier", row + 1, len(asked))
    return Heads(influence, exact, effect, shown, bm25, important)


def effect_over_corpus(bundle: Bundle, cosines: Row, bm25: Row, *, ekfac: Row | None = None) -> Row:
    """Effect head of one query over the whole corpus, `[N]`; the query's norm is the same for all examples and drops out."""
    parts = EffectScoreParts(
        magnitude=cosines * bundle.store.norms,
        tokens=bundle.store.lengths(np.arange(len(bundle.store))),
        bm25=bm25,
        ekfac=ekfac,
    )
    return effect_scores(parts, midpoint=bundle.manifest.parameters.midpoint)


def _with_full_tier(attributor: LanguageAttributor, query: ScoredQuery, kernel: Row) -> Row:
    important = query.asked.model_copy(update={"important": True})
    scored = attributor.score(replace(query, asked=important)).scores
    chosen = scored.candidates.rows
    flat = float(np.ptp(kernel[chosen])) == 0.0  # a corpus of one row, or of copies
    slope, offset = (0.0, scored.effect.mean()) if flat else np.polyfit(kernel[chosen], scored.effect, 1)
    filled: Row = (slope * kernel + offset).astype(np.float32)
    filled[chosen] = scored.effect
    return filled
