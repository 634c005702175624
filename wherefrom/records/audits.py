"""What is kept of an audit, on its way through the queue and as readers see it."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Generic, Literal, TypeVar

from pydantic import Field

from wherefrom.records.bounds import MAX_ALIKE, MAX_ITEMS, MAX_MEMBERS, Details, Items
from wherefrom.records.conclusion import Conclusion
from wherefrom.records.engine import EvidenceSpan, ModulePart, Overlap, Tier
from wherefrom.records.flagged import FlaggedRecord, Frozen, Message, Severity, Span
from wherefrom.records.leases import Lease
from wherefrom.records.measurements import GroupMeasurementRecord, MeasurementRecord

T = TypeVar("T")


class AuditState(StrEnum):
    """Where an audit stands; every state but `pending`, `running` and `done` carries a code and a reason."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    ABSTAINED = "abstained"
    REJECTED = "rejected"
    DEAD = "dead"

    @property
    def is_open(self) -> bool:
        """Not at its end yet: a worker has it or will have it."""
        return self in (AuditState.PENDING, AuditState.RUNNING)

    @property
    def is_answered(self) -> bool:
        """The engine answered, so there are citations to judge."""
        return self in (AuditState.DONE, AuditState.ABSTAINED)

    @property
    def is_requeuable(self) -> bool:
        """An operator can send it back to the queue; not `done`, whose citations are evidence."""
        return self in (AuditState.ABSTAINED, AuditState.REJECTED, AuditState.DEAD)


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
    """One audit that a worker holds."""

    audit_id: int
    output_id: int
    bundle_id: int
    #: Number of this claim; part of the fencing token.
    attempt: int
    owner: str
    #: Attempts that counted against the limit before this claim.
    spent: int = 0
    #: Whoever claimed it last put it back before work on it began.
    handed_back: bool = False
    #: Nobody has said it; it counts nowhere.
    hypothetical: bool = False
    #: Where the trace of its output goes on.
    traceparent: str | None = None
    record: FlaggedRecord

    @property
    def lease(self) -> Lease:
        """The fencing token."""
        return Lease(id=self.audit_id, attempt=self.attempt, owner=self.owner, spent=self.spent)

    @property
    def is_suspect(self) -> bool:
        """It was claimed before and not finished, so it may have killed its worker."""
        return self.attempt > 1 and not self.handed_back


class ClaimedOutputGroup(ClaimedAudit):
    """One audit of a group of outputs; `record` is its first member's."""

    members: Annotated[tuple[FlaggedRecord, ...], Field(min_length=1, max_length=MAX_MEMBERS)]
    against: Annotated[tuple[FlaggedRecord, ...], Field(max_length=MAX_MEMBERS)] = ()


class Claim(Frozen):
    """A batch of claimed audits of one bundle, held by one owner."""

    owner: str
    bundle_id: int
    bundle_name: str
    audits: Items[ClaimedAudit]


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
    card: Details = Field(default_factory=dict)


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
    #: Whether the influence lies outside of what unrelated examples get; None where that was not told.
    sign_determined: bool | None = None
    influence_magnitude: float | None
    bm25_score: float
    similarity_score: float
    encoder_score: float | None = None
    effect_nats: float | None
    effect_basis: str | None
    confidence: float | None
    #: Cosine of EK-FAC over all linear layers; None unless the audit was marked important.
    ekfac_score: float | None = None
    effect_score: float | None = None
    #: Further training examples that say nearly the same; None where it was not counted.
    duplicates: int | None = None
    #: Ids of the first of them; empty where that was not told.
    alike: Annotated[tuple[str, ...], Field(max_length=MAX_ALIKE)] = ()
    #: Which stretches of output and training example carry the score, strongest first.
    spans: Items[EvidenceSpan] = ()
    #: What the two have in common word for word, longest first.
    overlaps: Items[Overlap] = ()
    #: What each block and each kind of linear layer adds to the influence score; empty but for bundles of the form `adapter`.
    modules: Items[ModulePart] = ()
    #: `modules` in a few words, such as ``mostly blocks 20-29 (62 %, usually 41 %), down and o (55 %, usually 48 %)``; None where there are none.
    carried_by: str | None = None
    #: Of a group: the influence score of each member by itself, in the order of `AuditDetail.members`.
    member_influence: Annotated[tuple[float, ...], Field(max_length=MAX_MEMBERS)] = ()
    #: Measured change of the output's mean loss without the example, with its interval; None until measured.
    measured_effect_nats: float | None = None
    measured_low_nats: float | None = None
    measured_high_nats: float | None = None
    #: When the training example's text was erased, and by what: `request`, or `rule:` and a name. None where it is there.
    erased_at: datetime | None = None
    erased_by: str | None = None


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
    #: Of a group of outputs that is one question: how many there are; None for an output.
    members: int | None = None
    #: No influence score of the audit is more than the best of as many unrelated examples may reach; None where that was not told.
    weak: bool | None = None
    #: Share of control outputs whose best citation is as good or better; None where the bundle holds no calibration.
    conformal_p: float | None = None
    #: Share of calibration outputs that lie as far from the corpus or farther; small = out of distribution.
    novelty_p: float | None = None
    #: Passes at the false discovery rate that was asked for; None where none was, or the audit has no conformal p.
    supported: bool | None = None


