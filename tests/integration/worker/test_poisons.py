"""Outputs that kill their process, on both databases and in real pool processes: innocents are done, the dead say of what."""

import time

import pytest
from sqlalchemy import select, update

from db.clock import db_after
from db.models import Audit
from db.queues.audit_queue import AuditQueue
from db.storing import intake
from tasks.attribute import attribute_batch
from tests.integration.worker.conftest import MODEL, examples
from tests.integration.worker.deadly_engine import ENGINE, EXITS, KILLS
from tests.integration.worker.processes import running, sweeping
from tests.overlap_engine import OverlapAttributor
from tests.waiting import wait_until
from wherefrom.metrics import Metrics
from wherefrom.records import AuditState, FlaggedRecord

pytestmark = [pytest.mark.redis, pytest.mark.usefixtures("bundle_id")]

BATCH = 32


class Killed(BaseException):
    """The process is gone at this moment."""


class DeadlyAttributor(OverlapAttributor):
    """Dies with the audits whose ids are poison."""

    poisons: frozenset[str] = frozenset()

    def attribute(self, prepared, *, top_k, opponents):
        """Die or answer."""
        if self.poisons & {one.key for one in prepared}:
            raise Killed
        return super().attribute(prepared, top_k=top_k, opponents=opponents)


def flag(database, completions):
    """Accept outputs; ids of their audits in order."""
    records = [FlaggedRecord(prompt="p", completion=one, model=MODEL) for one in completions]
    return [one.audit_id for one in intake.accept(database, records, producer="p", channel="cli")]


def audits(database):
    """All audits, oldest first."""
    with database.reading() as session:
        return session.scalars(select(Audit).order_by(Audit.id)).all()


@pytest.mark.parametrize("positions", [{8, 24}, {0}, {31}, {3, 4, 5, 30}, set(range(31)), set(range(32))])
def test_poisons_anywhere_in_a_batch(database, settings, bundle_id, positions):
    """Process after process dies, the sweeper takes back what they held: every innocent is done, only the poisons are dead."""
    settings = settings.model_copy(update={"batch_tokens": 1024, "max_attempts": 2})
    ids = flag(database, [f"{'word ' * 300}{number}" for number in range(BATCH)])
    engine, queue = DeadlyAttributor("overlap-test", examples()), AuditQueue(database)
    engine.poisons = frozenset(str(ids[position]) for position in positions)
    for _ in range(3 + 2 * len(positions)):
        claim = queue.claim(bundle_id, owner="w", limit=BATCH, lease_s=60, max_attempts=settings.max_attempts)
        if claim is None:
            break
        try:
            attribute_batch(
                claim,
                attributor=engine,
                store=queue,
                settings=settings,
                metrics=Metrics(),
                clock=time.monotonic,
            )
        except Killed:
            with database.writing() as session:
                running_ones = update(Audit).where(Audit.state == AuditState.RUNNING)
                session.execute(running_ones.values(lease_until=db_after(-1)))
            queue.release_expired(max_attempts=settings.max_attempts)
    states = [one.state for one in audits(database)]
    dead = {position for position, state in enumerate(states) if state is AuditState.DEAD}
    assert (dead, states.count(AuditState.DONE)) == (positions, BATCH - len(positions))


@pytest.mark.slow
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_real_processes_die_of_two_poisons(parts, tmp_path):
    """SIGKILL and an exit code in the pool: the rest is free at once, and done even where one attempt is all there is."""
    settings = parts.settings = parts.settings.model_copy(
        update={"engine": ENGINE, "lease_seconds": 300, "batch_audits": BATCH}
    )
    completions = [f"the battery word{number}" for number in range(BATCH)]
    completions[5], completions[20] = f"the {KILLS}", f"the {EXITS}"
    flag(parts.database, completions)
    waits = {"max_attempts": "1", "backoff_base_seconds": "0.1", "backoff_cap_seconds": "0.2"}
    with sweeping(parts), running(settings, "run", log=tmp_path / "worker.log", **waits):
        wait_until(lambda: all(not one.state.is_open for one in audits(parts.database)), 120, "all audits")
    found = audits(parts.database)
    assert [number for number, one in enumerate(found) if one.state is not AuditState.DONE] == [5, 20]
    assert (found[5].state, found[5].code) == (AuditState.DEAD, "lease_expired")
    assert found[5].reason == "attempt 1 of 1: its process ended with signal 9 (SIGKILL)"
    assert (found[20].state, found[20].reason) == (
        AuditState.DEAD,
        "attempt 1 of 1: its process ended with exit code 7",
    )
