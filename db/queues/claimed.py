"""Reads what the engine needs of audits that were just claimed; a row that cannot be read never takes its batch down."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.models import Audit, Bundle, FlaggedOutput, FlaggedText, ModelRevision, OutputGroupMember
from db.queues.leases import attempts_spent
from db.statements import AnySelect
from wherefrom.errors import HANDED_BACK, OUTPUT_ERASED, InvalidRecord
from wherefrom.records import ClaimedAudit, ClaimedOutputGroup, FlaggedRecord, Lease
from wherefrom.traceparent import read_traceparent


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


def measured_on(session: Session, audit_id: int, owner: str) -> dict[str, Any]:
    """What a measurement is given of its audit: the output's record, None where its text was erased, and its trace."""
    audits = read_claimed(session, [audit_id], owner).audits
    if not audits:
        return {"record": None, "traceparent": None}
    return {"record": audits[0].record, "traceparent": audits[0].traceparent}


def _read(session: Session, audit_ids: Sequence[int], owner: str) -> ClaimedRows:
    rows = session.execute(_claimed(audit_ids)).all()
    groups = [row.FlaggedOutput.id for row in rows if row.FlaggedOutput.members is not None]
    members = read_members(session, groups) if groups else {}
    found = [_claimed_row(row, owner, members) for row in rows]
    return ClaimedRows(
        rows[0].bundle_name if rows else "",
        [one for one in found if isinstance(one, ClaimedAudit)],
        [one for one in found if isinstance(one, Unreadable)],
    )


def read_members(
    session: Session, group_ids: Sequence[int]
) -> dict[int, list[tuple[FlaggedOutput, FlaggedText | None]]]:
    """The outputs of groups in their order, each with its text where that was not erased."""
    rows = session.execute(
        select(OutputGroupMember.group_id, FlaggedOutput, FlaggedText)
        .join(FlaggedOutput, FlaggedOutput.id == OutputGroupMember.member_id)
        .outerjoin(FlaggedText, FlaggedText.flagged_output_id == FlaggedOutput.id)
        .where(OutputGroupMember.group_id.in_(group_ids))
        .order_by(OutputGroupMember.group_id, OutputGroupMember.position)
    )
    found: dict[int, list[tuple[FlaggedOutput, FlaggedText | None]]] = {}
    for group_id, output, text in rows:
        found.setdefault(group_id, []).append((output, text))
    return found


def _claimed_row(
    row: Any, owner: str, members: Mapping[int, Sequence[tuple[FlaggedOutput, FlaggedText | None]]]
) -> ClaimedAudit | Unreadable:
    if row.FlaggedText is None:
        return _erased(row, owner, "the output's text was erased before the audit was answered")
    claimed = {
        "audit_id": row.audit_id,
        "output_id": row.FlaggedOutput.id,
        "bundle_id": row.bundle_id,
        "attempt": row.attempt,
        "owner": owner,
        "spent": row.spent,
        "handed_back": bool(row.handed_back),
        "hypothetical": row.FlaggedOutput.hypothetical_of is not None,
        "traceparent": read_traceparent(row.FlaggedText.traceparent),
    }
    if row.FlaggedOutput.members is None:
        record = _asked_of(row.explained, record_of(row.FlaggedOutput, row.FlaggedText))
        return ClaimedAudit(**claimed, record=record)
    outputs = members[row.FlaggedOutput.id]
    erased = next((output.id for output, text in outputs if text is None), None)
    if erased is not None:
        reason = (
            f"the text of output {erased}, a member of the group, was erased before the audit was answered"
        )
        return _erased(row, owner, reason)
    records = [
        _asked_of(row.explained, record_of(output, text)) for output, text in outputs if text is not None
    ]
    given = [FlaggedRecord.model_validate(one) for one in row.FlaggedText.against or ()]
    against = [_asked_of(row.explained, one) for one in given]
    return ClaimedOutputGroup(**claimed, record=records[0], members=tuple(records), against=tuple(against))


def _asked_of(model: str, record: FlaggedRecord) -> FlaggedRecord:
    """The record as a model is asked about it: token ids are those of the model that said it, and another one cuts the text anew."""
    return record if record.model == model else record.model_copy(update={"token_ids": None})


def _erased(row: Any, owner: str, reason: str) -> Unreadable:
    return Unreadable(Lease(id=row.audit_id, attempt=row.attempt, owner=owner), OUTPUT_ERASED, reason)


def _claimed(audit_ids: Sequence[int]) -> AnySelect:
    """What the engine needs of claimed audits, in the order of the queue (RETURNING gives no order)."""
    return (
        select(
            Audit.id.label("audit_id"),
            Audit.bundle_id,
            Audit.attempt,
            attempts_spent(Audit).label("spent"),
            (Audit.code == HANDED_BACK).label("handed_back"),
            Bundle.name.label("bundle_name"),
            ModelRevision.name.label("explained"),
            FlaggedOutput,
            FlaggedText,
        )
        .join(Bundle, Bundle.id == Audit.bundle_id)
        .join(ModelRevision, ModelRevision.id == Bundle.model_revision_id)
        .join(FlaggedOutput, FlaggedOutput.id == Audit.flagged_output_id)
        .outerjoin(FlaggedText, FlaggedText.flagged_output_id == FlaggedOutput.id)
        .where(Audit.id.in_(audit_ids))
        .order_by(Audit.priority, Audit.id)
    )


def record_of(output: FlaggedOutput, text: FlaggedText) -> FlaggedRecord:
    """The record that came in, as its rows hold it."""
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
    return record
