"""A worker is well again by itself: after a crash of Redis, a slow start, a signal at the wrong moment, a full disk."""

import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import func, select

from benchmarks.chaos.cluster import pool_of
from db.models import Audit
from tests import overlap_engine
from tests.integration.worker.processes import running, sweeping
from tests.integration.worker.test_service import processes_with
from tests.integration.worker.test_worker import flag
from tests.waiting import wait_until
from wherefrom.records import AuditState

pytestmark = [pytest.mark.redis, pytest.mark.usefixtures("bundle_id")]

#: Longest time from a Redis that answers again to the next answered audit.
RECOVERED_S = 15.0


@pytest.fixture
def database_url(sqlite_url):
    """What a worker hears does not depend on the database."""
    return sqlite_url


class Still:
    """True when a number has not changed for some seconds."""

    def __init__(self, number, seconds):
        self._number, self._seconds = number, seconds
        self._last, self._since = None, 0.0

    def __call__(self):
        now, number = time.monotonic(), self._number()
        if number != self._last:
            self._last, self._since = number, now
        return now - self._since >= self._seconds


def test_a_busy_worker_hears_again_after_a_crash_of_redis(parts, tmp_path, server):
    """SIGKILL for Redis in the middle of a batch, while a second hint waits inside the worker: seconds after it is back, work goes on."""
    flag(parts, 40)
    slow = {"engine": overlap_engine.ONE_BATCH_ENGINE, "batch_audits": "1"}
    with sweeping(parts), running(parts.settings, "run", log=tmp_path / "log", **slow):
        wait_until(lambda: parts.count(AuditState.DONE) >= 2 and parts.count(AuditState.RUNNING), 60)
        assert parts.client.exists("t:unacked", "t:unacked_index") == 0, (
            "an acknowledgement that needs no Redis cannot fail"
        )
        server.kill()
        wait_until(
            Still(lambda: parts.count(AuditState.DONE), 3 * overlap_engine.SLOW_S), 30, "its hints to end"
        )
        server.start()
        back, before = time.monotonic(), parts.count(AuditState.DONE)
        wait_until(lambda: parts.count(AuditState.DONE) > before, 150, "work to go on")
        took_s = time.monotonic() - back
    assert took_s < RECOVERED_S, took_s


def test_a_killed_process_comes_back_on_a_busy_machine(parts, tmp_path):
    """It takes longer to be up than Celery allows by itself, and loads for longer than a batch may take: it works all the same."""
    late = {"engine": overlap_engine.LATE_ENGINE, "batch_time_limit_seconds": "2"}
    log = tmp_path / "log"
    with sweeping(parts), running(parts.settings, "run", log=log, **late) as worker:
        wait_until(lambda: pool_of(worker.pid), 60, "the pool")
        wait_until(lambda: "ready" in log.read_text(), 60, "the worker")
        os.kill(pool_of(worker.pid)[0], signal.SIGKILL)
        flag(parts, 3)
        wait_until(lambda: parts.count(AuditState.DONE) == 3, 100, "the next process to work")
    assert "Timed out waiting for UP message" not in log.read_text()
    with parts.database.reading() as session:
        assert session.scalar(select(func.max(Audit.attempt))) == 1, "loading cost an attempt"


def test_one_deaf_worker_beside_a_healthy_one_ends_itself(parts, tmp_path):
    """Audits get done all the time, so nothing but the check of its own connection shows it."""
    deaf_log = tmp_path / "deaf"
    state = {"state_dir": str(tmp_path / "healthy")}
    with (
        sweeping(parts),
        running(parts.settings, "run", log=tmp_path / "log", **state) as healthy,
        running(parts.settings, "run", log=deaf_log, engine=overlap_engine.DEAF_ENGINE) as deaf,
    ):
        flag(parts, 8)
        wait_until(lambda: parts.count(AuditState.DONE) == 8, 60, "the healthy one")
        assert deaf.wait(60) == 1
        assert healthy.poll() is None
    assert "worker_deaf" in deaf_log.read_text()
    assert "worker_deaf" not in (tmp_path / "log").read_text()


def test_what_is_in_work_is_finished_however_long_it_takes(parts, tmp_path):
    """A worker that was told to end asks for nothing more; that is no deafness. Code 0."""
    flag(parts, 1)
    log = tmp_path / "log"
    with (
        sweeping(parts),
        running(parts.settings, "run", log=log, engine=overlap_engine.LONG_ENGINE) as worker,
    ):
        wait_until(lambda: parts.count(AuditState.RUNNING), 60, "the worker to work")
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(60) == 0
    assert "worker_deaf" not in log.read_text()
    with parts.database.reading() as session:
        assert session.scalars(select(Audit.state)).all() == [AuditState.DONE]


def test_what_was_claimed_ahead_is_handed_back_when_a_worker_is_told_to_end(parts, tmp_path):
    """The batch in work is finished; the one that was claimed behind it is pending again at once, and cost no attempt. Code 0."""
    size = parts.settings.batch_audits
    flag(parts, 2 * size + 1)
    with (
        sweeping(parts),
        running(parts.settings, "run", log=tmp_path / "log", engine=overlap_engine.LONG_ENGINE) as worker,
    ):
        wait_until(lambda: parts.count(AuditState.RUNNING) == 2 * size, 60, "the worker to claim ahead")
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(60) == 0
    with parts.database.reading() as session:
        found = session.execute(select(Audit.state, Audit.attempt - Audit.attempt_floor, Audit.lease_owner))
        assert Counter(map(tuple, found)) == {
            (AuditState.DONE, 0, None): size,
            (AuditState.PENDING, 0, None): size + 1,
        }


#: Command, the last word in its log that it is known to be past, and the signal that comes then.
MOMENTS = [
    ("run", "", signal.SIGINT),
    ("run", "other_engine", signal.SIGTERM),
    ("run", "Connected to", signal.SIGINT),
    ("up", "", signal.SIGTERM),
    ("up", "child_started", signal.SIGINT),
]


@pytest.mark.parametrize(("command", "moment", "number"), MOMENTS)
def test_a_signal_while_it_starts_is_honoured(parts, tmp_path, command, moment, number):  # noqa: PLR0917 - a table
    """At whatever moment: code 0, no traceback, no sign of life, no process left behind."""
    log = tmp_path / "log"
    with running(parts.settings, command, log=log, port="0") as process:
        wait_until(lambda: has_main(process) and moment in log.read_text(), 60, moment, 0.002)
        process.send_signal(number)
        assert process.wait(60) == 0
        wait_until(lambda: not processes_with(str(parts.settings.state_dir)), 20, "the last process to end")
    assert "Traceback" not in log.read_text()
    assert not list(parts.settings.state_dir.glob("*.json"))


def has_main(process):
    """Whether Python has begun with our code: before that the signal's default action ends it."""
    caught = Path(f"/proc/{process.pid}/status").read_text().partition("SigCgt:\t")[2][:16]
    return bool(int(caught, 16) & 1 << (signal.SIGTERM - 1))
