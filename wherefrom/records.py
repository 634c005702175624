"""The records that travel between the rooms of wherefrom: what comes in, what the engine answers, what is read.

All are frozen pydantic models without behaviour beyond validation. No torch, no SQL. Scores follow the one sign rule:
positive = the training example made the flagged output more likely.
"""

import hashlib
import json
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Final, Generic, Literal, Self, TypeVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, model_validator

#: Version of the flagged-output record that this release reads and writes.
RECORD_SCHEMA: Final = 1

T = TypeVar("T")


class Frozen(BaseModel):
    """Base of all records: immutable, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _storable(text: str) -> str:
    """Refuse what no SQL text column holds; control and bidi characters are evidence and stay."""
    if "\x00" in text:
        raise ValueError("contains U+0000 (NUL), which SQL text cannot hold; replace it before flagging")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"contains a lone surrogate at position {error.start}; the text is not valid Unicode"
        ) from error
    return text


def _in_utc(at: datetime) -> datetime:
    """Refuse a time that leaves the calendar when it is told in UTC."""
    try:
        return at.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("lies outside of the years 1 to 9999 in UTC") from error


Text = Annotated[str, AfterValidator(_storable)]
ShortText = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_storable)]


class Role(StrEnum):
    """Who speaks in a message of a chat."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class Message(Frozen):
    """One turn of a chat, as chat templates read it."""

    role: Role
    content: Text


