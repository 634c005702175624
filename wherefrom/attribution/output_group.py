r"""Many outputs, one question: which training examples taught the model what a set of outputs has in common?

    f(G) = 1/|M| sum_{m in M} f(m)  -  1/|A| sum_{a in A} f(a)        k(G, z) = <f(G), f(z)>

M are the outputs, A acceptable answers to such prompts (the base model's own, for instance), and f the whitened feature of the bundle's form. What the outputs share adds
up, what is peculiar to each of them averages out, and what acceptable answers do too is taken away. The measurement is the mean loss of M minus that of A, so the sign rule is that of a
single output. A member with a `preferred` answer counts with its own difference.

Every kernel is bilinear in (a, b) of the tokens. So the tokens of all members, with b over |M|, and those of A, with b over -|A|, stand behind each other as *one* query: search,
kernel, projection and the parts of the model take it as they take a single output. Words and similarity look at the members alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from wherefrom.attribution.bundles.bundle import Bundle
from wherefrom.attribution.factors import Factors
from wherefrom.attribution.fusion import Scores
from wherefrom.attribution.kernel import cosines, kernel_norms
from wherefrom.attribution.query import CandidateScores, QuerySignals, ReadQuery, TokenizedQuery
from wherefrom.attribution.retrieval.index import Rows
from wherefrom.errors import InvalidRecord, OutputTooLong
from wherefrom.records import GroupMember, QueryGroup

#: Tokens, padding included, of one pass over members.
PASS_TOKENS = 2048
#: Completion tokens of a group, acceptable answers included; their factors are held at once.
MAX_GROUP_TOKENS = 8192


@dataclass(frozen=True, eq=False)
class TokenizedGroup:
    """A group and the tokens of its outputs."""

    asked: QueryGroup
    members: tuple[TokenizedQuery, ...]
    against: tuple[TokenizedQuery, ...]

    def __post_init__(self) -> None:
        self._check_answers()
        held = sum(one.row.completion_tokens for one in self.queries)
        if held > MAX_GROUP_TOKENS:
            raise OutputTooLong(
                f"group {self.asked.key}: its {len(self.queries)} completions have {held:,} tokens together, the limit is "
                f"{MAX_GROUP_TOKENS:,}; give fewer outputs or acceptable answers"
            )

    def _check_answers(self) -> None:
        said = {one.row.ids: one.asked.key for one in self.members}
        for answer in self.against:
            if answer.row.ids in said:
                raise InvalidRecord(
                    f"group {self.asked.key}: the acceptable answer {answer.asked.key} is the output {said[answer.row.ids]} itself; "
                    "leave one of them out"
                )

    @property
    def queries(self) -> tuple[TokenizedQuery, ...]:
        """All that the model reads for the group."""
        return self.members + self.against

    @property
    def tokens(self) -> int:
        """Tokens of all of them."""
        return sum(one.tokens for one in self.queries)

    @property
    def completion_tokens(self) -> int:
        """Tokens of the longest completion."""
        return max(one.completion_tokens for one in self.queries)

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts that BM25 looks for, one of each member."""
        return tuple(one.text for one in self.members)

    @property
    def truncated(self) -> bool:
        """Whether the completion of a member was cut."""
        return any(one.truncated for one in self.members)


@dataclass(frozen=True, eq=False, kw_only=True)
class ReadGroup(TokenizedGroup):
    """A group that the model has read."""

    #: The members by themselves, in order.
    read: tuple[ReadQuery, ...]
    #: The group as one query.
    signals: QuerySignals

    def with_scores(self, scores: CandidateScores) -> "ScoredGroup":
        """The group after the search and the exact kernel."""
        return ScoredGroup(
            self.asked, self.members, self.against, read=self.read, signals=self.signals, scores=scores
        )

    def described(self) -> tuple[GroupMember, ...]:
        """The members, as the answer names them."""
        return tuple(
            GroupMember(
                key=one.asked.key,
                tokens=one.signals.tokens,
                truncated=one.truncated,
                loss_nats=one.signals.loss,
            )
            for one in self.read
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class ScoredGroup(ReadGroup):
    """A group with its candidates."""

    scores: CandidateScores


def joined_group(group: TokenizedGroup, read: Sequence[ReadQuery], bundle: Bundle) -> ReadGroup:
    """The group as one query.

    Args:
        group: as it was prepared.
        read: its members, then its acceptable answers, as the model read them.
        bundle: whose projection is applied.
    """
    members, against = tuple(read[: len(group.members)]), read[len(group.members) :]
    factors = mean_factors([one.signals.factors for one in members], [one.signals.factors for one in against])
    norm = kernel_norms(factors)[0]
    signals = QuerySignals(
        factors=factors,
        norm=norm,
        projected=bundle.projection.apply(factors, norm[None])[0].cpu().numpy(),
        pooled=_mean_direction([one.signals.pooled for one in members]),
        encoded=_mean_encoded(members),
        loss=float(np.mean([one.signals.loss for one in members])),
        final=_mean_final(members, against),
        tokens=sum(one.signals.tokens for one in members),
        read_tokens=sum(one.signals.read_tokens for one in members),
    )
    return ReadGroup(group.asked, group.members, group.against, read=members, signals=signals)


def mean_factors(members: Sequence[Factors], against: Sequence[Factors]) -> Factors:
    """One row: k of it with any example is the mean of k over the members minus the mean over acceptable answers."""
    weighted = [(one, 1 / len(members)) for one in members] + [(one, -1 / len(against)) for one in against]
    a = torch.cat([one.a for one, _ in weighted])
    b = torch.cat([one.b * weight for one, weight in weighted])
    return Factors(a, b, (len(a),))


def _mean_final(members: Sequence[ReadQuery], against: Sequence[ReadQuery]) -> torch.Tensor | None:
    """The same of the sketches of the gradients at the final weights, `[M D]`, where the bundle has them."""
    own, other = (
        [one.signals.final for one in some if one.signals.final is not None] for some in (members, against)
    )
    if not own:
        return None
    mean = torch.stack(own).mean(dim=0)
    return mean - torch.stack(other).mean(dim=0) if other else mean


def member_influence(group: ReadGroup, bundle: Bundle, rows: Rows) -> list[tuple[float, ...]]:
    """Influence score of each member by itself, for each of the given training examples in order."""
    if not len(rows):
        return []
    norms = bundle.store.norms[rows]
    scores = np.stack(
        [
            cosines(bundle.store.scores(one.signals.factors, rows)[0].numpy(), float(one.signals.norm), norms)
            for one in group.read
        ]
    )  # [M, K]
    return [tuple(float(value) for value in column) for column in scores.T]


def _mean_encoded(members: Sequence[ReadQuery]) -> Scores | None:
    vectors = [one.signals.encoded for one in members if one.signals.encoded is not None]
    return _mean_direction(vectors) if vectors else None


def _mean_direction(vectors: Sequence[Scores]) -> Scores:
    """Unit vector of the mean of vectors; zeros where they cancel."""
    mean = np.mean(vectors, axis=0)
    unit: Scores = (mean / max(float(np.linalg.norm(mean)), 1e-20)).astype(np.float32)
    return unit
