"""Models, rows and queries of `benchmarks.deep_bank.proxies`, drawn the same way every time."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path

from benchmarks.deep_bank.proxies.material import Outputs, draw_evenly, read_outputs, verbatim_causes
from benchmarks.deep_bank.proxies.refits import RECIPE, RefitPlan
from benchmarks.deep_bank.proxies.scores import Scoring
from wherefrom.attribution.corpus import CorpusRow, read_corpus
from wherefrom.attribution.models.files import ModelFolders
from wherefrom.attribution.models.model import LanguageModel, load_model
from wherefrom.attribution.models.render import TokenRow
from wherefrom.attribution.models.trajectory import load_halfway
from wherefrom.retraining.training import token_rows

#: Rows of the agreement, rows of the refits (four per source of ten), held-out rows and flagged outputs that the refits ask about.
AGREEMENT_ROWS, REFIT_ROWS, HELD_OUT, FLAGGED = 200, 40, 20, 12
#: Rows and outputs of the agreement are cut here.
MAX_TOKENS = 64
#: Longest row of the refits, tokens.
REFIT_TOKENS = 54


@dataclass(frozen=True)
class ScoringSet:
    """Rows to score, in words and tokens belonging together by number."""

    examples: list[CorpusRow]
    queries: list[CorpusRow]


class Setting:
    """Everything that the parts share; models are loaded when they are first needed."""

    def __init__(self, *, model: Path, adapter: Path, corpus: Path, queries: Path, work: Path) -> None:
        self._model_dir, self._adapter_dir = model, adapter
        self.work = work
        self.corpus: Sequence[CorpusRow] = read_corpus(corpus).rows
        self.outputs: Outputs = read_outputs(queries)

    @cached_property
    def base(self) -> LanguageModel:
        """The base model."""
        return load_model(self._model_dir)

    def load_point(self, adapter: Path, point: str) -> LanguageModel:
        """The model with an adapter (`final`), or the model half-way to it (`half`)."""
        final = load_model(self._model_dir, adapter)
        if point == "final":
            return final
        return load_halfway(final, ModelFolders(self._model_dir, adapter))

    def agreement_scoring(self) -> Scoring:
        """Scores of the agreement's rows for all outputs, at the model under test."""
        scoring_set, _ = self.agreement()
        rows, queries = (
            token_rows(self.base, part, max_tokens=MAX_TOKENS)
            for part in (scoring_set.examples, scoring_set.queries)
        )
        return self._scoring("agreement", scoring_set, (rows, queries), self._adapter_dir)

    def refit_scoring(self) -> Scoring:
        """Scores of the refits' rows for their queries, at the model of the run with all rows."""
        scoring_set, plan = self.refits()
        adapter = self.work / "refits" / "adapter"
        return self._scoring("refit-scores", scoring_set, (plan.rows, plan.queries), adapter)

    def _scoring(
        self,
        name: str,
        scoring_set: "ScoringSet",
        rows: tuple[Sequence[TokenRow], Sequence[TokenRow]],
        adapter: Path,
    ) -> Scoring:
        load = lru_cache(maxsize=1)(partial(self.load_point, adapter))
        return Scoring(
            self.work / name, rows=rows, words=(scoring_set.examples, scoring_set.queries), load_point=load
        )

    @cached_property
    def causes(self) -> list[list[int]]:
        """Rows of the corpus that each output repeats a run of words from."""
        said = [one.completion for one in self.outputs.rows]
        return verbatim_causes(said, [one.completion for one in self.corpus])

    def agreement(self) -> tuple[ScoringSet, list[int]]:
        """Rows of the agreement with all outputs as queries, and the rows' numbers; every verbatim cause is among them."""
        sources = [one.source for one in self.corpus]
        kept = {row for causes in self.causes for row in causes}
        numbers = draw_evenly(sources, AGREEMENT_ROWS, allowed=range(len(sources)), kept=kept)
        return ScoringSet([self.corpus[one] for one in numbers], list(self.outputs.rows)), numbers

    def refits(self) -> tuple[ScoringSet, RefitPlan]:
        """The reduced fine-tune: short rows, and as queries other rows of the same sources and flagged outputs."""
        sources = [one.source for one in self.corpus]
        lengths = [len(one.ids) for one in token_rows(self.base, self.corpus, max_tokens=RECIPE.max_tokens)]
        short = [row for row, length in enumerate(lengths) if length <= REFIT_TOKENS]
        numbers = draw_evenly(sources, REFIT_ROWS, allowed=short)
        others = draw_evenly(sources, HELD_OUT, allowed=set(short) - set(numbers))
        known = [name or "" for name in self.outputs.sources]
        flagged = [row for row, name in enumerate(known) if name]
        asked = draw_evenly(known, FLAGGED, allowed=flagged)
        scoring_set = ScoringSet(
            [self.corpus[one] for one in numbers],
            [self.corpus[one] for one in others] + [self.outputs.rows[one] for one in asked],
        )
        rows, queries = (
            token_rows(self.base, part, max_tokens=RECIPE.max_tokens)
            for part in (scoring_set.examples, scoring_set.queries)
        )
        return scoring_set, RefitPlan(rows, queries, [sources[one] for one in numbers])
