"""Parts of builds over many machines in SQL: planned once, claimed behind a fence, put back, ended."""

from typing import Any

import pytest
from sqlalchemy import select

from db.audit_trail.trail import TrailKind
from db.bundles import shared_builds
from db.models import TrailEvent
from db.queues.build_queue import BuildQueue
from db.queues.queue import Failure
from db.session import Database
from wherefrom.errors import NotFound
from wherefrom.records import ClaimedPart, MeasurementState, PartOutput, PlannedPart

OUTPUT = PartOutput(shards=("a" * 64,), moments="b" * 64)


def plan(db: Database, identity: str = "1" * 64, parts: int = 3) -> int:
    """A build of parts of ten rows."""
    planned = [
        PlannedPart(number=one, first_row=10 * one, rows=10, tokens=100, rows_sha256=f"{one:064x}")
        for one in range(parts)
    ]
    return shared_builds.plan_build(
        db, identity=identity, store="/shared", plan={"model": "m"}, parts=planned
    )


def claim(db: Database, build_id: int, owner: str = "w", **more: Any) -> ClaimedPart:
    """The next part."""
    found = BuildQueue(db).claim(build_id, owner=owner, **({"lease_s": 60} | more))
    assert found is not None
    return found


def test_the_same_build_is_planned_once(db: Database) -> None:
    """Planned again, it is the same build with its parts as they stand; another identity is another build."""
    first = plan(db)
    claimed = claim(db, first)
    assert BuildQueue(db).finish(claimed, OUTPUT)
    assert plan(db) == first
    assert plan(db, "2" * 64) != first
    now = shared_builds.progress_of(db, first)
    assert (now.waiting, now.running, now.done, now.dead, now.tokens_done) == (2, 0, 1, 0, 100)
    assert shared_builds.find_build(db, "1" * 64) == first
    assert [one.parts for one, _ in shared_builds.list_builds(db)] == [3, 3]


def test_parts_are_claimed_in_order_and_told_by_build(db: Database) -> None:
    """Each once; what waits is counted for each build."""
    one, other = plan(db), plan(db, "2" * 64, parts=1)
    assert BuildQueue(db).pending_counts() == {one: 3, other: 1}
    assert [claim(db, one).first_row for _ in range(3)] == [0, 10, 20]
    assert BuildQueue(db).claim(one, owner="w", lease_s=60) is None
    assert BuildQueue(db).pending_counts() == {other: 1}


def test_a_late_worker_stores_nothing(db: Database) -> None:
    """Its lease ran out and another one has read the part: the first one's files do not count."""
    build_id, queue = plan(db, parts=1), BuildQueue(db)
    slow = claim(db, build_id, "slow", lease_s=-1)
    assert queue.release_expired(max_attempts=5) == 1
    quick = claim(db, build_id, "quick")
    assert queue.finish(quick, OUTPUT)
    late = PartOutput(shards=("c" * 64,), moments="d" * 64)
    assert not queue.finish(slow, late)
    assert queue.fail(slow.lease, Failure("x", "late"), max_attempts=5) is None
    assert shared_builds.outputs_of(db, build_id, first=0, limit=9) == {0: OUTPUT}


def test_a_part_that_keeps_failing_is_dead_and_waits_again_when_planned(db: Database) -> None:
    """It says code and reason; the same command gives it all its attempts anew, and nothing else is read again."""
    build_id, queue = plan(db), BuildQueue(db)
    assert queue.finish(claim(db, build_id), OUTPUT)
    for attempt in (1, 2):
        failed = claim(db, build_id)
        state = queue.fail(failed.lease, Failure("out_of_memory", "too large", retry_in_s=0), max_attempts=2)
        assert state is (MeasurementState.PENDING if attempt == 1 else MeasurementState.DEAD)
    now = shared_builds.progress_of(db, build_id)
    assert [(one.number, one.first_row, one.code) for one in now.dead_parts] == [
        (1, 10, "attempts_exhausted")
    ]
    assert "too large" in now.dead_parts[0].reason
    shared_builds.refuse(db, build_id, worker="w", code="build_mismatch", reason="another model")
    refused = shared_builds.progress_of(db, build_id).refused
    assert refused is not None
    assert (refused.worker, refused.code) == ("w", "build_mismatch")
    plan(db)
    now = shared_builds.progress_of(db, build_id)
    assert (now.waiting, now.done, now.dead, now.refused) == (2, 1, 0, None)
    with db.reading() as session:
        kinds = session.scalars(select(TrailEvent.kind)).all()
    assert sorted(kinds) == ["build.planned", "build_part.dead", "build_part.retried"]


def test_a_part_whose_file_is_gone_is_read_again(db: Database) -> None:
    """It loses its output and waits."""
    build_id, queue = plan(db, parts=1), BuildQueue(db)
    assert queue.finish(claim(db, build_id), OUTPUT)
    shared_builds.read_again(db, build_id, [0])
    assert shared_builds.outputs_of(db, build_id, first=0, limit=9) == {}
    assert queue.finish(claim(db, build_id), OUTPUT)


@pytest.mark.parametrize("kind", [TrailKind.BUILD_FINISHED, TrailKind.BUILD_CANCELLED])
def test_an_ended_build_is_gone(db: Database, kind: TrailKind) -> None:
    """With its parts; who still reads one is fenced, and who waits learns it."""
    build_id, other = plan(db), plan(db, "2" * 64)
    held = claim(db, build_id)
    assert shared_builds.end_build(db, build_id, kind)
    assert not shared_builds.end_build(db, build_id, kind)
    assert not BuildQueue(db).finish(held, OUTPUT)
    with pytest.raises(NotFound):
        shared_builds.progress_of(db, build_id)
    with pytest.raises(NotFound):
        shared_builds.read_build(db, build_id)
    assert shared_builds.read_build(db, other).plan == {"model": "m"}
