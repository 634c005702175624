"""A working engine without a model: word overlap. For tests of the rooms around the engine, never for audits.

It keeps the contract of `Attributor` (order, sign rule, errors), needs no torch and answers in microseconds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from wherefrom.attribution.interface import OverLong, PreparedQuery
from wherefrom.errors import ConfigurationError, EmptyCompletion, OutputTooLong
from wherefrom.records import Attribution, CitationDraft, Query, Tier, TrainingExample


@dataclass(frozen=True)
class PreparedWords:
    """The words of one query."""

    key: str
    words: tuple[str, ...]
    truncated: bool

    @property
    def tokens(self) -> int:
        """Number of words."""
        return len(self.words)

    @property
    def completion_tokens(self) -> int:
        """The same: there is no prompt."""
        return len(self.words)


class OverlapAttributor:
    """Cites the training examples that share the most words with the completion (Jaccard index)."""

    def __init__(self, bundle_name: str, examples: Sequence[TrainingExample]) -> None:
        self._bundle_name = bundle_name
        self._examples = tuple(examples)
        self._words = [frozenset(one.completion.lower().split()) for one in self._examples]

    @property
    def bundle_name(self) -> str:
        """Name given at construction."""
        return self._bundle_name

    def prepare(self, query: Query, *, max_tokens: int, over_long: OverLong) -> PreparedWords:
        """Split the completion into words."""
        words = tuple(query.completion.lower().split())
        if not words:
            raise EmptyCompletion(f"query {query.key}: the completion has no words")
        if len(words) > max_tokens and over_long == "reject":
            raise OutputTooLong(f"query {query.key}: {len(words)} words, the limit is {max_tokens}")
        return PreparedWords(query.key, words[:max_tokens], truncated=len(words) > max_tokens)

    def attribute(
        self, prepared: Sequence[PreparedQuery], *, top_k: int, opponents: int
    ) -> list[Attribution]:
        """Rank all examples by word overlap; this measure has no opponents."""
        del opponents
        return [self._one(query, top_k) for query in prepared]

    def _one(self, query: PreparedQuery, top_k: int) -> Attribution:
        if not isinstance(query, PreparedWords):
            raise ConfigurationError(f"query {query.key} was prepared by another engine")
        words = frozenset(query.words)
        scores = [len(words & other) / max(1, len(words | other)) for other in self._words]
        order = sorted(range(len(scores)), key=lambda row: (-scores[row], row))[:top_k]
        citations = tuple(
            CitationDraft(
                rank=rank,
                example=self._examples[row],
                tier=Tier.RETRIEVED,
                score=scores[row],
                retrieval_score=scores[row],
                influence_score=None,
                influence_magnitude=None,
                bm25_score=0.0,
                similarity_score=scores[row],
            )
            for rank, row in enumerate(order, start=1)
        )
        return Attribution(
            key=query.key,
            citations=citations,
            tokens=len(query.words),
            truncated=query.truncated,
            loss_nats=0.0,
            candidates=len(scores),
        )
