"""Several web processes on one port: all of them answer, one that dies is started again, and all end together."""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.worker.processes import running
from tests.waiting import wait_until
from wherefrom.errors import ConfigurationError
from wherefrom.settings import Settings
from worker import web_processes
from worker.vitals.liveness import LivenessFile
from worker.web_address import listen

pytestmark = pytest.mark.redis


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """How processes are kept is the same on both databases."""
    return sqlite_url


def pids(settings: Settings) -> dict[int, int]:
    """Process ids of those that serve, by number."""
    said = {number: LivenessFile(settings, f"web-{number}").details().get("pid") for number in (1, 2)}
    return {number: int(pid) for number, pid in said.items() if pid}


def lives(pid: int) -> bool:
    """Whether the process is there."""
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def answering(url: str) -> Iterator[str]:
    """Which processes answer on new connections, as their own metrics say."""
    for _ in range(40):
        families = text_string_to_metric_families(httpx.get(f"{url}/metrics", timeout=10).text)
        own = [one for one in families if one.name == "wherefrom_http_requests"]
        yield from (sample.labels["process"] for one in own for sample in one.samples)


def both(settings: Settings) -> dict[int, int]:
    """Process ids of both once they serve."""
    wait_until(lambda: len(pids(settings)) == 2, 60, "both processes")
    return pids(settings)


def end(keeper: subprocess.Popen[bytes], settings: Settings, number: signal.Signals) -> None:
    """A signal for the process that keeps them: it ends, and so do they."""
    served = both(settings)
    keeper.send_signal(number)
    keeper.wait(60)
    wait_until(lambda: not any(map(lives, served.values())), 30, "all of them to end")


@pytest.mark.slow
@pytest.mark.usefixtures("database")
def test_they_share_a_port_come_back_and_end_together(settings: Settings, tmp_path: Path) -> None:
    """Both answer; one is killed and comes back, the other answers meanwhile; the death of the one that keeps them ends both, and so does SIGTERM."""
    log = tmp_path / "web.log"
    with running(settings, "web", log=log, port="0", web_processes="2") as keeper:
        url = str(wait_until(lambda: LivenessFile(settings, "web").details().get("url"), 60, "the service"))
        killed = both(settings)[2]
        assert set(answering(url)) == {"1", "2"}
        os.kill(killed, signal.SIGKILL)
        assert httpx.get(f"{url}/healthz", timeout=10).status_code == 200
        wait_until(lambda: pids(settings)[2] != killed, 60, "the killed one to come back")
        end(keeper, settings, signal.SIGKILL)
    with running(settings, "web", log=log, port=url.rpartition(":")[2], web_processes="2") as keeper:
        end(keeper, settings, signal.SIGTERM)
        assert keeper.returncode == 0
    assert not list(settings.state_dir.glob("*.json"))
    assert "Traceback" not in log.read_text()


def test_a_port_that_somebody_listens_on_is_refused(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the other one shares its port: it would get a part of the connections."""
    monkeypatch.setattr(web_processes, "PORT_WAIT_S", 0.0)
    free = settings.model_copy(update={"port": 0, "web_processes": 2})
    with listen(free, shared=True) as other:
        taken = free.model_copy(update={"port": other.getsockname()[1]})
        with pytest.raises(ConfigurationError, match="cannot listen"):
            web_processes.run_web_processes(taken)


def test_a_port_that_is_not_free_yet_keeps_nobody_from_ending(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told to end while it waits for the port, it ends without an error and starts nothing."""
    told = threading.Event()
    told.set()
    monkeypatch.setattr(web_processes, "PORT_WAIT_S", 2.0)
    monkeypatch.setattr(web_processes, "stop_on_signals", lambda: told)
    free = settings.model_copy(update={"port": 0, "web_processes": 2})
    with listen(free, shared=True) as other:
        web_processes.run_web_processes(free.model_copy(update={"port": other.getsockname()[1]}))
    assert not list(settings.state_dir.glob("web*.json"))