class Support(Frozen):
    """What Benjamini-Hochberg finds over the conformal p of all audits of a listing.

    The guarantee is for controls like those that calibrated the bundles.
    """

    #: The false discovery rate that the user chose.
    level: float
    #: Largest conformal p that passes; None where none does.
    limit: float | None
    #: Audits that pass.
    supported: int
    #: Audits of the listing that have a conformal p; each is one test.
    judged: int
    #: Answered audits of the listing whose bundle holds no calibration; nothing is said about them.
    uncalibrated: int

    def passes(self, conformal_p: float) -> bool:
        """Whether an audit of the listing with this p is supported."""
        return self.limit is not None and conformal_p <= self.limit

    def text(self) -> str:
        """The conclusion in words, for pages and terminals."""
        rate = f"{100 * self.level:g} %"
        unjudged = f" {self.uncalibrated} answered audits were not judged: their bundles have no calibration."
        if not self.judged:
            return (
                "No audit of this listing can be judged: its bundles have no calibration."
                if self.uncalibrated
                else "No audit of this listing has been answered yet."
            )
        found = f"{self.supported} of {self.judged} audits are supported at a false discovery rate of {rate}."
        guarantee = " The guarantee is for outputs like the controls that calibrated the bundle."
        return found + guarantee + (unjudged if self.uncalibrated else "")


class MemberRecord(Frozen):
    """One output of a group, with its own audit."""

    output_id: int
    #: Its first audit.
    audit_id: int
    state: AuditState
    #: The first 160 characters of the completion; empty when erased.
    excerpt: str
    top_source: str | None


class AuditDetail(Frozen):
    """One audit with the whole flagged output and its citations."""

    audit: AuditSummary
    idempotency_key: str
    occurred_at: datetime | None
    labels: Annotated[dict[str, str], Field(max_length=MAX_ITEMS)]
    turns: Items[Message]
    completion: str
    spans: Items[Span]
    preferred: str | None
    loss_nats: float | None
    tokens: int | None
    candidates: int | None
    #: Influence scores between minus this and this have no sign, and what the best of unrelated examples may reach; None where that was not told.
    noise_level: float | None = None
    noise_best: float | None = None
    seconds: float | None
    citations: Items[CitationRecord]
    opponents: Items[CitationRecord]
    #: Measurements of its citations, oldest first.
    measurements: Items[MeasurementRecord] = ()
    #: Measurements of groups of training examples on its output, oldest first.
    group_measurements: Items[GroupMeasurementRecord] = ()
    #: Of a group: its outputs in order, and the acceptable answers that they were held against.
    members: Annotated[tuple[MemberRecord, ...], Field(max_length=MAX_MEMBERS)] = ()
    against: Annotated[tuple[FlaggedRecord, ...], Field(max_length=MAX_MEMBERS)] = ()
    #: Of an output: the newest audit of a group that it is a member of.
    group_audit_id: int | None = None
    #: Of an output: the finding that it stands in.
    finding_id: int | None = None
    #: Of what somebody supposes: the first audit of the output in whose place it stands.
    hypothetical_of: int | None = None
    #: Another audit of the same output, under another bundle; the newest where there are several.
    other_audit_id: int | None = None
    #: Token ids of the completion, where the producer gave them.
    token_ids: Items[int] | None = None
    #: The prompt came as one text, not as messages; None where that was not told.
    plain_prompt: bool | None = None
    #: Versions, numbers and settings that the answer was computed with; None while there is none, and in answers of earlier releases.
    computed_with: Details | None = None
    #: What was found, in one plain sentence; None while there is no answer, and in answers of earlier releases.
    conclusion: Conclusion | None = None
    #: When the output's text was erased, and by what: `request`, or `rule:` and a name. None where it is there.
    erased_at: datetime | None = None
    erased_by: str | None = None


class ExampleDetail(Frozen):
    """One training example, with how often it is cited."""

    training_example_id: int
    example_id: str
    source: str
    prompt: str
    completion: str
    text_sha256: str
    corpus_sha256: str
    fields: Details
    citations: int
    #: When the text was erased, and by what; None where it is there.
    erased_at: datetime | None = None
    erased_by: str | None = None


class AuditNeighbours(Frozen):
    """The audits next to one in a list; None at its ends."""

    before: int | None = None
    behind: int | None = None


class NeighbourRecord(Frozen):
    """A training example that stands beside another one."""

    training_example_id: int
    example_id: str
    row: int
    source: str
    prompt: str
    completion: str


class ExampleNeighbours(Frozen):
    """What stands beside a training example, as far as it is stored."""

    #: Its row in the corpus, from 0.
    row: int = 0
    #: The rows before and behind it, in their order.
    before: Items[NeighbourRecord] = ()
    behind: Items[NeighbourRecord] = ()
    #: What says nearly the same.
    alike: Items[NeighbourRecord] = ()


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

    #: Nobody waits for a million rows to be counted: counting ends at a limit.
    states: Annotated[dict[AuditState, int], Field(max_length=MAX_ITEMS)]
    #: States that hold more audits than their count says.
    more_than: Items[AuditState] = ()
    oldest_pending_seconds: float | None
    expired_leases: int

    def count_text(self, state: AuditState) -> str:
        """A state's count in words."""
        return f"{'more than ' if state in self.more_than else ''}{self.states.get(state, 0)}"


class Page(Frozen, Generic[T]):
    """One page of a list; `next_cursor` is opaque and None on the last page."""

    items: Items[T]
    next_cursor: str | None = None


class AuditListing(Page[AuditSummary]):
    """One page of the list of audits; `support` where a false discovery rate was asked for."""

    support: Support | None = None
