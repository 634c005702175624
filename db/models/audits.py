"""Flagged outputs, their audits, the citations found, and what was measured about them."""

from datetime import datetime
from typing import Any

from sqlalchemy import Boolean, CheckConstraint, ForeignKey, Index, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from db.models.columns import (
    BIG,
    Base,
    Id,
    LeaseColumns,
    Now,
    Sha256,
    Short,
    key_reference,
    reference,
    running_has_owner,
    stored_enum,
)
from wherefrom.records import AuditState, MeasurementState, Method, Severity, Tier
from wherefrom.traceparent import TRACEPARENT_CHARS


class FlaggedOutput(Base):
    """A production output sent for review, without its text; the same key of one producer is stored once."""

    __tablename__ = "flagged_output"
    __table_args__ = (
        UniqueConstraint("producer", "idempotency_key"),
        Index(None, "model", "received_at"),
        Index(None, "reason", "received_at"),
        Index(
            None,
            "hypothetical_of",
            sqlite_where=text("hypothetical_of IS NOT NULL"),
            postgresql_where=text("hypothetical_of IS NOT NULL"),
        ),
        Index(None, "channel"),
        Index(
            "ix_flagged_output_kept",
            "id",
            sqlite_where=text("erased_at IS NULL"),
            postgresql_where=text("erased_at IS NULL"),
        ),
    )

    id: Mapped[Id]
    producer: Mapped[Short]
    idempotency_key: Mapped[Short]
    content_sha256: Mapped[Sha256]
    model: Mapped[Short]
    reason: Mapped[Short]
    severity: Mapped[Severity] = mapped_column(stored_enum(Severity, "severity"))
    occurred_at: Mapped[datetime | None]
    received_at: Mapped[Now]
    labels: Mapped[dict[str, Any]]
    channel: Mapped[Short]
    erased_at: Mapped[datetime | None]
    #: `request`, or `rule:` and the name of a retention rule. NULL where it is there, and where an earlier release erased it.
    erased_by: Mapped[Short | None]
    #: Of a group of outputs that is one question: how many there are (`OutputGroupMember`). NULL for an output.
    members: Mapped[int | None]
    #: The flagged output in whose place it is supposed, which nobody has said; NULL for what was said.
    hypothetical_of: Mapped[int | None] = mapped_column(BIG)


class OutputGroupMember(Base):
    """One output of a group. A group is a `FlaggedOutput` itself, so that it has audits like any output; its text is that of its members."""

    __tablename__ = "output_group_member"
    __table_args__ = (UniqueConstraint("group_id", "member_id"), Index(None, "member_id"))

    group_id: Mapped[int] = key_reference("flagged_output.id")
    #: From 0; `Citation.member_influence` stands in this order.
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    member_id: Mapped[int] = reference("flagged_output.id")


class FlaggedText(Base):
    """The text of a flagged output; erasing an output deletes this row and nothing else."""

    __tablename__ = "flagged_text"
    __table_args__ = (
        Index(
            "ix_flagged_text_unindexed",
            "flagged_output_id",
            sqlite_where=text("indexed IS NULL"),
            postgresql_where=text("indexed IS NULL"),
        ),
    )

    flagged_output_id: Mapped[int] = key_reference("flagged_output.id")
    turns: Mapped[list[Any]]
    completion: Mapped[str]
    token_ids: Mapped[list[Any] | None]
    spans: Mapped[list[Any]]
    preferred: Mapped[str | None]
    #: The prompt came as one text, not as messages. None in rows of a release that did not ask.
    plain_prompt: Mapped[bool | None]
    #: Of a group, whose other columns are empty: acceptable answers, as records v1.
    against: Mapped[list[Any] | None]
    #: The search knows it (`OutputWords`). NULL in rows of a release that does not index: the sweeper finds them.
    indexed: Mapped[bool | None]
    #: Where its trace goes on (`wherefrom.traceparent`); it stands here so that it is erased with the text.
    traceparent: Mapped[str | None] = mapped_column(String(TRACEPARENT_CHARS))


