"""The tables, in the vocabulary of the glossary; the migrations build them, a test holds the two together.

Everything that is filtered or sorted is a column with an index. Texts of flagged outputs stand apart in `flagged_text`, so that
they can be erased and lists stay small. Sign rule of all scores: positive = made the flagged output more likely.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Enum,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from db.clock import UtcTimestamp, db_now
from wherefrom.records import AuditState, MeasurementState, Method, Severity, Tier

_BIG = Integer().with_variant(BigInteger(), "postgresql")
_JSON = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")

Id = Annotated[int, mapped_column(_BIG, primary_key=True)]
Sha256 = Annotated[str, mapped_column(String(64))]
Short = Annotated[str, mapped_column(String(200))]
Now = Annotated[datetime, mapped_column(UtcTimestamp, default=db_now())]


class Verdict(StrEnum):
    """What an auditor finds about a citation or about a whole audit."""

    CONFIRMED = "confirmed"
    REFUTED = "refuted"
    UNCLEAR = "unclear"


def _stored(enum: type[StrEnum], name: str) -> Enum:
    """An enum kept by value in a text column, held by a CHECK (no native ENUM: those are hard to migrate)."""
    return Enum(
        enum,
        name=name,
        native_enum=False,
        create_constraint=True,
        length=20,
        values_callable=lambda members: [member.value for member in members],
    )


def _ref(column: str, *, index: bool = False) -> Any:
    return mapped_column(_BIG, ForeignKey(column), index=index)


class Base(DeclarativeBase):
    """Root of all tables; every constraint and index has a name, so that migrations can drop it on both engines."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        str: Text(),
        float: Float(53),
        datetime: UtcTimestamp(),
        dict[str, Any]: _JSON,
        list[Any]: _JSON,
    }


class ModelRevision(Base):
    """The weights whose training is explained; `name` is what producers put into a record's `model`."""

    __tablename__ = "model_revision"

    id: Mapped[Id]
    name: Mapped[Short] = mapped_column(unique=True)
    weights_sha256: Mapped[Sha256]
    adapter_sha256: Mapped[Sha256 | None]
    tokenizer_sha256: Mapped[Sha256]
    created_at: Mapped[Now]


class Corpus(Base):
    """All training examples of one training run."""

    __tablename__ = "corpus"

    id: Mapped[Id]
    sha256: Mapped[Sha256] = mapped_column(unique=True)
    name: Mapped[str]
    examples: Mapped[int]
    created_at: Mapped[Now]


class TrainingExample(Base):
    """The text of what was cited, and of small corpora: evidence outlives changes of the corpus."""

    __tablename__ = "training_example"
    __table_args__ = (UniqueConstraint("corpus_id", "example_id"),)

    id: Mapped[Id]
    corpus_id: Mapped[int] = _ref("corpus.id")
    example_id: Mapped[str] = mapped_column(index=True)
    row: Mapped[int] = mapped_column(_BIG)
    source: Mapped[str] = mapped_column(index=True)
    prompt: Mapped[str]
    completion: Mapped[str]
    text_sha256: Mapped[Sha256]
    fields: Mapped[dict[str, Any]]


class Bundle(Base):
    """A versioned set of artefacts that explains one model revision; at most one per revision is active."""

    __tablename__ = "bundle"
    __table_args__ = (
        Index(
            "uq_bundle_active_model_revision_id",
            "model_revision_id",
            unique=True,
            sqlite_where=text("active"),
            postgresql_where=text("active"),
        ),
    )

    id: Mapped[Id]
    name: Mapped[Short] = mapped_column(unique=True)
    model_revision_id: Mapped[int] = _ref("model_revision.id", index=True)
    corpus_id: Mapped[int] = _ref("corpus.id", index=True)
    form: Mapped[Short]
    active: Mapped[bool] = mapped_column(Boolean)
    card: Mapped[dict[str, Any]]
    created_at: Mapped[Now]


