"""The append-only trail: who did what to which row. Events are written here unsealed, in the caller's transaction."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sqlalchemy.orm import Session

from db.models import TrailEvent
from db.statements import insert_many


class TrailKind(StrEnum):
    """What happened; stored by value, so a member's value never changes."""

    OUTPUT_ACCEPTED = "output.accepted"
    AUDIT_FINISHED = "audit.finished"
    AUDIT_REJECTED = "audit.rejected"
    AUDIT_DEAD = "audit.dead"
    AUDIT_REQUEUED = "audit.requeued"
    #: To another bundle, or off a retired one.
    AUDIT_MOVED = "audit.moved"
    #: Of an output that has an audit under another bundle.
    AUDIT_REQUESTED = "audit.requested"
    BUNDLE_REGISTERED = "bundle.registered"
    BUNDLE_ACTIVATED = "bundle.activated"
    BUNDLE_RETIRED = "bundle.retired"
    MEASUREMENT_REQUESTED = "measurement.requested"
    MEASUREMENT_FINISHED = "measurement.finished"
    MEASUREMENT_DEAD = "measurement.dead"
    KEY_CREATED = "key.created"
    KEY_REVOKED = "key.revoked"
    PERSON_ADDED = "person.added"
    QUEUE_CREATED = "queue.created"
    QUEUE_CLOSED = "queue.closed"
    #: People may now take audits of it.
    QUEUE_MEMBER = "queue.member"
    #: Audits entered, by its rule or by hand.
    QUEUE_FILLED = "queue.filled"
    QUEUE_ASSIGNED = "queue.assigned"
    QUEUE_UNASSIGNED = "queue.unassigned"
    QUEUE_REMOVED = "queue.removed"
    QUEUE_RESTORED = "queue.restored"
    REVIEW_GIVEN = "review.given"
    REVIEW_UNDONE = "review.undone"
    PERSON_SIGNED_OUT = "person.signed_out"
    FIX_LIST_CREATED = "fix_list.created"
    #: Training examples got an action, or were taken off.
    FIX_LIST_CHANGED = "fix_list.changed"
    #: It has another owner.
    FIX_LIST_GIVEN = "fix_list.given"
    FIX_LIST_CLOSED = "fix_list.closed"
    #: Its rows left the service: as a file, or as a cleaned corpus.
    FIX_LIST_EXPORTED = "fix_list.exported"
    #: Audits, their citations, training examples, verdicts or a report left the service as a file.
    EXPORTED = "export.taken"
    WHAT_IF_REQUESTED = "what_if.requested"
    WHAT_IF_FINISHED = "what_if.finished"
    WHAT_IF_DEAD = "what_if.dead"
    #: Something is to be told to the webhook.
    NOTICE_RAISED = "notice.raised"
    NOTICE_DELIVERED = "notice.delivered"
    NOTICE_DEAD = "notice.dead"
    #: A dead one is sent again.
    NOTICE_REQUEUED = "notice.requeued"
    #: The sweeper placed outputs of a bundle.
    FINDINGS_FILLED = "findings.filled"
    FINDING_RENAMED = "finding.renamed"
    FINDING_MERGED = "finding.merged"
    FINDING_TAKEN_OUT = "finding.taken_out"
    #: Outputs left for a finding of their own.
    FINDING_SPLIT = "finding.split"


#: Events that end an audit.
AUDIT_ENDS = (TrailKind.AUDIT_FINISHED.value, TrailKind.AUDIT_REJECTED.value, TrailKind.AUDIT_DEAD.value)


@dataclass(frozen=True)
class Event:
    """One thing that happened. The payload holds ids, digests and codes, never a text that may have to be erased."""

    kind: TrailKind
    #: ``table:id`` of what it happened to.
    subject: str
    payload: dict[str, Any] = field(default_factory=dict)


def record_events(session: Session, events: Sequence[Event]) -> None:
    """Append events to the trail with one statement; they are there when the caller's transaction commits."""
    rows = [{"kind": one.kind.value, "subject": one.subject, "payload": one.payload} for one in events]
    insert_many(session, TrailEvent, rows)
