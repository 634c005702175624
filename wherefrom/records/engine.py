"""What the engine is asked and what it answers: queries, training examples, citations with their evidence.

Influence and effects follow the one sign rule: positive = the training example made the flagged output more likely. `score` is the order shown.
"""

import re
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from wherefrom.records.bounds import MAX_ALIKE, MAX_MEMBERS, MAX_VECTOR_BYTES, Details, Items
from wherefrom.records.flagged import FlaggedRecord, Frozen, Span, Text, Turn


class Tier(StrEnum):
    """What stands behind a citation, weakest first."""

    RETRIEVED = "retrieved"
    INFLUENCE = "influence"
    MEASURED = "measured"


class Query(Frozen):
    """A flagged output as the engine sees it."""

    key: str
    turns: Items[Turn]
    completion: Text
    #: Whether the prompt came as one text, not as messages; matters where the model has no chat template.
    plain_prompt: bool = False
    spans: Items[Span] = ()
    preferred: Text | None = None
    token_ids: Items[int] | None = None
    #: Marked important: the full tier (EK-FAC over all linear layers) rescores the candidates where the bundle holds it.
    important: bool = False
    #: What the chat template reads beside the turns: `tools`, `documents`, ...
    context: Details = Field(default_factory=dict)

    @classmethod
    def from_record(cls, key: str, record: FlaggedRecord, *, important: bool = False) -> "Query":
        """The engine's view of a flagged output."""
        return cls(
            key=key,
            turns=record.turns(),
            completion=record.completion,
            plain_prompt=record.prompt is not None,
            spans=record.spans,
            preferred=record.preferred,
            token_ids=record.token_ids,
            important=important,
        )


class QueryGroup(Frozen):
    """Several flagged outputs as one question: what taught the model what they have in common?"""

    key: str
    members: Annotated[tuple[Query, ...], Field(min_length=1, max_length=MAX_MEMBERS)]
    #: Acceptable answers to such prompts. What the outputs share with them counts for nothing.
    against: Annotated[tuple[Query, ...], Field(max_length=MAX_MEMBERS)] = ()


_SURROGATE = re.compile("[\ud800-\udfff]")

#: A text of a corpus. A lone surrogate, which JSON can write and no database can hold, becomes U+FFFD; the length stays.
_CorpusText = Annotated[
    str,
    BeforeValidator(
        lambda text: _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text) if isinstance(text, str) else text
    ),
]


class TrainingExample(Frozen):
    """One unit of the corpus that can be cited."""

    example_id: _CorpusText
    #: Position in the corpus, from 0.
    row: int
    source: _CorpusText
    #: The turns before the completion, rendered for people.
    prompt: _CorpusText
    completion: _CorpusText
    text_sha256: str
    #: Further fields of the corpus row, kept as they came.
    fields: Details = Field(default_factory=dict)


class EvidenceSpan(Frozen):
    """One stretch of the output and one of the training example whose tokens carry a part of the influence score."""

    #: Characters of the completion of the flagged output.
    output: Span
    #: Characters of the training example's completion.
    example: Span
    #: Share of the score's positive mass (for an opponent, of its negative mass) that lies in this pair of stretches, (0, 1].
    share: float


class Overlap(Frozen):
    """A run of tokens that output and training example have in common word for word; a mark beside the scores, no part of them."""

    output: Span
    example: Span
    tokens: int


class ModulePart(Frozen):
    """What one part of the model adds to a citation's influence score."""

    #: Whether the part is a block of the model, or a kind of linear layer over all blocks.
    by: Literal["block", "linear"]
    #: Number of the block, or name of the layer within its block.
    name: str
    #: Its part of `influence_score`; those of all blocks add up to it, and those of all kinds do.
    influence: float
    #: Share of the influence that this part carries on average, between training examples of the corpus that are alike; shares of all blocks add up to 1,
    #: and those of all kinds do. None in bundles of earlier releases.
    usual_share: float | None = None


