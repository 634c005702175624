"""What a batch needs of the place where audits are kept, and the SQL version of it.

The protocol hides the owner's name and the database from `tasks.attribute`; `tasks.memory_store` has a working version
without SQL. Every method may raise `DatabaseUnavailable`; nothing is recorded then, and the lease runs out.
"""

from collections.abc import Sequence
from typing import Protocol

from db import claims
from db.claims import Finished
from db.session import Database
from wherefrom.records import AuditState, Claim, ClaimedAudit


class AuditStore(Protocol):
    """Claims audits for one owner and records what became of them."""

    def claim(self, bundle_id: int, *, limit: int, lease_s: float, max_attempts: int) -> Claim | None:
        """Take up to `limit` audits of a bundle for `lease_s` seconds; None when there are none.

        Those whose lease ran out with the last of `max_attempts` attempts are left to the sweeper.
        """

    def extend(self, claim: Claim, *, lease_s: float) -> set[int]:
        """Renew the leases of a claim for `lease_s` seconds; the ids of the audits that are still held."""

    def finish(self, finished: Sequence[Finished]) -> set[int]:
        """Record attributions with their citations, all or none of those that are still held.

        Returns:
            Ids of the audits that were recorded; the others are held by another worker by now.
        """

    def reject(self, claimed: ClaimedAudit, *, code: str, reason: str) -> bool:
        """Record that this audit can never be answered; False when another worker holds it by now."""

    def fail(
        self, claimed: ClaimedAudit, *, code: str, reason: str, retry_in_s: float | None, max_attempts: int
    ) -> AuditState | None:
        """Record a failed attempt; the new state, `pending` or `dead`, or None when another worker holds the audit.

        Args:
            claimed: The audit with its fencing token.
            code: Stable code of the failure.
            reason: What happened, without text of the output.
            retry_in_s: Seconds until the next attempt; None makes the audit dead at once.
            max_attempts: Attempts after which the audit is dead.
        """

    def pending_counts(self) -> dict[int, int]:
        """How many audits could be claimed now, by bundle id."""


class SqlAuditStore:
    """The store over `db.claims` for one owner."""

    def __init__(self, database: Database, owner: str) -> None:
        self._database = database
        self._owner = owner

    def claim(self, bundle_id: int, *, limit: int, lease_s: float, max_attempts: int) -> Claim | None:
        """Claim audits of a bundle."""
        return claims.claim(
            self._database,
            bundle_id=bundle_id,
            limit=limit,
            owner=self._owner,
            lease_s=lease_s,
            max_attempts=max_attempts,
        )

    def extend(self, claim: Claim, *, lease_s: float) -> set[int]:
        """Renew the leases."""
        return claims.extend(self._database, claim, lease_s=lease_s)

    def finish(self, finished: Sequence[Finished]) -> set[int]:
        """Store citations and states in one transaction."""
        return claims.finish_many(self._database, self._owner, finished)

    def reject(self, claimed: ClaimedAudit, *, code: str, reason: str) -> bool:
        """Store the rejection."""
        return claims.reject(self._database, claimed, self._owner, code, reason)

    def fail(
        self, claimed: ClaimedAudit, *, code: str, reason: str, retry_in_s: float | None, max_attempts: int
    ) -> AuditState | None:
        """Store the failed attempt."""
        return claims.fail(
            self._database,
            claimed,
            self._owner,
            code,
            reason,
            retry_in_s=retry_in_s,
            max_attempts=max_attempts,
        )

    def pending_counts(self) -> dict[int, int]:
        """Count what could be claimed now."""
        return claims.pending_counts(self._database)