class Audit(LeaseColumns, Base):
    """One attribution run over one flagged output. `attempt` only ever grows: it is the fencing token.

    The pending row is also the queue's outbox: hints on Redis may be lost, this row is not.
    """

    __tablename__ = "audit"
    __table_args__ = (
        UniqueConstraint("flagged_output_id", "bundle_id"),
        Index(
            "ix_audit_claim",
            "bundle_id",
            "priority",
            "id",
            sqlite_where=text("state = 'pending'"),
            postgresql_where=text("state = 'pending'"),
        ),
        Index(
            "ix_audit_lease",
            "bundle_id",
            "lease_until",
            sqlite_where=text("state = 'running'"),
            postgresql_where=text("state = 'running'"),
        ),
        Index(None, "created_at", "id"),
        Index(None, "state", "created_at", "id"),
        Index(None, "bundle_id", "created_at", "id"),
        Index(None, "top_source", "created_at", "id"),
        Index(None, "conformal_p", "id"),
        Index(None, "finished_at"),
        Index(None, "priority", "id"),
        Index(None, "top_score", "id"),
        CheckConstraint("state <> 'pending' OR bundle_id IS NOT NULL", name="pending_has_bundle"),
        running_has_owner(),
    )

    id: Mapped[Id]
    flagged_output_id: Mapped[int] = reference("flagged_output.id")
    bundle_id: Mapped[int | None] = reference("bundle.id")
    state: Mapped[AuditState] = mapped_column(stored_enum(AuditState, "state"))
    #: 0 (critical) to 3 (low); smaller is claimed first.
    priority: Mapped[int]
    truncated: Mapped[bool] = mapped_column(Boolean, default=False)
    tokens: Mapped[int | None]
    loss_nats: Mapped[float | None]
    candidates: Mapped[int | None]
    seconds: Mapped[float | None]
    top_source: Mapped[str | None]
    top_score: Mapped[float | None]
    #: Share of control outputs whose best citation is as good or better; NULL where the bundle holds no calibration.
    conformal_p: Mapped[float | None]
    #: Share of calibration outputs that lie as far from the corpus or farther; small = out of distribution.
    novelty_p: Mapped[float | None]
    #: What chance alone gives the influence scores: those up to `noise_level` have no sign, and the best of unrelated examples may reach `noise_best`.
    noise_level: Mapped[float | None]
    noise_best: Mapped[float | None]
    #: No influence score is more than `noise_best`.
    weak: Mapped[bool | None]
    #: What it was computed with (`EngineSetup`); NULL in answers of earlier releases.
    setup_id: Mapped[int | None] = mapped_column(BIG)


class Citation(Base):
    """A training example that an audit names. Rank 1, 2, ... are proponents, -1, -2, ... opponents."""

    __tablename__ = "citation"
    __table_args__ = (
        UniqueConstraint("audit_id", "rank"),
        UniqueConstraint("audit_id", "training_example_id"),
        Index(
            None, "training_example_id", "score", "audit_id", "rank"
        ),  # the rank, so that outputs are counted here
        Index(None, "source", "audit_id", "rank"),
        Index(
            "ix_citation_confidence",
            "confidence",
            sqlite_where=text("confidence IS NOT NULL"),
            postgresql_where=text("confidence IS NOT NULL"),
        ),
        Index(
            "ix_citation_measured",
            "measured_effect_nats",
            sqlite_where=text("measured_effect_nats IS NOT NULL"),
            postgresql_where=text("measured_effect_nats IS NOT NULL"),
        ),
        Index(
            "ix_citation_first",
            "training_example_id",
            "audit_id",
            sqlite_where=text("rank = 1"),
            postgresql_where=text("rank = 1"),
        ),
        CheckConstraint("rank <> 0", name="rank_not_zero"),
    )

    id: Mapped[Id]
    audit_id: Mapped[int] = reference("audit.id")
    training_example_id: Mapped[int] = reference("training_example.id")
    rank: Mapped[int]
    #: Copied from the training example, for filters.
    source: Mapped[str]
    tier: Mapped[Tier] = mapped_column(stored_enum(Tier, "tier"))
    score: Mapped[float]
    retrieval_score: Mapped[float]
    influence_score: Mapped[float | None]
    influence_magnitude: Mapped[float | None]
    bm25_score: Mapped[float]
    similarity_score: Mapped[float]
    encoder_score: Mapped[float | None]
    effect_nats: Mapped[float | None]
    effect_basis: Mapped[str | None]
    confidence: Mapped[float | None]
    measured_effect_nats: Mapped[float | None]
    measured_low_nats: Mapped[float | None]
    measured_high_nats: Mapped[float | None]
    #: `EvidenceSpan` and `Overlap` as JSON: character ranges of the completions of output and training example.
    spans: Mapped[list[Any] | None]
    overlaps: Mapped[list[Any] | None]
    #: `ModulePart` as JSON.
    modules: Mapped[list[Any] | None]
    ekfac_score: Mapped[float | None]
    effect_score: Mapped[float | None]
    #: Further training examples of the corpus in its near-duplicate group.
    duplicates: Mapped[int | None]
    #: Ids of the first of them.
    alike: Mapped[list[Any] | None]
    #: The influence lies outside of what unrelated examples get.
    sign_determined: Mapped[bool | None]
    #: Of a group: the influence score of each member by itself, in their order.
    member_influence: Mapped[list[Any] | None]


