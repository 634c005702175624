"""From the scores of all candidates to what is handed over: ranked citations with their evidence, opponents, and what the calibration says of the whole.

A group of outputs has citations like a single output, with each member's own influence beside them. What is fitted or read on single outputs says nothing of a group: its answers have no
confidence, no effect in nats, no p-value, and no words that carry them (the members' own answers have).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wherefrom.attribution.bundles.bundle import Bundle
from wherefrom.attribution.bundles.learned import not_supported
from wherefrom.attribution.calibration.judging import CitationFeatures, Judge, Judgement, PredictedEffects
from wherefrom.attribution.explanation.passage import Passage
from wherefrom.attribution.explanation.spans import Evidence, Explainer
from wherefrom.attribution.output_group import ScoredGroup, member_influence
from wherefrom.attribution.query import CandidateScores, ScoredQuery
from wherefrom.attribution.retrieval.index import Rows
from wherefrom.attribution.retrieval.small_vector import small_vector
from wherefrom.records import (
    Attribution,
    CitationDraft,
    ModulePart,
    Tier,
    TrainingExample,
    carried_by,
)
from wherefrom.records.bounds import MAX_ALIKE

#: A citation's rank and its place among the candidates.
_Ranked = tuple[int, int]


@dataclass(frozen=True)
class _Beside:
    """What stands beside the scores of the ranked candidates, in their order."""

    evidence: Sequence[Evidence]
    modules: Sequence[tuple[ModulePart, ...]]
    judgement: Judgement
    effects: PredictedEffects | None = None
    members: Sequence[tuple[float, ...]] | None = None


class Citer:
    """Makes the answers of one bundle."""

    def __init__(self, bundle: Bundle, judge: Judge) -> None:
        self._bundle = bundle
        self._judge = judge
        self._explainer = Explainer(bundle.language.renderer, bundle.store, bundle.shown)

    def cite(self, query: ScoredQuery | ScoredGroup, *, top_k: int, opponents: int) -> Attribution:
        """The answer to one query.

        Args:
            query: with its candidates.
            top_k: citations, best first in the order shown.
            opponents: at most so many candidates of negative influence that are not among them, strongest first.
        """
        rows, noise = query.scores.candidates.rows, query.scores.noise
        ranked = _ranked(query.scores, top_k, opponents)
        examples = self._bundle.texts.read([int(rows[place]) for _, place in ranked])
        if isinstance(query, ScoredGroup):
            beside = self._of_group(query, ranked)
        else:
            beside = self._of_output(query, ranked, examples, top_k=top_k)
        return Attribution(
            key=query.asked.key,
            citations=tuple(self._drafts(query.scores, ranked, examples, beside)),
            tokens=query.signals.tokens,
            truncated=query.truncated,
            loss_nats=query.signals.loss,
            candidates=len(rows),
            conformal_p=beside.judgement.conformal_p,
            novelty_p=beside.judgement.novelty_p,
            abstained=beside.judgement.abstained,
            noise_level=None if noise is None else noise.level,
            noise_best=None if noise is None else noise.best,
            weak=None if noise is None else noise.is_weak(float(query.scores.influence.max())),
            vector=None if isinstance(query, ScoredGroup) else small_vector(query.signals.pooled),
            members=query.described() if isinstance(query, ScoredGroup) else (),
            against=len(query.against) if isinstance(query, ScoredGroup) else 0,
        )

    def _drafts(
        self,
        scores: CandidateScores,
        ranked: Sequence[_Ranked],
        examples: Sequence[TrainingExample],
        beside: _Beside,
    ) -> list[CitationDraft]:
        alike = self._alike([int(scores.candidates.rows[place]) for _, place in ranked])
        return [
            CitationDraft(
                rank=rank,
                example=example,
                tier=Tier.INFLUENCE,
                score=float(scores.shown[place]),
                retrieval_score=float(scores.retrieval[place]),
                influence_score=float(scores.influence[place]),
                sign_determined=None
                if scores.noise is None
                else scores.noise.determines(float(scores.influence[place])),
                influence_magnitude=float(scores.magnitude[place]),
                bm25_score=float(scores.candidates.bm25[place]),
                similarity_score=float(scores.similarity[place]),
                encoder_score=None if scores.encoder is None else float(scores.encoder[place]),
                effect_score=float(scores.effect[place]),
                ekfac_score=None if scores.ekfac is None else float(scores.ekfac[place]),
                spans=beside.evidence[at].spans,
                overlaps=beside.evidence[at].overlaps,
                modules=beside.modules[at],
                carried_by=carried_by(beside.modules[at], float(scores.influence[place])),
                confidence=beside.judgement.confidence.get(place) if rank > 0 else None,
                effect_nats=None if beside.effects is None else beside.effects.nats[place],
                effect_basis=None if beside.effects is None else beside.effects.basis,
                duplicates=self._judge.duplicates(int(scores.candidates.rows[place])),
                alike=alike[at],
                member_influence=() if beside.members is None else beside.members[at],
            )
            for at, ((rank, place), example) in enumerate(zip(ranked, examples, strict=True))
        ]

    def _alike(self, rows: Sequence[int]) -> list[tuple[str, ...]]:
        """Ids of the first near-duplicates of each cited training example."""
        members = [self._judge.alike(row, most=MAX_ALIKE) for row in rows]
        wanted = sorted({row for found in members for row in found})
        ids = {row: one.example_id for row, one in zip(wanted, self._bundle.texts.read(wanted), strict=True)}
        return [tuple(ids[row] for row in found) for found in members]

    def _of_output(
        self,
        query: ScoredQuery,
        ranked: Sequence[_Ranked],
        examples: Sequence[TrainingExample],
        *,
        top_k: int,
    ) -> _Beside:
        influence = query.scores.influence
        return _Beside(
            evidence=self._evidence(query, examples, [float(influence[place]) for _, place in ranked]),
            modules=self._modules(query, ranked),
            judgement=self._judgement(self._judge.look(query, count=top_k)),
            # the scale was fitted on losses, not on the difference to an acceptable answer
            effects=None if query.preferred is not None else self._judge.effects(influence),
        )

    def _of_group(self, group: ScoredGroup, ranked: Sequence[_Ranked]) -> _Beside:
        rows = group.scores.candidates.rows[[place for _, place in ranked]]
        return _Beside(
            evidence=[Evidence((), ())] * len(ranked),
            modules=self._modules(group, ranked),
            judgement=self._judgement(None),
            members=member_influence(group, self._bundle, rows),
        )

    def _modules(
        self, query: ScoredQuery | ScoredGroup, ranked: Sequence[_Ranked]
    ) -> list[tuple[ModulePart, ...]]:
        """What each part of the model adds to the influence of each citation; nothing where the form cannot say."""
        if self._bundle.modules is None:
            return [()] * len(ranked)
        rows: Rows = query.scores.candidates.rows[[place for _, place in ranked]]
        return self._bundle.modules.of(query.signals.factors, float(query.signals.norm), rows)

    def _judgement(self, judged: CitationFeatures | None) -> Judgement:
        """What the calibration says; nothing is supported where the model has not learned the corpus."""
        reason = self._bundle.manifest.corpus.not_learned
        if reason is None and judged is not None:
            return self._judge.judge(judged)
        abstained = None if reason is None else not_supported(reason)
        return Judgement(conformal_p=None, novelty_p=None, abstained=abstained, confidence={})

    def _evidence(
        self, query: ScoredQuery, examples: Sequence[TrainingExample], signs: Sequence[float]
    ) -> list[Evidence]:
        """Spans and overlaps of each cited training example."""
        completion = query.asked.completion
        ranges = self._bundle.language.renderer.ranges(completion, query.row, chat=bool(query.asked.turns))
        read = self._bundle.reader.reads(query.row)
        explained = [one for one, flag in zip(ranges, read, strict=True) if flag]
        output = Passage(completion, explained)
        return self._explainer.explain(query.signals.of_completion(), output, examples, signs=signs)


def _ranked(scores: CandidateScores, top_k: int, opponents: int) -> list[_Ranked]:
    """Citations by the order shown, then opponents, strongest first; equal scores in the order of the corpus."""
    rows = scores.candidates.rows
    shown = np.lexsort((rows, -scores.shown))[:top_k].tolist()
    kept = set(shown)
    against = [
        place
        for place in np.lexsort((rows, scores.influence)).tolist()
        if scores.influence[place] < 0 and place not in kept
    ]
    found = list(enumerate(shown, start=1))
    return found + [(-rank, place) for rank, place in enumerate(against[:opponents], start=1)]
