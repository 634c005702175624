"""Intake: a flagged output becomes accepted by becoming rows, its text and a pending audit in one transaction.

The caller answers (or acknowledges) after this returns. The same key of one producer is stored once however often and from
however many processes it comes.
"""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import insert, select, text
from sqlalchemy.orm import Session

from db.audit_trail.trail import Event, TrailKind, record_events
from db.faults import refusals_as_errors
from db.models import Audit, Bundle, FlaggedOutput, FlaggedText, ModelRevision
from db.session import Database
from db.statements import insert_new, insert_rows
from db.storing.examples import CHUNK
from db.storing.item_keys import new_digests
from db.storing.search import index_outputs
from wherefrom.errors import (
    DatabaseUnavailable,
    IdempotencyConflict,
    PermanentError,
    UnknownModel,
)
from wherefrom.records import AuditState, FlaggedRecord, IntakeResult, Severity
from wherefrom.records.erasing import NO_DIGEST
from wherefrom.spans import Kind, spans_of_each

#: Order of the queue: smaller is claimed first.
PRIORITY = {Severity.CRITICAL: 0, Severity.HIGH: 1, Severity.MEDIUM: 2, Severity.LOW: 3}

#: Number of PostgreSQL's advisory lock between intake (shared) and the activation of a bundle (exclusive).
ROUTING_LOCK = 0x77686572

#: Producer, model and channel of the output that `check_writable` stores and takes back.
PROBE = "wherefrom-probe"


@dataclass(frozen=True)
class Stored:
    """What the database holds under one key."""

    output_id: int
    content_sha256: str
    audit_id: int
    state: AuditState
    code: str | None
    reason: str | None


def accept(
    db: Database,
    records: Sequence[FlaggedRecord],
    *,
    producer: str,
    channel: str,
    traces: Sequence[str | None] = (),
) -> list[IntakeResult]:
    """Store flagged outputs, each with its text and its audit, all in one transaction.

    A record whose model no active bundle explains is accepted too; its audit waits as `rejected` / `unknown_model` and is
    queued when a bundle for the model is registered.

    Args:
        db: The database.
        records: Checked records; one without an idempotency key gets a new one.
        producer: Who sent them, a key's name; idempotency keys are unique per producer.
        channel: How they came in (``http``, ``stream``).
        traces: The traceparent that each brings, as it was read; those without one belong to the present trace.

    Returns:
        One result per record, in their order: ``accepted``; ``duplicate`` with the ids of the first time; or ``conflict`` where
        the key is taken by other content (nothing is stored then).

    Raises:
        DatabaseUnavailable: nothing was stored, and no record is to blame.
        UnstorableRecord, ValueTooLong: nothing was stored, because the database refuses a value of one of the records.
    """
    keyed = [(one.idempotency_key or uuid.uuid4().hex, one, one.content_sha256()) for one in records]
    first: dict[str, tuple[FlaggedRecord, str]] = {}
    of_first: dict[str, str | None] = {}
    for (key, record, digest), trace in zip(keyed, traces or [None] * len(keyed), strict=True):
        first.setdefault(key, (record, digest))
        of_first.setdefault(key, trace)
    with (
        spans_of_each("accept", [*of_first.values()], kind=Kind.PRODUCER, channel=channel) as goes_on,
        refusals_as_errors(),
        db.writing() as session,
    ):
        new = insert_outputs(session, first, producer=producer, channel=channel)
        fresh = {key: first[key] for key in first if key in new}
        bundles = active_bundles(session, {record.model for record, _ in fresh.values()})
        traced = dict(zip(of_first, goes_on, strict=True))
        stored = _insert_audits(session, fresh, new, bundles, traced=traced)
        stored |= read_stored(session, producer, [key for key in first if key not in new])
    results = []
    for key, _, digest in keyed:
        results.append(result_of(key, digest, stored[key], is_new=key in new))
        new.pop(key, None)  # a second record with this key in the same call is a duplicate
    return results


