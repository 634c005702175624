"""Outputs that kill the process that works on them: whatever their number and place, they take nobody with them."""

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.ahead import Ahead
from wherefrom.records import AuditState, FlaggedRecord
from wherefrom.settings import Settings

BATCH = 32


class Killed(BaseException):
    """The process is gone at this moment: no code of the batch runs any more."""


class DeadlyAttributor:
    """The engine of a bench; dies at `stage` with a poison."""

    bundle_name = "bundle-1"

    def __init__(self, inner, poisons, stage):
        self._inner, self._poisons, self._stage = inner, poisons, stage

    def prepare(self, query, *, max_tokens, over_long):
        """As the inner engine, or death."""
        if self._stage == "prepare" and int(query.key) in self._poisons:
            raise Killed
        return self._inner.prepare(query, max_tokens=max_tokens, over_long=over_long)

    def attribute(self, prepared, *, top_k, opponents):
        """As the inner engine, or death."""
        if self._stage == "attribute" and self._poisons & {int(one.key) for one in prepared}:
            raise Killed
        return self._inner.attribute(prepared, top_k=top_k, opponents=opponents)


def work_to_the_end(bench, poisons, *, stage="attribute", audits=BATCH):
    """Process after process works on the audits until nothing can be claimed; how many processes died."""
    for number in range(1, audits + 1):
        completion = f"{'word ' * (number % 7)}tail"
        bench.audits.add(FlaggedRecord(prompt="p", completion=completion, model="m"))
    engine, deaths = DeadlyAttributor(bench.engine(), poisons, stage), 0
    while claimable(bench) and deaths < 500:
        try:
            bench.work(engine, limit=BATCH)
        except Killed:
            deaths += 1
            bench.now += 61
    return deaths


def claimable(bench):
    """Is there anything to claim; what spent its attempts is left to the sweeper."""
    left = (one for one in bench.audits.by_id.values() if one.spent < bench.settings.max_attempts)
    return any(map(bench.audits.claimable, left))


def assert_innocents_are_done(bench, poisons):
    """All but the poisons are done; the poisons were tried `max_attempts` times each and nobody else was charged for it."""
    for number, audit in bench.audits.by_id.items():
        if number in poisons:
            assert (audit.state, audit.spent) == (AuditState.RUNNING, bench.settings.max_attempts)
        else:
            assert audit.state is AuditState.DONE, f"audit {number} beside {sorted(poisons)}"
            assert audit.spent <= 1


@pytest.mark.parametrize("stage", ["prepare", "attribute"])
@pytest.mark.parametrize("max_attempts", [1, 2, 5])
@pytest.mark.parametrize("number", [1, 2, 3, 16, 31, 32])
def test_any_number_of_poisons(make_bench, number, max_attempts, stage):
    """At the front, at the back and spread: also where one attempt is all there is."""
    spread = {1 + (position * BATCH) // number for position in range(number)}
    for poisons in (set(range(1, number + 1)), set(range(BATCH + 1 - number, BATCH + 1)), spread):
        bench = make_bench(Settings(batch_tokens=64, max_attempts=max_attempts))
        deaths = work_to_the_end(bench, poisons, stage=stage)
        assert_innocents_are_done(bench, poisons)
        assert deaths <= 1 + number * max_attempts


def test_every_pair_of_positions(make_bench):
    """Two poisons anywhere in a batch, in one pack or in two."""
    for pair in combinations(range(1, 11), 2):
        bench = make_bench(Settings(batch_tokens=64, max_attempts=2))
        work_to_the_end(bench, set(pair), audits=10)
        assert_innocents_are_done(bench, set(pair))


@settings(max_examples=60)
@given(st.sets(st.integers(min_value=1, max_value=BATCH)), st.sampled_from([64, 256, 1024]))
def test_any_positions(make_bench, poisons, batch_tokens):
    """Any set of them, with packs of any size."""
    bench = make_bench(Settings(batch_tokens=batch_tokens, max_attempts=3))
    work_to_the_end(bench, poisons)
    assert_innocents_are_done(bench, poisons)


@settings(max_examples=20)
@given(st.sets(st.integers(min_value=1, max_value=BATCH), max_size=8))
def test_any_positions_with_batches_claimed_ahead(make_bench, poisons):
    """A death takes what was claimed ahead along; nobody is charged for that, and everybody is answered."""
    bench = make_bench(Settings(batch_tokens=64, max_attempts=2, batch_audits=8))
    for number in range(1, BATCH + 1):
        bench.audits.add(FlaggedRecord(prompt="p", completion=f"{'word ' * (number % 7)}tail", model="m"))
    bench.store.hand_back = lambda leases, suspects: 0  # the dead hand nothing back
    engine, deaths = DeadlyAttributor(bench.engine(), poisons, "attribute"), 0

    def claim(room):
        return bench.store.claim(1, limit=room, lease_s=60, max_attempts=2)

    while claimable(bench) and deaths < 500:
        try:
            bench.work(engine, limit=8, ahead=Ahead(bench.store, find=claim))
        except Killed:
            deaths += 1
            bench.now += 61
    assert_innocents_are_done(bench, poisons)
    assert deaths <= 3 * len(poisons), "each kills once beside others, and twice alone"


def test_innocents_do_not_wait_for_the_poisons_to_die(make_bench):
    """With 31 poisons the one innocent is stored after at most one death of each of them, and one of its pack."""
    for innocent in (1, 2, 16, 31, 32):
        bench = make_bench(Settings(batch_tokens=1024, max_attempts=5))
        poisons = set(range(1, BATCH + 1)) - {innocent}
        for number in range(1, BATCH + 1):
            bench.audits.add(FlaggedRecord(prompt="p", completion=f"word {number}", model="m"))
        engine = DeadlyAttributor(bench.engine(), poisons, "attribute")
        deaths = 0
        while bench.audits.by_id[innocent].state is not AuditState.DONE:
            with pytest.raises(Killed):
                bench.work(engine, limit=BATCH)
            deaths += 1
            bench.now += 61
        assert deaths <= 2 + len(poisons)
