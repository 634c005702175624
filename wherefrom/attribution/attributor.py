"""The engine: flagged outputs in, ranked citations out, over one opened bundle.

One pass over a packed batch, then per query: whiten, project, candidates, exact kernel, fusion. Nothing here knows a queue or a database.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wherefrom.attribution.bundle import Bundle
from wherefrom.attribution.candidates import Candidates, find_candidates
from wherefrom.attribution.factors import Factors
from wherefrom.attribution.fusion import Scores, fuse
from wherefrom.attribution.interface import OverLong, PreparedQuery
from wherefrom.attribution.kernel import kernel_norms, kernel_scores
from wherefrom.attribution.render import TokenRow
from wherefrom.attribution.signals import SignalReader
from wherefrom.errors import ConfigurationError, OutOfMemory
from wherefrom.records import Attribution, CitationDraft, Query, Role, Tier


@dataclass(frozen=True)
class PreparedTokens:
    """A query as tokens, with its text for BM25."""

    key: str
    row: TokenRow
    text: str

    @property
    def tokens(self) -> int:
        """Tokens of prompt and completion."""
        return len(self.row.ids)


@dataclass(frozen=True)
class QuerySignals:
    """What the first stage needs of one query."""

    key: str
    text: str
    factors: Factors
    norm: Tensor  # scalar
    projected: Scores  # [P]
    pooled: Scores  # [D]
    loss: float
    tokens: int
    truncated: bool


@dataclass(frozen=True)
class CandidateScores:
    """All parts of the score of each candidate, arrays `[C]`."""

    candidates: Candidates
    influence: Scores
    magnitude: Scores
    retrieval: Scores
    similarity: Scores
    shown: Scores


class LanguageAttributor:
    """Attributes flagged outputs of one model to its training corpus."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        parameters = bundle.manifest.parameters
        self._reader = SignalReader(
            bundle.language,
            form=parameters.form,
            layers=parameters.layers,
            similarity_layer=parameters.similarity_layer,
        )

    @property
    def bundle_name(self) -> str:
        """Content name of the bundle."""
        return self._bundle.manifest.name

    def prepare(self, query: Query, *, max_tokens: int, over_long: OverLong) -> PreparedTokens:
        """See `Attributor.prepare`."""
        row = self._bundle.language.renderer.render(
            query.turns,
            query.completion,
            max_tokens=min(max_tokens, self._bundle.language.max_positions),
            over_long=over_long,
            spans=query.spans,
            token_ids=query.token_ids,
            name=f"query {query.key}",
        )
        prompt = "\n".join(turn.content for turn in query.turns if turn.role is not Role.SYSTEM)
        return PreparedTokens(query.key, row, f"{prompt}\n{query.completion}")

    def attribute(
        self, prepared: Sequence[PreparedQuery], *, top_k: int, opponents: int
    ) -> list[Attribution]:
        """See `Attributor.attribute`."""
        return [
            self._cite(query, self.score(query), top_k=top_k, opponents=opponents)
            for query in self.signals(prepared)
        ]

    def signals(self, prepared: Sequence[PreparedQuery]) -> list[QuerySignals]:
        """Run one packed batch through the model and project it.

        Raises:
            OutOfMemory: the batch did not fit.
        """
        queries = [_own(query) for query in prepared]
        with _memory_errors(len(queries)):
            read = self._reader.read([query.row for query in queries])
        joint = self._bundle.manifest.parameters.form == "forward"
        factors = Factors(*self._bundle.whitener.apply(read.a, read.b, joint=joint), read.lengths)
        norms = kernel_norms(factors)
        projected = self._bundle.projection.apply(factors, norms).numpy()
        pooled = torch.nn.functional.normalize(read.pooled - self._bundle.pooled_centre, dim=1).numpy()
        return [
            QuerySignals(
                key=query.key,
                text=query.text,
                factors=one,
                norm=norms[index],
                projected=projected[index],
                pooled=pooled[index],
                loss=float(read.loss[index]),
                tokens=read.lengths[index],
                truncated=query.row.truncated,
            )
            for index, (query, one) in enumerate(zip(queries, factors.rows(), strict=True))
        ]

    def score(self, query: QuerySignals, *, count: int | None = None) -> CandidateScores:
        """Find candidates of one query and score them exactly.

        Args:
            query: as `signals` gives it.
            count: number of candidates; the bundle's own where None.
        """
        bundle = self._bundle
        candidates = find_candidates(
            query.projected,
            query.pooled,
            query.text,
            index=bundle.index,
            similarity=bundle.similarity,
            lexical=bundle.lexical,
            count=count or bundle.manifest.parameters.candidates,
        )
        rows = candidates.rows
        magnitude = kernel_scores(query.factors, bundle.store.gather(rows))[0].numpy()
        influence = magnitude / np.maximum(float(query.norm) * bundle.store.norms[rows], 1e-20)
        similarity = bundle.pooled[rows] @ query.pooled
        return CandidateScores(
            candidates=candidates,
            influence=influence,
            magnitude=magnitude,
            retrieval=bundle.vectors[rows] @ query.projected,
            similarity=similarity,
            shown=fuse(influence, candidates.bm25, similarity, bundle.weights),
        )

    def _cite(
        self, query: QuerySignals, scores: CandidateScores, *, top_k: int, opponents: int
    ) -> Attribution:
        rows = scores.candidates.rows
        shown = np.lexsort((rows, -scores.shown))[:top_k]
        kept = set(shown.tolist())
        against = [
            place
            for place in np.lexsort((rows, scores.influence)).tolist()
            if scores.influence[place] < 0 and place not in kept
        ]
        ranked = list(enumerate(shown.tolist(), start=1))
        ranked += [(-rank, place) for rank, place in enumerate(against[:opponents], start=1)]
        examples = self._bundle.texts.read([int(rows[place]) for _, place in ranked])
        citations = tuple(
            CitationDraft(
                rank=rank,
                example=example,
                tier=Tier.INFLUENCE,
                score=float(scores.shown[place]),
                retrieval_score=float(scores.retrieval[place]),
                influence_score=float(scores.influence[place]),
                influence_magnitude=float(scores.magnitude[place]),
                bm25_score=float(scores.candidates.bm25[place]),
                similarity_score=float(scores.similarity[place]),
            )
            for (rank, place), example in zip(ranked, examples, strict=True)
        )
        return Attribution(
            key=query.key,
            citations=citations,
            tokens=query.tokens,
            truncated=query.truncated,
            loss_nats=query.loss,
            candidates=len(rows),
        )


def _own(query: PreparedQuery) -> PreparedTokens:
    if not isinstance(query, PreparedTokens):
        raise ConfigurationError(f"query {query.key} was prepared by another engine")
    return query


@contextmanager
def _memory_errors(count: int) -> Iterator[None]:
    """Torch reports a failed allocation on the CPU as a plain RuntimeError."""
    try:
        yield
    except MemoryError as error:
        raise OutOfMemory(f"a batch of {count} queries did not fit into memory") from error
    except RuntimeError as error:
        if "memory" in str(error).lower():
            raise OutOfMemory(f"a batch of {count} queries did not fit into memory") from error
        raise
