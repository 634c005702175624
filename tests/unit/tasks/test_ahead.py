"""The next batch is claimed while this one is worked on: passes are full, urgent audits overtake, and nothing is kept that is not worked on."""

from collections.abc import MutableMapping, Sequence
from typing import Any, NoReturn

import pytest

from tasks.ahead import Ahead
from tests.unit.tasks.conftest import Bench
from tests.waiting import wait_until
from wherefrom.errors import DatabaseUnavailable
from wherefrom.records import AuditState, Claim, FlaggedRecord, Severity
from wherefrom.settings import Settings

#: Ten words: six of them fill a pass of 64.
WORDS = "one two three four five six seven eight nine ten"
BATCH = 8
#: Audits in hand during the first pass of six: two are left, and six are claimed ahead.
HELD = 14


def add(bench: Bench, count: int, severity: Severity = Severity.MEDIUM, completion: str = WORDS) -> list[int]:
    """Pending audits of equal length; their ids."""
    record = FlaggedRecord(prompt="p", completion=completion, model="m", severity=severity)
    return [bench.audits.add(record) for _ in range(count)]


def ahead_of(bench: Bench, **given: Any) -> Ahead:
    """Claims what there is room for as long as there is any."""
    bench.settings = bench.settings.model_copy(update={"batch_audits": BATCH})

    def find(room: int) -> Claim | None:
        return bench.store.claim(1, limit=room, lease_s=60, max_attempts=bench.settings.max_attempts)

    return Ahead(bench.store, **{"find": find} | given)


def running(bench: Bench) -> int:
    """How many audits are held."""
    return sum(state == "running" for state in bench.states().values())


def test_the_next_batch_is_claimed_during_a_pass(bench: Bench) -> None:
    """While the pass of the first batch is computed, the second one is held already."""
    add(bench, 2 * BATCH)
    passes: list[Sequence[str]] = []

    def compute(keys: Sequence[str]) -> None:
        if not passes:
            wait_until(lambda: running(bench) == HELD)
        passes.append(keys)

    report = bench.work(bench.engine(compute), limit=BATCH, ahead=ahead_of(bench))
    assert report.counts() == {"done": 2 * BATCH}


def test_passes_are_filled_across_claims(bench: Bench) -> None:
    """What one claim leaves over fills the passes of the next: all but the last are full."""
    add(bench, 5 * BATCH)
    alone, engine = bench.engine(), bench.engine()
    bench.work(alone, limit=BATCH)
    assert [len(keys) for keys in alone.passes] == [6, 2]
    add(bench, BATCH)
    bench.work(engine, limit=BATCH, ahead=ahead_of(bench))
    assert [len(keys) for keys in engine.passes] == [6, 6, 6, 6, 6, 6, 4]


def test_urgent_audits_overtake_what_was_claimed_before(bench: Bench) -> None:
    """One that comes during a pass is in the next claim, and its pass is the first behind it, though shorter ones are packed before it."""
    add(bench, 4 * BATCH)
    urgent: list[int] = []

    def compute(keys: Sequence[str]) -> None:
        urgent.extend([] if urgent else add(bench, 1, Severity.CRITICAL, f"{WORDS} {WORDS}"))

    def find(room: int) -> Claim | None:
        wait_until(lambda: urgent)
        return bench.store.claim(1, limit=room, lease_s=60, max_attempts=3)

    engine = bench.engine(compute)
    bench.work(engine, limit=BATCH, ahead=ahead_of(bench, find=find))
    assert str(urgent[0]) in engine.passes[1]