class FlaggedOutput(Base):
    """A production output sent for review, without its text; the same key of one producer is stored once."""

    __tablename__ = "flagged_output"
    __table_args__ = (
        UniqueConstraint("producer", "idempotency_key"),
        Index(None, "model", "received_at"),
        Index(None, "reason", "received_at"),
    )

    id: Mapped[Id]
    producer: Mapped[Short]
    idempotency_key: Mapped[Short]
    content_sha256: Mapped[Sha256]
    model: Mapped[Short]
    reason: Mapped[Short]
    severity: Mapped[Severity] = mapped_column(_stored(Severity, "severity"))
    occurred_at: Mapped[datetime | None]
    received_at: Mapped[Now]
    labels: Mapped[dict[str, Any]]
    channel: Mapped[Short]
    erased_at: Mapped[datetime | None]


class FlaggedText(Base):
    """The text of a flagged output; erasing an output deletes this row and nothing else."""

    __tablename__ = "flagged_text"

    flagged_output_id: Mapped[int] = mapped_column(
        _BIG, ForeignKey("flagged_output.id"), primary_key=True, autoincrement=False
    )
    turns: Mapped[list[Any]]
    completion: Mapped[str]
    token_ids: Mapped[list[Any] | None]
    spans: Mapped[list[Any]]
    preferred: Mapped[str | None]
    #: The prompt came as one text, not as messages. None in rows of a release that did not ask.
    plain_prompt: Mapped[bool | None]


class Audit(Base):
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
        Index(None, "conformal_p"),
        CheckConstraint("state <> 'pending' OR bundle_id IS NOT NULL", name="pending_has_bundle"),
        CheckConstraint("(state = 'running') = (lease_owner IS NOT NULL)", name="running_has_owner"),
    )

    id: Mapped[Id]
    flagged_output_id: Mapped[int] = _ref("flagged_output.id")
    bundle_id: Mapped[int | None] = _ref("bundle.id")
    state: Mapped[AuditState] = mapped_column(_stored(AuditState, "state"))
    code: Mapped[Short | None]
    reason: Mapped[str | None]
    attempt: Mapped[int] = mapped_column(default=0)
    #: Claims that do not count: those before a requeue, and those that ended before work on this audit alone began.
    #: `attempt - attempt_floor` counts against the limit.
    attempt_floor: Mapped[int] = mapped_column(default=0)
    lease_owner: Mapped[Short | None]
    lease_until: Mapped[datetime | None]
    next_attempt_at: Mapped[datetime | None]
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
    created_at: Mapped[Now]
    claimed_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class Citation(Base):
    """A training example that an audit names. Rank 1, 2, ... are proponents, -1, -2, ... opponents."""

    __tablename__ = "citation"
    __table_args__ = (
        UniqueConstraint("audit_id", "rank"),
        UniqueConstraint("audit_id", "training_example_id"),
        Index(None, "training_example_id", "score", "audit_id"),
        Index(None, "source", "audit_id"),
        CheckConstraint("rank <> 0", name="rank_not_zero"),
    )

    id: Mapped[Id]
    audit_id: Mapped[int] = _ref("audit.id")
    training_example_id: Mapped[int] = _ref("training_example.id")
    rank: Mapped[int]
    #: Copied from the training example, for filters.
    source: Mapped[str]
    tier: Mapped[Tier] = mapped_column(_stored(Tier, "tier"))
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


