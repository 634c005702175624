"""The one record of a query: it starts as what is asked and gains a part at each stage of the engine.

    Query            what is asked                                        `wherefrom.records`
    TokenizedQuery   + `row`, `preferred`: its tokens                     `LanguageAttributor.prepare`
    ReadQuery        + `signals`: what the model's pass gave              `LanguageAttributor.signals`
    ScoredQuery      + `scores`: its candidates with all their scores     `LanguageAttributor.score`

A group of outputs that is one question passes the same stages as `TokenizedGroup`, `ReadGroup` and `ScoredGroup` (`output_group`).
A later stage is an earlier one too, so whatever takes a `ReadQuery` takes a `ScoredQuery`. Nothing is copied: parts are shared.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from wherefrom.attribution.factors import Factors
from wherefrom.attribution.fusion import Scores
from wherefrom.attribution.models.render import TokenRow
from wherefrom.attribution.noise import Noise
from wherefrom.attribution.retrieval.candidates import Candidates
from wherefrom.records import Query, Role


@dataclass(frozen=True, eq=False)
class TokenizedQuery:
    """A query and its tokens."""

    asked: Query
    row: TokenRow
    #: The acceptable answer under the same prompt, where the query has one.
    preferred: TokenRow | None = None

    @property
    def text(self) -> str:
        """Prompt (without system messages) and completion, for BM25."""
        return f"{self.prompt_text}\n{self.asked.completion}"

    @property
    def prompt_text(self) -> str:
        """The prompt without system messages."""
        return "\n".join(turn.content for turn in self.asked.turns if turn.role != Role.SYSTEM)

    @property
    def tokens(self) -> int:
        """Tokens of prompt and completion; with an acceptable answer, of two rows as long as the longer one."""
        if self.preferred is None:
            return len(self.row.ids)
        return 2 * max(len(self.row.ids), len(self.preferred.ids))

    @property
    def completion_tokens(self) -> int:
        """Tokens of the completion, or of the acceptable answer where that is longer."""
        return max(row.completion_tokens for row in (self.row, self.preferred) if row is not None)

    @property
    def truncated(self) -> bool:
        """Whether the completion or the acceptable answer was cut."""
        return self.row.truncated or (self.preferred is not None and self.preferred.truncated)

    @property
    def texts(self) -> tuple[str, ...]:
        """All texts that BM25 looks for."""
        return (self.text,)

    def with_signals(self, signals: "QuerySignals") -> "ReadQuery":
        """The query after the model's pass."""
        return ReadQuery(self.asked, self.row, self.preferred, signals=signals)


@dataclass(frozen=True, eq=False)
class QuerySignals:
    """What the model's pass gave for one query."""

    #: The completion's tokens, then those of the acceptable answer with b negated.
    factors: Factors
    norm: Tensor  # scalar
    projected: Scores  # [P]
    pooled: Scores  # [D]
    encoded: Scores | None  # [E], where the bundle has a sentence encoder
    loss: float
    #: Whitened sketch of the gradients at the final weights `[M D]`, where the bundle has them; of the completion minus the acceptable answer.
    final: Tensor | None
    #: Explained tokens of the completion, and those of its tokens that have factors (`models.trajectory.ReadsSignals.reads`).
    tokens: int
    read_tokens: int

    def of_completion(self) -> Factors:
        """The factors without those of an acceptable answer."""
        count = self.read_tokens
        return Factors(self.factors.a[:count], self.factors.b[:count], (count,))


@dataclass(frozen=True, eq=False, kw_only=True)
class ReadQuery(TokenizedQuery):
    """A query that the model has read."""

    signals: QuerySignals

    def with_scores(self, scores: "CandidateScores") -> "ScoredQuery":
        """The query after the search and the exact kernel."""
        return ScoredQuery(self.asked, self.row, self.preferred, signals=self.signals, scores=scores)


@dataclass(frozen=True, eq=False)
class CandidateScores:
    """All parts of the score of each candidate, arrays `[C]`."""

    candidates: Candidates
    influence: Scores
    magnitude: Scores
    #: The magnitude without what the rows share (`row_curvature`), where the bundle holds their curvature; the magnitude itself elsewhere.
    net: Scores
    retrieval: Scores
    similarity: Scores
    #: Cosine of the sentence encoder, where the bundle has one.
    encoder: Scores | None
    #: Influence by the gradients at the final weights, where the bundle has them.
    final: Scores | None
    shown: Scores
    #: The effect head (`effect`).
    effect: Scores
    #: Cosine of the full tier, for important queries of bundles that hold it.
    ekfac: Scores | None
    #: What chance alone gives the influence; None in a corpus too small to tell.
    noise: Noise | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class ScoredQuery(ReadQuery):
    """A query with its candidates."""

    scores: CandidateScores


def contrast_rows(values: Tensor, contrasted: Sequence[bool]) -> Tensor:
    """One row per query, minus that of its acceptable answer.

    Args:
        values: `[B, ...]` of all queries, then of the acceptable answers of those that have one, in the same order.
        contrasted: whether each query has one.
    """
    found = values[: len(contrasted)].clone()
    found[torch.tensor(contrasted, device=values.device)] -= values[len(contrasted) :]
    return found


def contrast(factors: Factors, contrasted: Sequence[bool]) -> Factors:
    """Put the tokens of acceptable answers, with b negated, behind those of their queries.

    Args:
        factors: rows of all queries, then rows of the acceptable answers of those that have one, in the same order.
        contrasted: whether each query has one.

    Returns:
        One row per query; k of it with any example is the difference of the two rows' k.
    """
    if not any(contrasted):
        return factors
    rows = factors.rows()
    answers = iter(rows[len(contrasted) :])
    found = []
    for row, has_answer in zip(rows[: len(contrasted)], contrasted, strict=True):
        if has_answer:
            answer = next(answers)
            a, b = torch.cat([row.a, answer.a]), torch.cat([row.b, -answer.b])
            found.append(Factors(a, b, (len(a),)))
        else:
            found.append(row)
    return Factors.joined(found)