class Span(Frozen):
    """A range of characters, `start` included, `end` excluded."""

    start: int = Field(ge=0)
    end: int = Field(gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.end <= self.start:
            raise ValueError(f"span end {self.end} must be greater than its start {self.start}")
        return self


class Severity(StrEnum):
    """How urgent the producer finds a flagged output; decides the order of the queue."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


class FlaggedRecord(Frozen):
    """A production output sent for review: record v1, the same on the stream, over HTTP and in files."""

    #: Version of this record's shape.
    record_schema: Literal[1] = Field(default=RECORD_SCHEMA, alias="schema")
    #: The caller's key, unique per API key. The same key with the same content is answered, not stored twice.
    idempotency_key: ShortText | None = None
    #: The prompt as plain text; exactly one of `prompt` and `messages` is given.
    prompt: Text | None = None
    #: The prompt as a chat (all turns before the flagged completion).
    messages: tuple[Message, ...] | None = None
    #: What the model answered.
    completion: Text = Field(min_length=1)
    #: The completion's own token ids, where the producer has them.
    token_ids: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    #: The model revision that answered; decides which bundle explains it.
    model: ShortText
    #: Why it was flagged, in the producer's vocabulary.
    reason: Annotated[str, Field(max_length=200), AfterValidator(_storable)] = "unspecified"
    severity: Severity = Severity.MEDIUM
    #: When the model answered (an aware time).
    occurred_at: Annotated[AwareDatetime, AfterValidator(_in_utc)] | None = None
    #: Free metadata of the producer.
    labels: dict[ShortText, Text] = Field(default_factory=dict, max_length=50)
    #: Character ranges of the completion to be explained; all of it where none is given.
    spans: tuple[Span, ...] = ()
    #: An answer that would have been acceptable.
    preferred: Text | None = None

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give exactly one of `prompt` and `messages`")
        if self.messages is not None and not self.messages:
            raise ValueError("`messages` is empty; give the turns before the completion")
        if not self.completion.strip():
            raise ValueError("`completion` holds only white space; there is nothing to explain")
        for span in self.spans:
            if span.end > len(self.completion):
                raise ValueError(
                    f"span {span.start}-{span.end} ends after the completion ({len(self.completion)} characters)"
                )
        return self

    def turns(self) -> tuple[Message, ...]:
        """The prompt as messages, whichever way it was given."""
        if self.messages is not None:
            return self.messages
        return (Message(role=Role.USER, content=self.prompt or ""),)

    def content_sha256(self) -> str:
        """Hash of everything but the idempotency key: two records with one key must agree on it."""
        return sha256_of_json(self.model_dump(mode="json", by_alias=True, exclude={"idempotency_key"}))


def sha256_of_json(value: Any) -> str:
    """SHA-256 (hex) of a value's canonical JSON: sorted keys, no spaces, UTF-8."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def utc_now() -> datetime:
    """The present time, aware, in UTC."""
    return datetime.now(UTC)


class AuditState(StrEnum):
    """Where an audit stands; every state but `pending`, `running` and `done` carries a code and a reason."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    ABSTAINED = "abstained"
    REJECTED = "rejected"
    DEAD = "dead"


class Tier(StrEnum):
    """What stands behind a citation, weakest first."""

    RETRIEVED = "retrieved"
    INFLUENCE = "influence"
    MEASURED = "measured"


class Query(Frozen):
    """A flagged output as the engine sees it."""

    key: str
    turns: tuple[Message, ...]
    completion: Text
    spans: tuple[Span, ...] = ()
    preferred: Text | None = None
    token_ids: tuple[int, ...] | None = None

    @classmethod
    def from_record(cls, key: str, record: FlaggedRecord) -> "Query":
        """The engine's view of a flagged output."""
        return cls(
            key=key,
            turns=record.turns(),
            completion=record.completion,
            spans=record.spans,
            preferred=record.preferred,
            token_ids=record.token_ids,
        )


class TrainingExample(Frozen):
    """One unit of the corpus that can be cited."""

    example_id: str
    #: Position in the corpus, from 0.
    row: int
    source: str
    #: The turns before the completion, rendered for people.
    prompt: str
    completion: str
    text_sha256: str
    #: Further fields of the corpus row, kept as they came.
    fields: dict[str, Any] = Field(default_factory=dict)


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
    #: Inner product of the exact kernel (grows with length; no unit).
    influence_magnitude: float | None
    bm25_score: float
    #: Cosine of the centred mean hidden states, [-1, 1].
    similarity_score: float
    #: Predicted change of the output's mean loss without the example; None until a bundle holds a fitted scale.
    effect_nats: float | None = None
    effect_basis: str | None = None
    #: Probability that a known cause is in the citation's group; None until a bundle is calibrated.
    confidence: float | None = None


class Attribution(Frozen):
    """The engine's answer for one query."""

    key: str
    citations: tuple[CitationDraft, ...]
    #: Completion tokens that were explained.
    tokens: int
    #: True where the output was cut at the token limit.
    truncated: bool
    #: Mean loss of the explained tokens under the audited model, nats.
    loss_nats: float
    #: Training examples that were scored exactly.
    candidates: int


class IntakeResult(Frozen):
    """What intake did with one record."""

    status: Literal["accepted", "duplicate", "conflict", "invalid"]
    idempotency_key: str | None = None
    output_id: int | None = None
    audit_id: int | None = None
    state: AuditState | None = None
    code: str | None = None
    reason: str | None = None


class ClaimedAudit(Frozen):
    """One audit that this worker holds; `attempt` is the fencing token."""

    audit_id: int
    output_id: int
    bundle_id: int
    attempt: int
    record: FlaggedRecord


class Claim(Frozen):
    """A batch of claimed audits of one bundle, held by one owner."""

    owner: str
    bundle_id: int
    bundle_name: str
    audits: tuple[ClaimedAudit, ...]


class BundleInfo(Frozen):
    """What the database knows about a bundle."""

    id: int
    #: The content name, which is also the name of its folder.
    name: str
    model: str
    corpus_sha256: str
    corpus_examples: int
    form: str
    active: bool
    created_at: datetime
    #: What was measured when it was built: quality, cost, sizes.
    card: dict[str, Any] = Field(default_factory=dict)


class CitationRecord(Frozen):
    """One stored citation, as readers see it."""

    rank: int
    example_id: str
    training_example_id: int
    source: str
    prompt: str
    completion: str
    text_sha256: str
    tier: Tier
    score: float
    retrieval_score: float
    influence_score: float | None
    influence_magnitude: float | None
    bm25_score: float
    similarity_score: float
    effect_nats: float | None
    effect_basis: str | None
    confidence: float | None


class AuditSummary(Frozen):
    """One line of the list of audits."""

    audit_id: int
    output_id: int
    state: AuditState
    code: str | None
    reason: str | None
    model: str
    bundle: str | None
    flag_reason: str
    severity: Severity
    channel: str
    attempt: int
    truncated: bool
    created_at: datetime
    finished_at: datetime | None
    #: The first 160 characters of the completion; empty when erased.
    excerpt: str
    top_source: str | None
    top_score: float | None


class AuditDetail(Frozen):
    """One audit with the whole flagged output and its citations."""

    audit: AuditSummary
    idempotency_key: str
    occurred_at: datetime | None
    labels: dict[str, str]
    turns: tuple[Message, ...]
    completion: str
    spans: tuple[Span, ...]
    preferred: str | None
    loss_nats: float | None
    tokens: int | None
    candidates: int | None
    seconds: float | None
    citations: tuple[CitationRecord, ...]
    opponents: tuple[CitationRecord, ...]


class ExampleDetail(Frozen):
    """One training example, with how often it is cited."""

    training_example_id: int
    example_id: str
    source: str
    prompt: str
    completion: str
    text_sha256: str
    corpus_sha256: str
    fields: dict[str, Any]
    citations: int


class CitedBy(Frozen):
    """One flagged output that cites a training example."""

    audit: AuditSummary
    rank: int
    score: float
    influence_score: float | None


class SourceSummary(Frozen):
    """How often the examples of one source are cited."""

    source: str
    examples: int
    citations: int
    #: Audits whose first citation comes from this source.
    first_citations: int
    audits: int


class QueueHealth(Frozen):
    """Counts by state and the age of the oldest pending audit."""

    states: dict[AuditState, int]
    oldest_pending_seconds: float | None
    expired_leases: int


class Page(Frozen, Generic[T]):
    """One page of a list; `next_cursor` is opaque and None on the last page."""

    items: tuple[T, ...]
    next_cursor: str | None = None