def active_bundle_ids(db: Database, models: set[str]) -> list[int]:
    """Ids of the bundles that explain these models; their cards, which may be large, are not read.

    Raises:
        DatabaseUnavailable: the database is away.
    """
    with db.reading() as session:
        return sorted(read_active(session, models).values())


def check_writable(db: Database) -> None:
    """Store an output as intake does, with its text, its audit and its trail event, and take it all back.

    Whoever is about to blame a record asks this first: while it fails, the database is to blame.

    Raises:
        DatabaseUnavailable: the database takes no writes of intake; the text says what it said.
    """
    record = FlaggedRecord(prompt=PROBE, completion=PROBE, model=PROBE)
    records = {uuid.uuid4().hex: (record, record.content_sha256())}
    try:
        with refusals_as_errors(), db.writing() as session:
            new = insert_outputs(session, records, producer=PROBE, channel=PROBE)
            _insert_audits(session, records, new, {}, traced={})
            session.rollback()
    except PermanentError as error:
        raise DatabaseUnavailable(f"database {db.url_masked} refuses a plain output: {error}") from error


def insert_outputs(
    session: Session,
    records: dict[str, tuple[FlaggedRecord, str]],
    *,
    producer: str,
    channel: str,
    members: int | None = None,
) -> dict[str, int]:
    """Insert the outputs, or groups of so many members, whose key is free; the new row ids by key."""
    rows = [
        {
            "producer": producer,
            "idempotency_key": key,
            "content_sha256": digest,
            "model": record.model,
            "reason": record.reason,
            "severity": record.severity,
            "occurred_at": record.occurred_at,
            "labels": record.labels,
            "channel": channel,
            "members": members,
        }
        for key, (record, digest) in sorted(records.items())
    ]
    if not rows:
        return {}
    unique = (FlaggedOutput.producer, FlaggedOutput.idempotency_key)
    statement = insert_new(session, FlaggedOutput, unique)
    made = session.execute(statement.returning(FlaggedOutput.idempotency_key, FlaggedOutput.id), rows)
    return {row.idempotency_key: row.id for row in made}


def _insert_audits(
    session: Session,
    records: dict[str, tuple[FlaggedRecord, str]],
    output_ids: dict[str, int],
    bundles: dict[str, int],
    *,
    traced: Mapping[str, str | None],
) -> dict[str, Stored]:
    """Insert texts, audits and trail events of new outputs, in the order of the call."""
    if not records:
        return {}
    texts = [text_row(output_ids[key], one, traceparent=traced.get(key)) for key, (one, _) in records.items()]
    session.execute(insert_rows(FlaggedText), texts)
    index_outputs(session, texts)
    rows = [audit_row(output_ids[key], one, bundles.get(one.model)) for key, (one, _) in records.items()]
    made = session.execute(insert(Audit).returning(Audit.flagged_output_id, Audit.id), rows)
    audit_ids = {row.flagged_output_id: row.id for row in made}
    accepted = {f"flagged_output:{output_ids[key]}": digest for key, (_, digest) in records.items()}
    record_accepted(session, accepted)
    return {
        key: Stored(
            output_id=row["flagged_output_id"],
            content_sha256=digest,
            audit_id=audit_ids[row["flagged_output_id"]],
            state=row["state"],
            code=row["code"],
            reason=row["reason"],
        )
        for (key, (_, digest)), row in zip(records.items(), rows, strict=True)
    }


def record_accepted(session: Session, digests: Mapping[str, str], **more: int) -> None:
    """Tell the trail of new outputs, by ``flagged_output:id`` and digest of the content; it keeps a digest under a key of the output's own."""
    events = [
        Event(TrailKind.OUTPUT_ACCEPTED, subject, {"content_hmac": kept} | more)
        for subject, kept in new_digests(session, digests).items()
    ]
    record_events(session, events)


