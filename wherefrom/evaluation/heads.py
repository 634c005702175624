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
from wherefrom.attribution.bundles.bundle import Bundle
from wherefrom.attribution.effect_score import EffectScoreParts, effect_scores
from wherefrom.attribution.offline import exact_scores
from wherefrom.attribution.progress import Progress, silent
from wherefrom.attribution.query import ReadQuery, ScoredQuery, TokenizedQuery
from wherefrom.attribution.ranking_metrics import Matrix

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


def bm25_scores(bundle: Bundle, queries: Sequence[TokenizedQuery]) -> Matrix:
    """BM25 of every query with every training example, `[Q, N]`."""
    return np.stack([bundle.lexical.scores(one.text) for one in queries])


def similarity_scores(bundle: Bundle, queries: Sequence[ReadQuery]) -> Matrix:
    """Cosine of the hidden states, `[Q, N]`."""
    return np.stack([np.asarray(bundle.pooled @ one.signals.pooled) for one in queries])


def projected_scores(bundle: Bundle, queries: Sequence[ReadQuery]) -> Matrix:
    """The projection's estimate of the influence, `[Q, N]`."""
    return np.stack([np.asarray(bundle.vectors @ one.signals.projected) for one in queries])


def form_scores(bundle: Bundle, queries: Sequence[ReadQuery]) -> dict[str, Matrix]:
    """Scores of a bundle's form by name: every pair exact, and as the projection estimates it."""
    form = bundle.manifest.parameters.form
    found = {
        form: exact_scores(bundle, queries, silent),
        f"{form}, projected": projected_scores(bundle, queries),
    }
    if bundle.final is not None:
        found[f"{form}, final"] = final_scores(bundle, queries)
    if bundle.curvature is None:
        return found
    cosines = [form, f"{form}, projected"]
    return found | {f"{name}, net": net_scores(bundle, queries, found[name]) for name in cosines}


def final_scores(bundle: Bundle, queries: Sequence[ReadQuery]) -> Matrix:
    """Influence by the gradients at the final weights, `[Q, N]`, of a bundle that has them."""
    rows = np.arange(len(bundle.store))
    return np.stack(
        [
            bundle.final.scores(one.signals.final, rows)
            for one in queries
            if bundle.final is not None and one.signals.final is not None
        ]
    )


def net_scores(bundle: Bundle, queries: Sequence[ReadQuery], cosines: Matrix) -> Matrix:
    """Influence without what the rows of the corpus share, as the order shown takes it, `[Q, N]` up to a factor of each query."""
    found = [
        bundle.net_magnitude(row, one.signals.projected, slice(None))
        for one, row in zip(queries, cosines, strict=True)
    ]
    return np.stack(found)


def baseline_scores(bundle: Bundle, queries: Sequence[ReadQuery]) -> dict[str, Matrix]:
    """Scores of what needs no gradient, by name."""
    return {"bm25": bm25_scores(bundle, queries), "similarity": similarity_scores(bundle, queries)}


def stored_influence(projected: Matrix, queries: Sequence[ScoredQuery]) -> Matrix:
    """The influence as an audit has it, `[Q, N]`: exact for the candidates, the projection's estimate for the others."""
    found = projected.copy()
    for row, one in zip(found, queries, strict=True):
        row[one.scores.candidates.rows] = one.scores.influence
    return found


def order_shown(projected: Matrix, queries: Sequence[ScoredQuery]) -> Matrix:
    """The order that an auditor sees, `[Q, N]`: candidates by their fused score, the others behind them in the projection's order."""
    found = projected - np.float32(_BEHIND)
    for row, one in zip(found, queries, strict=True):
        row[one.scores.candidates.rows] = one.scores.shown
    return found


def heads_of(
    attributor: LanguageAttributor, bundle: Bundle, asked: Sequence[ScoredQuery], progress: Progress
) -> Heads:
    """Scores of all heads; `[Q, N]` float32 each, so the corpus should have fewer than about 100,000 examples."""
    heads = heads_without_full_tier(bundle, asked, progress)
    if bundle.full is None:
        return heads
    important = np.empty_like(heads.effect)
    for row, one in enumerate(asked):
        important[row] = _with_full_tier(attributor, one, heads.effect[row])
        progress("full tier", row + 1, len(asked))
    return replace(heads, important=important)


def heads_without_full_tier(bundle: Bundle, asked: Sequence[ScoredQuery], progress: Progress) -> Heads:
    """Scores of all heads that need no EK-FAC."""
    influence, bm25 = exact_scores(bundle, asked, progress), bm25_scores(bundle, asked)
    projected = projected_scores(bundle, asked)
    stored = stored_influence(projected, asked)
    exact, effect = (
        np.stack(
            [effect_over_corpus(bundle, one, *row) for one, *row in zip(asked, cosines, bm25, strict=True)]
        )
        for cosines in (influence, stored)
    )
    return Heads(influence, exact, effect, order_shown(projected, asked), bm25)


def effect_over_corpus(
    bundle: Bundle, query: ReadQuery, cosines: Row, bm25: Row, *, ekfac: Row | None = None
) -> Row:
    """Effect head of one query over the whole corpus, `[N]`; the query's norm is the same for all examples and drops out."""
    parts = EffectScoreParts(
        magnitude=bundle.net_magnitude(cosines, query.signals.projected, slice(None)),
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
