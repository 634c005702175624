"""The operator's command line and the supervisor, as processes."""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
import redis

from db.queues.audit_queue import AuditQueue
from db.reading import reader
from db.session import Database
from db.storing.intake import accept
from tests.integration.worker.conftest import MODEL, TEXTS
from tests.integration.worker.processes import ROOT, environment, run_worker_command, running
from tests.waiting import wait_until
from wherefrom.records import AuditState, FlaggedRecord
from worker.supervise import Supervisor
from worker.vitals.liveness import LivenessFile
from worker.vitals.watchdog import Watchdog

pytestmark = pytest.mark.redis


@pytest.fixture
def database_url(sqlite_url):
    """The command line is the same on both databases; SQLite is enough here."""
    return sqlite_url


@pytest.mark.slow
@pytest.mark.usefixtures("bundle_id")
def test_up_runs_everything_and_leaves_nothing_behind(settings, database, tmp_path):
    """Its own Redis, all processes; an entry becomes citations; a killed child or Redis comes back; SIGTERM ends all of it."""
    log = tmp_path / "up.log"
    settings = settings.model_copy(update={"port": 0})
    own_redis = environment(settings)
    del own_redis["WHEREFROM_REDIS_URL"]
    with log.open("wb") as output:
        up = subprocess.Popen(
            [sys.executable, "-m", "worker", "up"],
            cwd=ROOT,
            env=own_redis,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        url = wait_until(lambda: LivenessFile(settings, "web").details().get("url"), 60, "the page")
        assert httpx.get(f"{url}/healthz", timeout=10).status_code == 200
        children = {
            child: int(LivenessFile(settings, child).details().get("pid", 0)) for child in ("web", "worker")
        }
        folder = settings.state_dir / "redis"
        password = (folder / "redis.password").read_text().strip()
        own = f"redis://:{password}@127.0.0.1:{(folder / 'redis.port').read_text().strip()}"
        with redis.Redis.from_url(own) as client:
            record = {"prompt": "p", "completion": TEXTS[1], "model": "tiny@1"}
            client.xadd("t:wherefrom:flagged", {"record": json.dumps(record)})
        wait_until(lambda: reader.queue_health(database).states[AuditState.DONE] == 1, 60, "the audit")
        operator = environment(settings)
        del operator["WHEREFROM_REDIS_URL"]
        well = subprocess.run(
            [sys.executable, "-m", "worker", "health", "redis"], cwd=ROOT, env=operator, check=False
        )
        assert well.returncode == 0, "a command beside `up` asks the Redis of `up`"
        with redis.Redis.from_url(own) as client:
            os.kill(client.info("server")["process_id"], signal.SIGKILL)
        wait_until(lambda: _answers(own), 60, "Redis again, on its port")
        record |= {"completion": TEXTS[2]}
        with redis.Redis.from_url(own) as client:
            client.xadd("t:wherefrom:flagged", {"record": json.dumps(record)})
        wait_until(lambda: reader.queue_health(database).states[AuditState.DONE] == 2, 60, "the second audit")
        os.kill(children["web"], signal.SIGKILL)
        wait_until(
            lambda: LivenessFile(settings, "web").details().get("pid") not in {None, str(children["web"])},
            60,
            "a new web",
        )
        up.send_signal(signal.SIGTERM)
        assert up.wait(60) == 0
    finally:
        with suppress(ProcessLookupError):
            os.killpg(up.pid, signal.SIGKILL)
        up.wait()
    wait_until(lambda: not processes_with(str(settings.state_dir)), 10, "the last process to end")
    assert "Traceback" not in log.read_text()


def _answers(url):
    with redis.Redis.from_url(url) as client, suppress(redis.RedisError):
        return client.ping()
    return False


def processes_with(text):
    """Process ids whose environment or command line holds a text, this test's own left out."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            with suppress(OSError):
                said = (folder / "environ").read_bytes() + (folder / "cmdline").read_bytes()
                if text.encode() in said:
                    found.append(int(folder.name))
    return found


@pytest.mark.slow
@pytest.mark.usefixtures("database")
def test_children_end_when_the_supervisor_is_killed(settings, tmp_path):
    """SIGKILL for the supervisor alone: its children notice and end."""
    settings = settings.model_copy(update={"port": 0})
    with running(settings, "up", log=tmp_path / "up.log") as up:
        wait_until(lambda: LivenessFile(settings, "web").details().get("url"), 60, "the page")
        os.kill(up.pid, signal.SIGKILL)
        wait_until(lambda: not processes_with(str(settings.state_dir)), 60, "the children to end")


def test_a_worker_refuses_a_changed_bundle_and_goes_on(settings, database, bundle_id, tmp_path):
    """One byte: the bundle is refused before anything is claimed, its audit says so, and the worker lives."""
    file = settings.bundles_dir / "overlap-test" / "examples.jsonl"
    file.write_bytes(file.read_bytes().replace(b"battery", b"bettery"))
    record = FlaggedRecord(prompt="p", completion="c", model=MODEL)
    (taken,) = accept(database, [record], producer="p", channel="http")
    assert taken.audit_id is not None
    audit_id = taken.audit_id
    with running(settings, "run", log=tmp_path / "log") as worker:
        wait_until(lambda: reader.get_audit(database, audit_id).audit.code is not None, 60, "the refusal")
        assert worker.poll() is None
    audit = reader.get_audit(database, audit_id).audit
    assert (audit.state, audit.code, audit.attempt) == (AuditState.PENDING, "bundle_corrupt", 0)
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_a_mistake_is_one_line_and_a_code(settings):
    """As a process: no traceback for what a person can mend."""
    ended = run_worker_command(settings, "health", "redis", lease_seconds="nonsense")
    assert ended.returncode == 2
    assert "WHEREFROM_LEASE_SECONDS" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_supervisor_starts_again_what_ends():
    """A child that ends comes back after a wait."""
    supervisor = Supervisor({"short": ["sleep", "0.05"]}, environment={"PATH": os.environ["PATH"]})
    supervisor.start()
    first = supervisor.pids()["short"]

    def _another():
        supervisor.watch()
        return supervisor.pids().get("short", first) != first

    wait_until(_another, 10)
    supervisor.stop()
    assert supervisor.pids() == {}


def test_the_watchdog_counts_only_idle_time_with_work(settings, database, parts, bundle_id):
    """Nothing pending, a live lease, a finished audit: each is progress; nothing of them is a stall."""
    now = [0.0]
    watchdog = Watchdog(database, limit_s=10, clock=lambda: now[0])
    now[0] = 5
    assert watchdog.look() == 0
    record = {"prompt": "p", "completion": "c", "model": "tiny@1"}
    parts.client.xadd("t:wherefrom:flagged", {"record": json.dumps(record)})
    parts.client.xadd("t:wherefrom:flagged", {"record": json.dumps(record | {"completion": "d"})})
    parts.intake().step()
    watchdog.look()
    now[0] = 12
    assert watchdog.look() == 7
    refusing = Watchdog(
        database, limit_s=10, clock=lambda: now[0], is_excused=lambda refused: refused == bundle_id
    )
    now[0] = 50
    assert refusing.look() == 0, "work of a refused bundle is no reason to start again"
    AuditQueue(database).claim(bundle_id, limit=1, owner="someone", lease_s=60)
    assert watchdog.look() == 0
    away = Watchdog(Database("postgresql+psycopg://x@127.0.0.1:1/x"), limit_s=10, clock=lambda: now[0])
    now[0] = 100
    assert away.look() == 0


@pytest.mark.usefixtures("bundle_id")
def test_a_deaf_worker_ends_itself(settings, parts, tmp_path):
    """Work is pending and nobody claims it (here: it listens on another queue): exit code 1."""
    record = {"prompt": "p", "completion": "c", "model": "tiny@1"}
    parts.client.xadd("t:wherefrom:flagged", {"record": json.dumps(record)})
    parts.intake().step()
    with running(settings, "run", log=tmp_path / "log", key_prefix="other:", watchdog_seconds="1") as worker:
        assert worker.wait(60) == 1
    assert "worker_stalled" in (tmp_path / "log").read_text()
