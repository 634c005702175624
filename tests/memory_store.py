"""A working `AuditStore` in memory, for the tests of everything above it.

It keeps the rules of the SQL store (order by priority and id, leases, attempts, fencing), not its durability.

Why not the SQL store itself: leases and waits go by the database's clock there, and these tests move the clock; a property makes a new queue for each of its
examples.
"""

import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from db.queues.audit_queue import Finished
from db.queues.queue import Failure
from wherefrom.errors import ATTEMPTS_EXHAUSTED
from wherefrom.records import Attribution, AuditState, Claim, ClaimedAudit, FlaggedRecord, Lease, Severity

_PRIORITY = {Severity.CRITICAL: 0, Severity.HIGH: 1, Severity.MEDIUM: 2, Severity.LOW: 3}


@dataclass
class StoredAudit:
    """One audit as the memory store keeps it."""

    audit_id: int
    bundle_id: int
    record: FlaggedRecord
    state: AuditState = AuditState.PENDING
    attempt: int = 0
    spent: int = 0
    owner: str | None = None
    lease_until: float = 0.0
    next_attempt_at: float = 0.0
    handed_back: bool = False
    code: str | None = None
    reason: str | None = None
    attribution: Attribution | None = None


@dataclass
class MemoryAudits:
    """All audits, shared by the stores of several owners."""

    clock: Callable[[], float] = time.monotonic
    by_id: dict[int, StoredAudit] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, record: FlaggedRecord, *, bundle_id: int = 1) -> int:
        """Add a pending audit; its id."""
        with self.lock:
            audit_id = len(self.by_id) + 1
            self.by_id[audit_id] = StoredAudit(audit_id, bundle_id, record)
            return audit_id

    def claimable(self, audit: StoredAudit) -> bool:
        """Is the audit pending and due, or was it left by a worker whose lease ran out?"""
        now = self.clock()
        if audit.state is AuditState.RUNNING:
            return audit.lease_until <= now
        return audit.state is AuditState.PENDING and audit.next_attempt_at <= now


class MemoryAuditStore:
    """The store of one owner over shared `MemoryAudits`."""

    def __init__(self, audits: MemoryAudits, owner: str = "memory") -> None:
        self._audits = audits
        self._owner = owner

    def claim(
        self, bundle_id: int, *, limit: int, lease_s: float, max_attempts: int, owner: str | None = None
    ) -> Claim | None:
        """Claim audits of a bundle."""
        self._owner = owner or self._owner
        with self._audits.lock:
            due = [one for one in self._audits.by_id.values() if self._audits.claimable(one)]
            mine = sorted(
                (one for one in due if one.bundle_id == bundle_id and one.spent < max_attempts),
                key=lambda one: (_PRIORITY[one.record.severity], one.audit_id),
            )[:limit]
            for one in mine:
                one.state, one.owner, one.attempt = AuditState.RUNNING, self._owner, one.attempt + 1
                one.lease_until = self._audits.clock() + lease_s
            if not mine:
                return None
            audits = tuple(
                ClaimedAudit(
                    audit_id=one.audit_id,
                    output_id=one.audit_id,
                    bundle_id=bundle_id,
                    attempt=one.attempt,
                    owner=self._owner,
                    spent=one.spent,
                    handed_back=one.handed_back,
                    record=one.record,
                )
                for one in mine
            )
            for one in mine:
                one.handed_back = False
            return Claim(
                owner=self._owner, bundle_id=bundle_id, bundle_name=f"bundle-{bundle_id}", audits=audits
            )

    def extend(self, leases: Sequence[Lease], *, lease_s: float) -> set[int]:
        """Renew the leases."""
        with self._audits.lock:
            held = {one.id: stored for one in leases if (stored := self._held(one)) is not None}
            for stored in held.values():
                stored.lease_until = self._audits.clock() + lease_s
            return set(held)

    def begin(self, lease: Lease) -> bool:
        """Count an attempt."""
        with self._audits.lock:
            stored = self._held(lease)
            if stored is not None:
                stored.spent = lease.spent + 1
            return stored is not None

    def finish(self, finished: Sequence[Finished]) -> set[int]:
        """Keep the attributions."""
        with self._audits.lock:
            held = {
                one.claimed.audit_id: one for one in finished if self._held(one.claimed.lease) is not None
            }
            for audit_id, one in held.items():
                stored = self._audits.by_id[audit_id]
                stored.state, stored.attribution, stored.owner = one.state, one.attribution, None
                stored.code, stored.reason = one.code, one.reason
            return set(held)

    def fail(self, lease: Lease, failure: Failure, *, max_attempts: int) -> AuditState | None:
        """Keep the failed attempt."""
        with self._audits.lock:
            stored = self._held(lease)
            if stored is None:
                return None
            stored.code, stored.reason, stored.owner = failure.code, failure.reason, None
            stored.spent = lease.spent + 1
            if failure.retry_in_s is None:
                stored.state = AuditState.REJECTED if failure.refused else AuditState.DEAD
            elif stored.spent >= max_attempts:
                stored.state, stored.code = AuditState.DEAD, ATTEMPTS_EXHAUSTED
                stored.reason = f"{failure.code}: {failure.reason}"
            else:
                stored.state = AuditState.PENDING
                stored.next_attempt_at = self._audits.clock() + failure.retry_in_s
            return stored.state

    def hand_back(self, leases: Sequence[Lease], *, suspects: Collection[int] = ()) -> int:
        """Make them pending."""
        with self._audits.lock:
            held = [stored for one in leases if (stored := self._held(one)) is not None]
            for stored in held:
                stored.state, stored.owner = AuditState.PENDING, None
                stored.handed_back = stored.audit_id not in suspects
            return len(held)

    def check_writable(self) -> None:
        """Memory takes writes."""

    def pending_counts(self, *, at_most: int | None = None) -> dict[int, int]:
        """Count what could be claimed now."""
        counts: dict[int, int] = {}
        with self._audits.lock:
            for one in self._audits.by_id.values():
                if self._audits.claimable(one):
                    counts[one.bundle_id] = counts.get(one.bundle_id, 0) + 1
        return {one: min(number, at_most or number) for one, number in counts.items()}

    def _held(self, lease: Lease) -> StoredAudit | None:
        """The stored audit if the lease still holds."""
        stored = self._audits.by_id[lease.id]
        token = (AuditState.RUNNING, lease.owner, lease.attempt)
        return stored if (stored.state, stored.owner, stored.attempt) == token else None