def test_urgent_audits_overtake_claims_made_ahead(bench: Bench) -> None:
    """A batch of five passes is in hand, and the next claim is made when an urgent one comes: it is two passes away, not seven."""
    add(bench, 90)
    urgent: list[int] = []
    claims: list[Claim | None] = []

    def compute(keys: Sequence[str]) -> None:
        if len(engine.passes) == 3 and not urgent:
            wait_until(lambda: len(claims) == 3)
            urgent.extend(add(bench, 1, Severity.CRITICAL))

    def find(room: int) -> Claim | None:
        claims.append(bench.store.claim(1, limit=room, lease_s=60, max_attempts=3))
        return claims[-1]

    engine, ahead = bench.engine(compute), ahead_of(bench, find=find)
    bench.settings = bench.settings.model_copy(update={"batch_audits": 30})
    report = bench.work(engine, limit=30, ahead=ahead)
    assert str(urgent[0]) in engine.passes[4]
    assert report.counts() == {"done": 91}
    assert [len(keys) for keys in engine.passes] == [6] * 15 + [1], "claims of a few fill no pass less"


def test_a_process_that_is_to_end_hands_back_what_it_claimed_ahead(bench: Bench) -> None:
    """The batch in hand is finished, the one behind it can be claimed by others at once and cost no attempt."""
    add(bench, 2 * BATCH)
    ending: list[bool] = []

    def compute(keys: Sequence[str]) -> None:
        if not ending:
            wait_until(lambda: running(bench) == HELD)
        ending.append(True)

    ahead = ahead_of(bench, is_ending=lambda: bool(ending))
    report = bench.work(bench.engine(compute), limit=BATCH, ahead=ahead)
    assert report.counts() == {"done": BATCH, "handed_back": HELD - BATCH}
    left = [one for one in bench.audits.by_id.values() if one.state is AuditState.PENDING]
    assert [(one.spent, one.owner) for one in left] == [(0, None)] * BATCH
    engine = bench.engine()
    assert bench.work(engine, limit=100).counts() == {"done": BATCH}
    assert len(engine.passes) < BATCH, "nothing failed, so none of them runs alone"


def test_a_batch_that_ends_early_hands_back_what_was_claimed_ahead(bench: Bench) -> None:
    """The database takes no answer: the leases of what was computed run out, what was claimed ahead is free at once."""
    add(bench, 2 * BATCH)

    def away(*_arguments: object, **_given: object) -> NoReturn:
        wait_until(lambda: running(bench) == HELD)
        raise DatabaseUnavailable("away")

    bench.store.finish = bench.store.check_writable = away  # type: ignore[method-assign]  # a double of the store
    with pytest.raises(DatabaseUnavailable):
        bench.work(bench.engine(), limit=BATCH, ahead=ahead_of(bench))
    assert running(bench) == BATCH
    assert sum(state == "pending" for state in bench.states().values()) == BATCH


def test_what_cannot_be_handed_back_is_told(bench: Bench, logs: list[MutableMapping[str, Any]]) -> None:
    """Its lease runs out; the error of the batch is the one that is raised."""
    add(bench, 2 * BATCH)

    def away(*_arguments: object, **_given: object) -> NoReturn:
        raise DatabaseUnavailable("away")

    bench.store.finish = bench.store.check_writable = bench.store.hand_back = away  # type: ignore[method-assign]  # a double of the store
    with pytest.raises(DatabaseUnavailable):
        bench.work(bench.engine(), limit=BATCH, ahead=ahead_of(bench))
    assert "claim_not_handed_back" in [one["event"] for one in logs]


def test_a_claim_that_fails_ends_nothing(bench: Bench, logs: list[MutableMapping[str, Any]]) -> None:
    """The database is away for the next claim only: the work in hand is stored."""
    add(bench, 2 * BATCH)

    def away(room: int) -> None:
        raise DatabaseUnavailable("away")

    report = bench.work(bench.engine(), limit=BATCH, ahead=ahead_of(bench, find=away))
    assert report.counts() == {"done": BATCH}
    assert "next_claim_put_off" in [one["event"] for one in logs]