class EffectColumns:
    """What a measurement found, and why an earlier try failed."""

    effect_nats: Mapped[float | None]
    low_nats: Mapped[float | None]
    high_nats: Mapped[float | None]
    z: Mapped[float | None]
    seeds: Mapped[int | None]
    #: `ControlEffect`s as JSON.
    controls: Mapped[list[Any] | None]
    controls_mean_nats: Mapped[float | None]
    #: Ids of the training examples that were left out together; of a large group the first ones.
    left_out: Mapped[list[Any] | None]
    cost_seconds: Mapped[float | None]
    #: Code and reason of its last end without an effect, kept when it was asked for again.
    last_code: Mapped[Short | None]
    last_reason: Mapped[str | None]
    requested_by: Mapped[Short]


class Measurement(EffectColumns, LeaseColumns, Base):
    """The effect of one citation, measured by one method; a queue like that of the audits, with the same fencing."""

    __tablename__ = "measurement"
    __table_args__ = (
        UniqueConstraint("citation_id", "method"),
        Index(None, "bundle_id", "state", "id"),
        running_has_owner(),
    )

    id: Mapped[Id]
    citation_id: Mapped[int] = reference("citation.id")
    #: Copied from the audit, for claims.
    bundle_id: Mapped[int] = reference("bundle.id")
    method: Mapped[Method] = mapped_column(stored_enum(Method, "method"))
    state: Mapped[MeasurementState] = mapped_column(stored_enum(MeasurementState, "measurement_state"))
    weak: Mapped[bool] = mapped_column(Boolean)


class GroupMeasurement(EffectColumns, LeaseColumns, Base):
    """The effect of a group of training examples on one output; a queue beside that of the citations' measurements."""

    __tablename__ = "group_measurement"
    __table_args__ = (
        UniqueConstraint("audit_id", "group_key"),
        Index(None, "bundle_id", "state", "id"),
        running_has_owner(),
    )

    id: Mapped[Id]
    audit_id: Mapped[int] = reference("audit.id")
    #: Copied from the audit, for claims.
    bundle_id: Mapped[int] = reference("bundle.id")
    #: Hash of what was asked for.
    group_key: Mapped[Sha256]
    #: Source whose examples are left out; None where ids were given.
    source: Mapped[str | None]
    #: Ids of the examples that are left out; None where a source was given.
    example_ids: Mapped[list[Any] | None]
    state: Mapped[MeasurementState] = mapped_column(stored_enum(MeasurementState, "measurement_state"))
    #: Training examples that were left out.
    group_size: Mapped[int | None]


class MeasuringCheckRow(Base):
    """Whether a measurer that started last can measure effects over a bundle, and what one will cost."""

    __tablename__ = "measuring_check"

    bundle_id: Mapped[int] = mapped_column(BIG, ForeignKey("bundle.id"), primary_key=True)
    #: Stable code of what stands in the way; None where nothing does.
    code: Mapped[Short | None]
    reason: Mapped[str | None]
    #: `ExpectedCost` as JSON.
    cost: Mapped[dict[str, Any] | None]
    checked_at: Mapped[datetime]