class CitationDraft(Frozen):
    """One ranked training example, as the engine hands it over."""

    #: 1, 2, ... for proponents in the order shown; -1, -2, ... for opponents, strongest first.
    rank: int
    example: TrainingExample
    tier: Tier
    #: The order shown: fusion of influence, BM25 and similarity, standardised per query. No unit.
    score: float
    #: The projection's estimate of `influence_score`, about [-1, 1].
    retrieval_score: float
    #: Cosine of the exact kernel, [-1, 1]; None where the exact form did not run.
    influence_score: float | None
    #: Whether the influence lies outside of what unrelated examples get, so that its sign means something; None where that could not be told.
    sign_determined: bool | None = None
    #: Inner product of the exact kernel (grows with length; no unit).
    influence_magnitude: float | None
    bm25_score: float
    #: Cosine of the centred mean hidden states, [-1, 1].
    similarity_score: float
    #: Cosine of the sentence encoder's vectors, where the bundle has one.
    encoder_score: float | None = None
    #: The effect head: kernel per token, BM25 and EK-FAC where it ran, standardised over the query's candidates; no unit.
    effect_score: float | None = None
    #: Predicted change of the output's mean loss without the example; None until a bundle holds a fitted scale.
    effect_nats: float | None = None
    effect_basis: str | None = None
    #: Probability that a known cause is in the citation's near-duplicate group; None until a bundle is calibrated.
    confidence: float | None = None
    #: Cosine of EK-FAC over all linear layers, [-1, 1]; None unless the audit was marked important.
    ekfac_score: float | None = None
    #: Further training examples of the corpus that say nearly the same (the group that is left out together).
    duplicates: int = 0
    #: Ids of the first of them, in the order of the corpus.
    alike: Annotated[tuple[str, ...], Field(max_length=MAX_ALIKE)] = ()
    #: Which tokens carry the score, strongest first.
    spans: Items[EvidenceSpan] = ()
    #: Common runs of tokens, longest first.
    overlaps: Items[Overlap] = ()
    #: What each block and each kind of linear layer adds to the influence score; empty but for the form `adapter`.
    modules: Items[ModulePart] = ()
    #: `modules` in a few words, such as ``mostly blocks 20-29 (62 %, usually 41 %), down and o (55 %, usually 48 %)``; None where there are none.
    carried_by: str | None = None
    #: Of a group: `influence_score` of each member by itself, in the order of the members.
    member_influence: Annotated[tuple[float, ...], Field(max_length=MAX_MEMBERS)] = ()


class GroupMember(Frozen):
    """One output of a group, as the engine read it."""

    key: str
    #: Explained tokens of its completion.
    tokens: int
    truncated: bool
    #: Their mean loss under the audited model, nats.
    loss_nats: float


class Attribution(Frozen):
    """The engine's answer for one query."""

    key: str
    citations: Items[CitationDraft]
    #: Completion tokens that were explained; of all members of a group.
    tokens: int
    #: True where the output, or the acceptable answer beside it, was cut at the token limit.
    truncated: bool
    #: Mean loss of the explained tokens under the audited model, nats; of a group, the mean over its members.
    loss_nats: float
    #: Training examples that were scored exactly.
    candidates: int
    #: Share of control outputs (their cause is not in the corpus) whose best citation is as good or better; None until calibrated.
    conformal_p: float | None = None
    #: Share of the outputs of the calibration that lie as far from the corpus or farther; small = out of distribution.
    novelty_p: float | None = None
    #: Why the engine abstains, in words; None where it stands by its citations.
    abstained: str | None = None
    #: Influence scores between minus this and this are those of unrelated training examples (`attribution.noise`); None where too few were scored to tell.
    noise_level: float | None = None
    #: What the best of as many unrelated training examples may reach, and whether the best influence score is no more than that.
    noise_best: float | None = None
    weak: bool | None = None
    #: Similarity vector of the output as int8, for grouping; None of a group, and of engines that have none. No part of the JSON.
    vector: Annotated[bytes | None, Field(max_length=MAX_VECTOR_BYTES, exclude=True)] = None
    #: Of a group: its outputs, in the order asked, and how many acceptable answers they were held against.
    members: Annotated[tuple[GroupMember, ...], Field(max_length=MAX_MEMBERS)] = ()
    against: int = 0