def test_what_another_worker_took_meanwhile_is_dropped(bench: Bench) -> None:
    """What was claimed ahead is fenced like anything else."""
    ids = add(bench, 2 * BATCH)
    taken: list[int] = []

    def compute(keys: Sequence[str]) -> None:
        if not taken:
            wait_until(lambda: running(bench) == HELD)
            taken.append(ids[HELD - 1])
            bench.audits.by_id[ids[HELD - 1]].owner = "other"

    report = bench.work(bench.engine(compute), limit=BATCH, ahead=ahead_of(bench))
    assert report.counts() == {"done": 2 * BATCH - 1, "fenced": 1}
    assert bench.audits.by_id[ids[HELD - 1]].owner == "other"


def test_leases_of_what_was_claimed_ahead_are_kept_alive(bench: Bench) -> None:
    """A pass that takes longer than a lease loses neither its own audits nor those behind it."""
    bench.settings = Settings(batch_tokens=64, heartbeat_seconds=0.01)
    ids = add(bench, 2 * BATCH)
    waited: list[float] = []

    def compute(keys: Sequence[str]) -> None:
        if not waited:
            wait_until(lambda: running(bench) == HELD)
            for _ in range(3):
                bench.now += 50
                wait_until(
                    lambda: all(bench.audits.by_id[one].lease_until == bench.now + 60 for one in ids[:HELD])
                )
            waited.append(bench.now)

    report = bench.work(bench.engine(compute), limit=BATCH, ahead=ahead_of(bench))
    assert report.counts() == {"done": 2 * BATCH}


def test_nothing_follows_a_claim_with_suspects(bench: Bench) -> None:
    """One of them may end this process, and would take the next batch with it."""
    ids = add(bench, 2 * BATCH)
    bench.audits.by_id[ids[0]].attempt = 1
    report = bench.work(bench.engine(), limit=BATCH, ahead=ahead_of(bench))
    assert report.counts() == {"done": BATCH}
    assert [bench.audits.by_id[one].state for one in ids[BATCH:]] == [AuditState.PENDING] * BATCH


@pytest.mark.parametrize(("ends_in", "alone"), [(2, 0), (3, 1)])
def test_suspects_that_were_claimed_ahead_are_handed_back_too(bench: Bench, ends_in: int, alone: int) -> None:
    """A process that is to end does not run each of them alone before; that could take as long as many batches."""
    ids = add(bench, 2 * BATCH)
    for one in ids[BATCH:]:
        bench.audits.by_id[one].attempt = 1
    engine = bench.engine()
    ahead = ahead_of(bench, is_ending=lambda: len(engine.passes) >= ends_in)
    report = bench.work(engine, limit=BATCH, ahead=ahead)
    assert report.counts() == {"done": BATCH + alone, "handed_back": HELD - BATCH - alone}
    assert running(bench) == 0


def test_what_this_process_claims_anew_is_held_under_its_new_attempt(bench: Bench) -> None:
    """The leases of two audits ran out behind a pass, and the claim ahead took them again: the old ones are dropped before they are computed, the new ones are answered."""
    ids = add(bench, BATCH)
    late: list[int] = []

    def compute(keys: Sequence[str]) -> None:
        if not late:
            late.extend(ids[6:])
            for one in late:
                bench.audits.by_id[one].lease_until = bench.now
            wait_until(lambda: all(bench.audits.by_id[one].attempt == 2 for one in late))

    def find(room: int) -> Claim | None:
        wait_until(lambda: late)
        return bench.store.claim(1, limit=room, lease_s=60, max_attempts=3)

    engine = bench.engine(compute)
    report = bench.work(engine, limit=BATCH, ahead=ahead_of(bench, find=find))
    assert report.counts() == {"done": BATCH, "fenced": 2}
    assert [len(keys) for keys in engine.passes] == [6, 1, 1]


def test_the_time_limit_begins_anew_with_each_claim(bench: Bench) -> None:
    """Whoever sets it is told when work on another claim begins."""
    add(bench, 3 * BATCH)
    begun: list[int] = []
    bench.work(bench.engine(), limit=BATCH, ahead=ahead_of(bench, on_taken=lambda: begun.append(1)))
    assert len(begun) == 3
