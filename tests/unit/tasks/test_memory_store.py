"""The store in memory keeps the rules of the SQL store."""

from tests.memory_store import MemoryAuditStore
from wherefrom.records import FlaggedRecord, Severity


def flag(bench, severity=Severity.MEDIUM):
    """Add an audit; its id."""
    return bench.audits.add(FlaggedRecord(prompt="p", completion="c", model="m", severity=severity))


def claimed_ids(store, limit=10):
    """Ids of a claim in its order; work on each begins."""
    claim = store.claim(1, limit=limit, lease_s=60, max_attempts=2)
    return None if claim is None else [one.audit_id for one in claim.audits if store.begin(one.lease)]


def test_urgent_audits_are_claimed_first_then_old_ones(bench):
    """By severity, then by id."""
    flag(bench)
    flag(bench, Severity.CRITICAL)
    flag(bench, Severity.HIGH)
    assert claimed_ids(bench.store, limit=2) == [2, 3]
    assert claimed_ids(bench.store) == [1]
    assert claimed_ids(bench.store) is None


def test_an_expired_lease_is_claimed_by_another_until_attempts_are_spent(bench):
    """A dead worker's audit goes to the next one, as often as there are attempts."""
    flag(bench)
    other = MemoryAuditStore(bench.audits, owner="other")
    assert claimed_ids(bench.store) == [1]
    assert claimed_ids(other) is None
    bench.now += 61
    assert bench.store.pending_counts() == {1: 1}
    assert claimed_ids(other) == [1]
    assert bench.audits.by_id[1].owner == "other"
    bench.now += 61
    assert claimed_ids(bench.store) is None