def active_bundles(session: Session, models: set[str]) -> dict[str, int]:
    """The active bundle of each model that has one.

    Where a model has none, a bundle may be activated right now by somebody who cannot see our audit yet and would leave it
    behind; so wait for that and look again. The activation holds the lock for a few statements only.
    """
    active = read_active(session, models)
    if len(active) < len(models) and session.get_bind().dialect.name == "postgresql":
        session.execute(text("SELECT pg_advisory_xact_lock_shared(:number)"), {"number": ROUTING_LOCK})
        active = read_active(session, models)
    return active


def read_active(session: Session, models: Iterable[str] | None = None) -> dict[str, int]:
    """The active bundle of each of these models that has one; of every model where none is named."""
    active = (
        select(ModelRevision.name, Bundle.id)
        .join(Bundle, Bundle.model_revision_id == ModelRevision.id)
        .where(Bundle.active)
    )
    if models is None:
        return {row.name: row.id for row in session.execute(active)}
    names = sorted(models)
    chunks = (names[start : start + CHUNK] for start in range(0, len(names), CHUNK))
    wanted = (active.where(ModelRevision.name.in_(chunk)) for chunk in chunks)
    return {row.name: row.id for one in wanted for row in session.execute(one)}


def read_stored(session: Session, producer: str, keys: Sequence[str]) -> dict[str, Stored]:
    """What is stored under keys that were taken, with the first audit of each output."""
    stored: dict[str, Stored] = {}
    for start in range(0, len(keys), CHUNK):
        columns = select(
            FlaggedOutput.idempotency_key,
            FlaggedOutput.id,
            FlaggedOutput.content_sha256,
            Audit.id.label("audit_id"),
            Audit.state,
            Audit.code,
            Audit.reason,
        ).join(Audit, Audit.flagged_output_id == FlaggedOutput.id)
        mine = columns.where(
            FlaggedOutput.producer == producer, FlaggedOutput.idempotency_key.in_(keys[start : start + CHUNK])
        )
        for row in session.execute(mine.order_by(Audit.id)):
            one = Stored(row.id, row.content_sha256, row.audit_id, row.state, row.code, row.reason)
            stored.setdefault(row.idempotency_key, one)
    return stored


def text_row(output_id: int, record: FlaggedRecord, *, traceparent: str | None = None) -> dict[str, Any]:
    """The columns of an output's text."""
    return {
        "flagged_output_id": output_id,
        "turns": _dumped(record.turns()),
        "completion": record.completion,
        "token_ids": None if record.token_ids is None else list(record.token_ids),
        "spans": _dumped(record.spans),
        "preferred": record.preferred,
        "plain_prompt": record.prompt is not None,
        "indexed": True,
        "traceparent": traceparent,
    }


def _dumped(parts: Iterable[Any]) -> list[dict[str, Any]]:
    return [one.model_dump(mode="json") for one in parts]


def audit_row(output_id: int, record: FlaggedRecord, bundle_id: int | None) -> dict[str, Any]:
    """The columns of a new audit: pending, or waiting for a bundle of its model."""
    known = bundle_id is not None
    return {
        "flagged_output_id": output_id,
        "bundle_id": bundle_id,
        "state": AuditState.PENDING if known else AuditState.REJECTED,
        "code": None if known else UnknownModel.code,
        "reason": None
        if known
        else f"no active bundle explains the model {record.model!r}; the audit is queued again when one is added",
        "priority": PRIORITY[record.severity],
    }


def result_of(key: str, digest: str, stored: Stored, *, is_new: bool) -> IntakeResult:
    """What the caller is told of one record."""
    if stored.content_sha256 not in {digest, NO_DIGEST}:  # an erased output cannot be told from another one
        return IntakeResult(
            status="conflict",
            idempotency_key=key,
            code=IdempotencyConflict.code,
            reason="the idempotency key was used before with different content",
        )
    status: Literal["accepted", "duplicate"] = "accepted" if is_new else "duplicate"
    return IntakeResult(
        status=status,
        idempotency_key=key,
        output_id=stored.output_id,
        audit_id=stored.audit_id,
        state=stored.state,
        code=stored.code,
        reason=stored.reason,
    )
