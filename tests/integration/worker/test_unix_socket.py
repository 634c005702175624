"""A Redis behind a Unix socket serves every part: stream, hints, workers, page, health, doctor."""

import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.integration.worker.processes import run_worker_command, running, sweeping
from tests.integration.worker.test_worker import flag
from tests.waiting import wait_until
from web.wellness.health import RedisProbe
from wherefrom.records import AuditState
from worker.embedded import find_redis_server

pytestmark = [pytest.mark.redis, pytest.mark.usefixtures("bundle_id")]


@pytest.fixture
def database_url(sqlite_url):
    """The database plays no part."""
    return sqlite_url


@pytest.fixture
def redis_url():
    """A Redis that listens on no port; the path of a socket has to be short."""
    folder = Path(tempfile.mkdtemp(prefix="wf-"))
    options = [
        "--port",
        "0",
        "--unixsocket",
        str(folder / "s"),
        "--dir",
        str(folder),
        "--save",
        "",
        "--appendonly",
        "no",
    ]
    server = subprocess.Popen([str(find_redis_server()), *options], stdout=subprocess.DEVNULL)
    try:
        wait_until((folder / "s").exists, 15, "the socket")
        yield f"unix://{folder / 's'}?db=1"
    finally:
        server.kill()
        server.wait()
        shutil.rmtree(folder)


def test_an_entry_of_the_stream_is_answered(parts, settings, tmp_path):
    """Intake, hints, sweeper and a real worker over the socket; health and the page's probe too; SIGTERM ends it."""
    RedisProbe(settings).ping()
    flag(parts, 4)
    assert parts.client.get_connection_kwargs()["db"] == 1
    with sweeping(parts), running(settings, "run", log=tmp_path / "log") as worker:
        wait_until(lambda: parts.count(AuditState.DONE) == 4, 60, "all audits")
        worker.terminate()
        assert worker.wait(60) == 0
    assert run_worker_command(settings, "health", "redis").returncode == 0
    assert "redis version" in run_worker_command(settings, "doctor", "--json").stdout
