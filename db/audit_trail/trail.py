"""The append-only trail: who did what to which row. Events are written here unsealed, in the caller's transaction.

One sealer gives them their places in the chain afterwards (`db.audit_trail.trail_chain`). Reads of texts come from a journal of the machine that
showed them (`db.audit_trail.reads`, `wherefrom.journal`).

Who acts is known where a request or a command begins, and wanted deep below: `acting_as` carries it there, as the ids of a log are
carried. See docs/adr/0019-trail.md.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sqlalchemy import ScalarSelect, func, select
from sqlalchemy.orm import Session

from db.models import TrailEvent
from db.statements import insert_many


class TrailKind(StrEnum):
    """What happened; stored by value, so a member's value never changes."""

    OUTPUT_ACCEPTED = "output.accepted"
    #: The text of an output and all that was made of it are gone; its key is destroyed.
    OUTPUT_ERASED = "output.erased"
    EXAMPLE_ERASED = "example.erased"
    #: Somebody asked for an erasure, which the sweeper carries out.
    ERASURE_REQUESTED = "erasure.requested"
    #: It was not carried out, because a hold came first.
    ERASURE_REFUSED = "erasure.refused"
    HOLD_PLACED = "hold.placed"
    HOLD_LIFTED = "hold.lifted"
    RETENTION_SET = "retention.set"
    RETENTION_ENDED = "retention.ended"
    #: The folder of a bundle that held an erased training example is gone.
    BUNDLE_DELETED = "bundle.deleted"
    #: Somebody was shown flagged texts: one output, or a page of a list.
    TEXT_READ = "text.read"
    #: Flagged texts left the service in a file; one event per page of it.
    TEXT_EXPORTED = "text.exported"
    AUDIT_FINISHED = "audit.finished"
    AUDIT_REJECTED = "audit.rejected"
    AUDIT_DEAD = "audit.dead"
    AUDIT_REQUEUED = "audit.requeued"
    #: An attempt failed, and another one follows.
    AUDIT_RETRIED = "audit.retried"
    #: Taken back from a worker that did not extend its lease, or ended.
    AUDIT_RELEASED = "audit.released"
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
    MEASUREMENT_RETRIED = "measurement.retried"
    MEASUREMENT_RELEASED = "measurement.released"
    KEY_CREATED = "key.created"
    KEY_REVOKED = "key.revoked"
    #: It ends at a time, because a new one took its place.
    KEY_ENDING = "key.ending"
    #: It has other quotas.
    KEY_BOUNDED = "key.bounded"
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
    WHAT_IF_RETRIED = "what_if.retried"
    WHAT_IF_RELEASED = "what_if.released"
    #: A corpus is to be read by many machines.
    BUILD_PLANNED = "build.planned"
    #: All its parts are merged into a bundle, or nobody wants it any more.
    BUILD_FINISHED = "build.finished"
    BUILD_CANCELLED = "build.cancelled"
    BUILD_PART_DEAD = "build_part.dead"
    BUILD_PART_RETRIED = "build_part.retried"
    BUILD_PART_RELEASED = "build_part.released"
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


#: Number of the newest event of something that changed. What was only read, or taken out, comes from a journal.
NEWEST_CHANGE: ScalarSelect[Any] = (
    select(func.max(TrailEvent.id)).where(TrailEvent.journal_id.is_(None)).scalar_subquery()
)


@dataclass(frozen=True)
class Event:
    """One thing that happened. The payload holds ids, digests and codes, never a text that may have to be erased."""

    kind: TrailKind
    #: ``table:id`` of what it happened to.
    subject: str
    payload: dict[str, Any] = field(default_factory=dict)


#: Who acts where nobody said so: a process of the service.
SERVICE = "service"
#: Whoever is on the machine, where no key is asked for and no name was chosen.
LOCAL_ACTOR = "local"
#: Whoever runs a command of `python -m worker`.
OPERATOR = "operator"

_ACTOR: ContextVar[str] = ContextVar("wherefrom_actor", default=SERVICE)


@contextmanager
def acting_as(actor: str) -> Iterator[None]:
    """Events of the block are this actor's: an id, never a name."""
    before = _ACTOR.set(actor)
    try:
        yield
    finally:
        _ACTOR.reset(before)


def act_as(actor: str) -> None:
    """The same until the task of the request ends."""
    _ACTOR.set(actor)


def record_events(session: Session, events: Sequence[Event]) -> None:
    """Append events to the trail with one statement; they are there when the caller's transaction commits."""
    actor = _ACTOR.get()
    rows = [
        {"kind": one.kind.value, "subject": one.subject, "payload": one.payload, "actor": actor}
        for one in events
    ]
    insert_many(session, TrailEvent, rows)
