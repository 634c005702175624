"""Reads what the engine needs of audits that were just claimed; a row that cannot be read never takes its batch down."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.leases import attempts_spent
from db.models import Audit, Bundle, FlaggedOutput, FlaggedText
from db.statements import AnySelect
from wherefrom.errors import OUTPUT_ERASED, InvalidRecord
from wherefrom.records import ClaimedAudit, FlaggedRecord, Lease


@dataclass(frozen=True)
class Unreadable:
    """A claimed audit that nobody can answer: its output's text was erased, or is no valid record, or no JSON."""

    lease: Lease
    code: str
    reason: str


@dataclass(frozen=True)
class ClaimedRows:
    """What was read of one claim."""

    #: Name of the bundle; empty without audits.
    bundle_name: str
    #: In the order of the queue.
    audits: list[ClaimedAudit]
    unreadable: list[Unreadable]


def read_claimed(session: Session, audit_ids: Sequence[int], owner: str) -> ClaimedRows:
    """Read audits that `owner` has claimed in one statement; one by one where that fails."""
    if not audit_ids:
        return ClaimedRows("", [], [])
    try:
        return _read(session, audit_ids, owner)
    except ValueError as error:  # no JSON in a column, or no valid record
        if len(audit_ids) == 1:
            attempt = session.scalars(select(Audit.attempt).where(Audit.id == audit_ids[0])).one()
            lease = Lease(id=audit_ids[0], attempt=attempt, owner=owner)
            # Only the kind of the error: its text may quote the output.
            reason = f"the stored output is not a valid record ({type(error).__name__}); look at its row in flagged_text"
            return ClaimedRows("", [], [Unreadable(lease, InvalidRecord.code, reason)])
    ordered = select(Audit.id).where(Audit.id.in_(audit_ids)).order_by(Audit.priority, Audit.id)
    parts = [read_claimed(session, [audit_id], owner) for audit_id in session.scalars(ordered).all()]
    return ClaimedRows(
        max(part.bundle_name for part in parts),
        [audit for part in parts for audit in part.audits],
        [one for part in parts for one in part.unreadable],
    )


def _read(session: Session, audit_ids: Sequence[int], owner: str) -> ClaimedRows:
    rows = session.execute(_claimed(audit_ids)).all()
    return ClaimedRows(
        rows[0].bundle_name if rows else "",
        [_claimed_audit(row, owner) for row in rows if row.FlaggedText is not None],
        [_erased(row, owner) for row in rows if row.FlaggedText is None],
    )


def _erased(row: Any, owner: str) -> Unreadable:
    lease = Lease(id=row.audit_id, attempt=row.attempt, owner=owner)
    return Unreadable(lease, OUTPUT_ERASED, "the output's text was erased before the audit was answered")


def _claimed(audit_ids: Sequence[int]) -> AnySelect:
    """What the engine needs of claimed audits, in the order of the queue (RETURNING gives no order)."""
    return (
        select(
            Audit.id.label("audit_id"),
            Audit.bundle_id,
            Audit.attempt,
            attempts_spent(Audit).label("spent"),
            Bundle.name.label("bundle_name"),
            FlaggedOutput,
            FlaggedText,
        )
        .join(Bundle, Bundle.id == Audit.bundle_id)
        .join(FlaggedOutput, FlaggedOutput.id == Audit.flagged_output_id)
        .outerjoin(FlaggedText, FlaggedText.flagged_output_id == FlaggedOutput.id)
        .where(Audit.id.in_(audit_ids))
        .order_by(Audit.priority, Audit.id)
    )


def _claimed_audit(row: Any, owner: str) -> ClaimedAudit:
    output: FlaggedOutput = row.FlaggedOutput
    text: FlaggedText = row.FlaggedText
    record = FlaggedRecord(
        idempotency_key=output.idempotency_key,
        messages=text.turns,
        completion=text.completion,
        token_ids=text.token_ids,
        model=output.model,
        reason=output.reason,
        severity=output.severity,
        occurred_at=output.occurred_at,
        labels=output.labels,
        spans=text.spans,
        preferred=text.preferred,
    )
    if text.plain_prompt:
        record = record.model_copy(update={"prompt": record.turns()[0].content, "messages": None})
    return ClaimedAudit(
        audit_id=row.audit_id,
        output_id=output.id,
        bundle_id=row.bundle_id,
        attempt=row.attempt,
        owner=owner,
        spent=row.spent,
        record=record,
    )