class Measurement(Base):
    """The effect of one citation, measured by one method; a queue like that of the audits, with the same fencing."""

    __tablename__ = "measurement"
    __table_args__ = (
        UniqueConstraint("citation_id", "method"),
        Index(None, "bundle_id", "state", "id"),
        CheckConstraint("(state = 'running') = (lease_owner IS NOT NULL)", name="running_has_owner"),
    )

    id: Mapped[Id]
    citation_id: Mapped[int] = _ref("citation.id")
    #: Copied from the audit, for claims.
    bundle_id: Mapped[int] = _ref("bundle.id")
    method: Mapped[Method] = mapped_column(_stored(Method, "method"))
    state: Mapped[MeasurementState] = mapped_column(_stored(MeasurementState, "measurement_state"))
    code: Mapped[Short | None]
    reason: Mapped[str | None]
    attempt: Mapped[int] = mapped_column(default=0)
    #: Attempts up to this one were forgiven when it was asked for again.
    attempt_floor: Mapped[int] = mapped_column(default=0)
    lease_owner: Mapped[Short | None]
    lease_until: Mapped[datetime | None]
    next_attempt_at: Mapped[datetime | None]
    effect_nats: Mapped[float | None]
    low_nats: Mapped[float | None]
    high_nats: Mapped[float | None]
    z: Mapped[float | None]
    seeds: Mapped[int | None]
    #: `ControlEffect`s as JSON.
    controls: Mapped[list[Any] | None]
    #: Ids of the training examples that were left out together.
    left_out: Mapped[list[Any] | None]
    weak: Mapped[bool] = mapped_column(Boolean)
    cost_seconds: Mapped[float | None]
    requested_by: Mapped[Short]
    created_at: Mapped[Now]
    claimed_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class Review(Base):
    """What an auditor found, about one citation (`rank`) or about the audit as a whole (no rank)."""

    __tablename__ = "review"

    id: Mapped[Id]
    audit_id: Mapped[int] = _ref("audit.id", index=True)
    rank: Mapped[int | None]
    verdict: Mapped[Verdict] = mapped_column(_stored(Verdict, "verdict"))
    comment: Mapped[str]
    reviewer: Mapped[Short]
    created_at: Mapped[Now]


class TrailEvent(Base):
    """One line of the append-only trail. No foreign keys: the trail outlives what it tells of.

    `prev_hash` and `row_hash` are NULL until the event is sealed into the chain.
    """

    __tablename__ = "trail_event"

    id: Mapped[Id]
    at: Mapped[Now]
    kind: Mapped[Short]
    subject: Mapped[Short] = mapped_column(index=True)
    payload: Mapped[dict[str, Any]]
    prev_hash: Mapped[Sha256 | None]
    row_hash: Mapped[Sha256 | None]


class Producer(Base):
    """Who flags outputs; its records are stored under its name, whichever of its keys they came with."""

    __tablename__ = "producer"

    id: Mapped[Id]
    name: Mapped[Short] = mapped_column(unique=True)
    created_at: Mapped[Now]


class ApiKey(Base):
    """A key of the HTTP API; only its hash is stored."""

    __tablename__ = "api_key"

    id: Mapped[Id]
    name: Mapped[Short] = mapped_column(unique=True)
    #: NULL for a key that a release without producers made: it is its own producer.
    producer_id: Mapped[int | None] = mapped_column(_BIG, ForeignKey("producer.id"), index=True)
    prefix: Mapped[Short] = mapped_column(unique=True)
    key_sha256: Mapped[Sha256]
    scopes: Mapped[list[Any]]
    created_at: Mapped[Now]
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class CounterTotal(Base):
    """What all processes of the service counted since the table was made, by series of `/metrics`."""

    __tablename__ = "counter_total"

    name: Mapped[Short] = mapped_column(primary_key=True)
    #: JSON with sorted names; the labels have few values each, so the table stays small.
    labels: Mapped[Short] = mapped_column(primary_key=True)
    value: Mapped[float]


class SchemaRelease(Base):
    """One row: what the newest upgrade of the schema declared, for older releases that run beside the newer one."""

    __tablename__ = "schema_release"

    id: Mapped[Id]
    #: Revision that the upgrade led to.
    revision: Mapped[Short]
    #: Head of the oldest release that works with it.
    compatible_from: Mapped[Short]
