"""The engine: flagged outputs in, ranked citations out, over one opened bundle.

One pass over a packed batch, then per query: whiten, project, candidates, exact kernel, fusion, evidence. Nothing here knows a queue or a database.

A query with an acceptable answer p beside its completion c is measured by loss(c) - loss(p). The kernel is bilinear in (a, b) of the tokens, so the
tokens of c with b and those of p with -b stand behind each other as one query: k(q, z) = k(c, z) - k(p, z).
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from wherefrom.attribution.batching import pack_queries
from wherefrom.attribution.bundles.bundle import Bundle
from wherefrom.attribution.bundles.entries import library_versions
from wherefrom.attribution.bundles.indexes import driver_of
from wherefrom.attribution.calibration.fitted import Calibration
from wherefrom.attribution.calibration.judging import CitationFeatures, Judge
from wherefrom.attribution.citing import Citer
from wherefrom.attribution.effect_score import EffectScoreParts, effect_scores
from wherefrom.attribution.ekfac.path import PathScores
from wherefrom.attribution.factors import Factors
from wherefrom.attribution.fusion import ShownParts, fuse
from wherefrom.attribution.groups import read_groups
from wherefrom.attribution.interface import OverLong, PreparedQuery
from wherefrom.attribution.kernel import cosines, kernel_norms
from wherefrom.attribution.memory import memory_errors
from wherefrom.attribution.models.render import TokenRow
from wherefrom.attribution.models.signals import Signals
from wherefrom.attribution.noise import Noise, sampled_rows, spread_of
from wherefrom.attribution.output_group import (
    PASS_TOKENS,
    ReadGroup,
    ScoredGroup,
    TokenizedGroup,
    joined_group,
)
from wherefrom.attribution.query import (
    CandidateScores,
    QuerySignals,
    ReadQuery,
    ScoredQuery,
    TokenizedQuery,
    contrast,
    contrast_rows,
)
from wherefrom.attribution.retrieval.candidates import Candidates, Sought, find_candidates
from wherefrom.attribution.retrieval.index import Rows
from wherefrom.attribution.what_if import checked_rows, score_list
from wherefrom.errors import ConfigurationError, InvalidRecord, UnusableModel
from wherefrom.records import Attribution, ListScore, Query, QueryGroup
from wherefrom.spans import span

#: Told of a calibration that does not say its rows.
NOT_TIED = "an earlier release fitted the calibration and did not write on which training examples; calibrate again to have them compared"


class LanguageAttributor:
    """Attributes flagged outputs of one model to its training corpus."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._reader = bundle.reader
        calibration = Calibration.load(bundle.path)
        calibration.check_form(bundle.manifest.parameters.form)
        #: What whoever opens the bundle should read; None where there is nothing.
        self.note = None if calibration.check_corpus(bundle.manifest.fitted_on) else NOT_TIED
        self._judge = Judge(
            calibration,
            texts=bundle.texts,
            lexical=bundle.lexical,
            groups=read_groups(bundle.path, len(bundle.store)),
        )
        #: Projected vectors of evenly spaced examples, in which an output's noise is read.
        self._sampled = np.array(bundle.vectors[sampled_rows(len(bundle.store))])
        self._citer = Citer(bundle, self._judge)

    @property
    def bundle_name(self) -> str:
        """Content name of the bundle."""
        return self._bundle.manifest.name

    def computes_with(self) -> dict[str, str | int]:
        """See `DescribedAttributor.computes_with`."""
        language = self._bundle.language
        return {
            **library_versions(driver_of(self._bundle.manifest)),
            "device": language.device.type,
            "dtype": str(language.dtype).removeprefix("torch."),
            "threads": torch.get_num_threads(),
        }

    def prepare_group(self, group: QueryGroup, *, max_tokens: int, over_long: OverLong) -> TokenizedGroup:
        """See `GroupAttributor.prepare_group`."""
        members, against = (
            tuple(self.prepare(one, max_tokens=max_tokens, over_long=over_long) for one in some)
            for some in (group.members, group.against)
        )
        return TokenizedGroup(group, members, against)

    def prepare(self, query: Query, *, max_tokens: int, over_long: OverLong) -> TokenizedQuery:
        """See `Attributor.prepare`."""
        limit = min(max_tokens, self._bundle.language.max_positions)
        row = self._bundle.language.renderer.render(
            query.turns,
            query.completion,
            max_tokens=limit,
            over_long=over_long,
            plain=query.plain_prompt,
            spans=query.spans,
            token_ids=query.token_ids,
            context=query.context,
            name=f"query {query.key}",
        )
        return TokenizedQuery(query, row, self._preferred(query, row, max_tokens=limit, over_long=over_long))

    def _preferred(
        self, query: Query, row: TokenRow, *, max_tokens: int, over_long: OverLong
    ) -> TokenRow | None:
        if query.preferred is None:
            return None
        preferred = self._bundle.language.renderer.render(
            query.turns,
            query.preferred,
            max_tokens=max_tokens,
            over_long=over_long,
            context=query.context,
            plain=query.plain_prompt,
            name=f"acceptable answer of query {query.key}",
        )
        if query.preferred == query.completion or preferred.ids == row.ids:
            cut = f" within the limit of {max_tokens} tokens" if row.truncated else ""
            raise InvalidRecord(
                f"query {query.key}: `preferred` equals the completion{cut}, so there is no difference to explain; "
                "give another answer or none"
            )
        return preferred

    def attribute(
        self, prepared: Sequence[PreparedQuery], *, top_k: int, opponents: int
    ) -> list[Attribution]:
        """See `Attributor.attribute`."""
        with memory_errors(f"a batch of {len(prepared)} queries"):
            return self._attribute(prepared, top_k=top_k, opponents=opponents)

    def _attribute(
        self, prepared: Sequence[PreparedQuery], *, top_k: int, opponents: int
    ) -> list[Attribution]:
        groups = [one for one in prepared if isinstance(one, TokenizedGroup)]
        outputs = [one for one in prepared if not isinstance(one, TokenizedGroup)]
        joined, read = map(self.read_group, groups), iter(self.signals(outputs) if outputs else [])
        answers = []
        for one in prepared:
            scored = (
                self.score_group(next(joined)) if isinstance(one, TokenizedGroup) else self.score(next(read))
            )
            with span("judge"):
                answers.append(self._citer.cite(scored, top_k=top_k, opponents=opponents))
        return answers

    def score_list(self, prepared: Sequence[PreparedQuery], rows: Sequence[int]) -> list[ListScore]:
        """See `ListAttributor.score_list`."""
        wanted, curve = checked_rows(rows, len(self._bundle.store)), self._judge.calibration.effects
        found: dict[int, ListScore] = {}
        queries = [_own(one) for one in prepared]
        for batch in pack_queries(queries, PASS_TOKENS):
            with memory_errors(f"a list of {len(wanted)} training examples"):
                read = self._signals([queries[place] for place in batch])
                scores = [score_list(self._bundle, one, wanted, curve=curve) for one in read]
            found.update(zip(batch, scores, strict=True))
        return [found[place] for place in range(len(queries))]

    def read_group(self, group: TokenizedGroup) -> ReadGroup:
        """Run the members of a group through the model, and their acceptable answers, in passes of bounded size.

        Raises:
            OutOfMemory: a pass did not fit.
            UnusableModel: a value is no number.
        """
        read: dict[int, ReadQuery] = {}
        for batch in pack_queries(group.queries, PASS_TOKENS):
            read.update(zip(batch, self.signals([group.queries[place] for place in batch]), strict=True))
        return joined_group(group, [read[place] for place in range(len(read))], self._bundle)

    def signals(self, prepared: Sequence[PreparedQuery]) -> list[ReadQuery]:
        """Run one packed batch through the model and project it.

        Raises:
            OutOfMemory: the batch did not fit.
            UnusableModel: a value is no number.
        """
        with memory_errors(f"a batch of {len(prepared)} queries"), span("pass", queries=len(prepared)):
            return self._signals(prepared)

    def _signals(self, prepared: Sequence[PreparedQuery]) -> list[ReadQuery]:
        queries = [_own(query) for query in prepared]
        contrasted = [query.preferred for query in queries if query.preferred is not None]
        read = self._reader.read([query.row for query in queries] + contrasted)
        if not read.finite:
            raise UnusableModel(
                "the model's states or losses of an output are not finite, so nothing can be compared with them"
            )
        whole = Factors(*self._bundle.whitener.apply(read.a, read.b), read.lengths)
        with_answer = [query.preferred is not None for query in queries]
        factors = contrast(whole, with_answer)
        final = self._final(read, with_answer)
        norms = kernel_norms(factors)
        projected = self._bundle.projection.apply(factors, norms).cpu().numpy()
        pooled = self._bundle.pooling.apply(read.pooled[: len(queries)]).cpu().numpy()
        encoder = self._bundle.encoded
        encoded = None if encoder is None else encoder.encoder.embed([query.text for query in queries])
        return [
            query.with_signals(
                QuerySignals(
                    factors=one,
                    norm=norms[index],
                    projected=projected[index],
                    pooled=pooled[index],
                    encoded=None if encoded is None else encoded[index],
                    loss=float(read.loss[index]),
                    final=None if final is None else final[index],
                    tokens=query.row.explained_tokens,
                    read_tokens=read.lengths[index],
                )
            )
            for index, (query, one) in enumerate(zip(queries, factors.rows(), strict=True))
        ]

    def _final(self, read: Signals, with_answer: Sequence[bool]) -> Tensor | None:
        """Whitened sketches `[Q, M D]` of the gradients at the final weights, where the bundle has them."""
        if self._bundle.final is None or read.final is None:
            return None
        return contrast_rows(self._bundle.final.whitened(read.final), with_answer)

    def score(self, query: ReadQuery, *, count: int | None = None) -> ScoredQuery:
        """Find candidates of one query and score them exactly.

        Args:
            query: as `signals` gives it.
            count: number of candidates; the bundle's own where None.
        """
        return query.with_scores(self._scores(query, count))

    def score_group(self, group: ReadGroup, *, count: int | None = None) -> ScoredGroup:
        """As `score`, of a group."""
        return group.with_scores(self._scores(group, count))

    def _scores(self, query: ReadQuery | ReadGroup, count: int | None) -> CandidateScores:
        signals = query.signals
        with span("candidates"):
            found = find_candidates(
                Sought(signals.projected, signals.pooled, query.texts, signals.encoded),
                self._bundle.indexes,
                count=count or self._bundle.manifest.parameters.candidates,
            )
        with span("rerank", candidates=len(found.rows)):
            return self._reranked(query, found)

    def _reranked(self, query: ReadQuery | ReadGroup, candidates: Candidates) -> CandidateScores:
        bundle, signals, rows = self._bundle, query.signals, candidates.rows
        magnitude = bundle.store.scores(signals.factors, rows)[0].numpy()
        influence = cosines(magnitude, float(signals.norm), bundle.store.norms[rows])
        net = bundle.net_magnitude(influence, signals.projected, rows)
        similarity = bundle.pooled[rows] @ signals.pooled
        lengths = bundle.store.lengths(rows)
        near = None
        if bundle.encoded is not None and signals.encoded is not None:
            near = bundle.encoded.vectors[rows] @ signals.encoded
        final = None
        if bundle.final is not None and signals.final is not None:
            final = bundle.final.scores(signals.final, rows)
        full = self._full_tier(query, rows) if isinstance(query, ReadQuery) else None
        parts = EffectScoreParts(
            magnitude=net,
            tokens=lengths,
            bm25=candidates.bm25,
            ekfac=None if full is None else full.balanced[0].numpy(),
        )
        retrieval = bundle.vectors[rows] @ signals.projected
        ordered = influence if bundle.curvature is None else net
        return CandidateScores(
            candidates=candidates,
            influence=influence,
            magnitude=magnitude,
            net=net * float(signals.norm),
            retrieval=retrieval,
            similarity=similarity,
            encoder=near,
            final=final,
            shown=fuse(
                ShownParts(ordered, candidates.bm25, similarity, lengths, near, final), bundle.weights
            ),
            effect=effect_scores(parts, midpoint=bundle.manifest.parameters.midpoint),
            ekfac=None if full is None else full.cosine[0].numpy(),
            noise=Noise.of(
                self._sampled @ signals.projected,
                examples=len(bundle.store),
                error=spread_of(influence - retrieval),
            ),
        )

    def _full_tier(self, query: ReadQuery, rows: Rows) -> PathScores | None:
        """EK-FAC of an important query with its candidates; not of a difference between two answers."""
        if self._bundle.full is None or not query.asked.important or query.preferred is not None:
            return None
        return self._bundle.full.candidate_scores([query.row], self._bundle.tokens.read(rows), rows)

    def judged(self, query: ScoredQuery, *, count: int) -> CitationFeatures:
        """What the calibration looks at; see `Judge.look`."""
        return self._judge.look(query, count=count)


def _own(query: PreparedQuery) -> TokenizedQuery:
    if not isinstance(query, TokenizedQuery):
        raise ConfigurationError(f"a query was prepared by another engine, as {type(query).__name__}")
    return query
