"""What a batch needs of the queue of audits; `db.queues.audit_queue` is the real one.

Every method may raise `DatabaseUnavailable`; nothing is recorded then, and the lease runs out.
"""

from collections.abc import Collection, Sequence
from typing import Protocol

from db.queues.audit_queue import Finished
from db.queues.queue import Failure
from wherefrom.records import AuditState, Claim, Lease


class AuditStore(Protocol):
    """Claims audits and records what became of them; `db.queues.queue` and `db.queues.audit_queue` say how."""

    def claim(
        self, bundle_id: int, *, owner: str, limit: int, lease_s: float, max_attempts: int
    ) -> Claim | None:
        """Take up to `limit` audits of a bundle for `lease_s` seconds; None when there are none."""

    def extend(self, leases: Sequence[Lease], *, lease_s: float) -> set[int]:
        """Renew leases; the ids that are still held."""

    def begin(self, lease: Lease) -> bool:
        """Count an attempt before work on this audit alone begins; False when another worker holds it."""

    def finish(self, finished: Sequence[Finished]) -> set[int]:
        """Record attributions with their citations, all or none of those that are still held; their ids."""

    def fail(self, lease: Lease, failure: Failure, *, max_attempts: int) -> AuditState | None:
        """Record a failed attempt; the new state, or None when another worker holds the audit."""

    def hand_back(self, leases: Sequence[Lease], *, suspects: Collection[int] = ()) -> int:
        """Put audits back that were claimed and not worked on, `suspects` by id among them; how many were still held."""

    def check_writable(self) -> None:
        """Return where the database takes writes; raises `DatabaseUnavailable` where it is to blame."""

    def pending_counts(self, *, at_most: int | None = None) -> dict[int, int]:
        """How many audits could be claimed now, by bundle id, counted no further than `at_most`."""
