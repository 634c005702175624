"""Leases stay alive while a batch is worked on, and what was lost is known."""

from functools import partial

import pytest

from tasks.heartbeat import Heartbeat, LeaseLost
from tests.waiting import wait_until
from wherefrom.errors import DatabaseUnavailable
from wherefrom.records import FlaggedRecord


@pytest.fixture
def claim(bench):
    """Two claimed audits."""
    for _ in range(2):
        bench.audits.add(FlaggedRecord(prompt="p", completion="c", model="m"))
    return bench.store.claim(1, limit=2, lease_s=60, max_attempts=5)


def heartbeat_of(bench, claim, every_s=15):
    """The heartbeat of a claimed batch."""
    return Heartbeat(
        partial(bench.store.extend, lease_s=60),
        [one.lease for one in claim.audits],
        every_s=every_s,
        bundle_id=claim.bundle_id,
    )


def test_a_beat_extends_the_leases(bench, claim):
    """After a beat the lease lasts for its full time again."""
    heartbeat = heartbeat_of(bench, claim)
    bench.now += 50
    heartbeat.beat()
    assert bench.audits.by_id[1].lease_until == bench.now + 60


def test_a_lost_audit_is_not_held(bench, claim):
    """When another worker claimed an audit, the next beat tells."""
    heartbeat = heartbeat_of(bench, claim)
    bench.audits.by_id[1].attempt += 1
    lost, kept = (one.lease for one in claim.audits)
    assert heartbeat.holds(lost)
    heartbeat.beat()
    assert not heartbeat.holds(lost)
    assert heartbeat.holds(kept)
    heartbeat.require(kept)
    with pytest.raises(LeaseLost):
        heartbeat.require(lost)


def test_an_absent_database_loses_nothing(bench, claim, logs):
    """A missed beat is told in the log; the leases may still stand."""

    def _away(*_args, **_kwargs):
        raise DatabaseUnavailable("away")

    bench.store.extend = _away
    heartbeat = heartbeat_of(bench, claim)
    heartbeat.beat()
    assert heartbeat.holds(claim.audits[0].lease)
    assert [one["event"] for one in logs] == ["heartbeat_missed"]


def test_the_thread_beats_until_the_block_ends(bench, claim):
    """Inside the block leases are extended again and again; after it no thread is left."""
    with heartbeat_of(bench, claim, every_s=0.005) as heartbeat:
        for _ in range(2):
            bench.now += 10
            wait_until(lambda: bench.audits.by_id[1].lease_until == bench.now + 60)
    assert not heartbeat._thread.is_alive()


def test_no_error_ends_the_thread(bench, claim, logs):
    """A beat that fails for whatever reason is told with its traceback, and the next one extends the leases."""
    extend, failures = bench.store.extend, [ZeroDivisionError("bug"), RuntimeError("read-only")]

    def _sometimes(*args, **kwargs):
        if failures:
            raise failures.pop()
        return extend(*args, **kwargs)

    bench.store.extend = _sometimes
    with heartbeat_of(bench, claim, every_s=0.005):
        bench.now += 10
        wait_until(lambda: bench.audits.by_id[1].lease_until == bench.now + 60)
    assert [(one["event"], one["exc_info"]) for one in logs] == [("heartbeat_failed", True)] * 2


def test_leases_come_and_go(bench, claim):
    """What is taken on is extended from the next beat on; what was let go is not, and is not held."""
    first, second = (one.lease for one in claim.audits)
    heartbeat = Heartbeat(partial(bench.store.extend, lease_s=60), [first], every_s=15, bundle_id=1)
    heartbeat.take_on([second])
    heartbeat.let_go([first])
    until, bench.now = bench.audits.by_id[1].lease_until, bench.now + 50
    heartbeat.beat()
    assert [bench.audits.by_id[one].lease_until for one in (1, 2)] == [until, bench.now + 60]
    assert (heartbeat.holds(first), heartbeat.holds(second)) == (False, True)


def test_what_was_claimed_anew_during_a_beat_stays_held(bench, claim):
    """The beat asked for the attempt before; its answer says nothing of this one."""
    old = claim.audits[0].lease
    new = old.model_copy(update={"attempt": old.attempt + 1})

    def extend(leases):
        heartbeat.take_on([new])
        return set()

    heartbeat = Heartbeat(extend, [old], every_s=15, bundle_id=1)
    heartbeat.beat()
    assert heartbeat.holds(new)
    assert not heartbeat.holds(old)
    heartbeat.let_go([old])
    assert heartbeat.holds(new)
