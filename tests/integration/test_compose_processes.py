"""The services of docker-compose.yml as plain processes: each one's own command starts, and its own health check says so."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.waiting import wait_until
from worker.embedded import free_port

ROOT = Path(__file__).parents[2]
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))[
    "services"
]
LASTING = ("intake", "worker", "sweeper", "web")


def here(command: list[str], port: int) -> list[str]:
    """The container's command with this Python; on loopback and a free port, since there is no network of its own."""
    places = {"0.0.0.0": "127.0.0.1", "8077": str(port)}
    return [sys.executable, *(places.get(word, word) for word in command[1:])]


@pytest.fixture
def container(postgres_url, redis_url, tmp_path):
    """The environment that the file gives our containers, with this machine's stores and folders."""
    known = {
        "WHEREFROM_DATABASE_URL": postgres_url,
        "WHEREFROM_REDIS_URL": redis_url,
        "WHEREFROM_BUNDLES_DIR": str(tmp_path / "bundles"),
        "WHEREFROM_MODELS_DIR": str(tmp_path / "models"),
        "WHEREFROM_STATE_DIR": str(tmp_path / "state"),
        "WHEREFROM_LOG_FORMAT": "json",
    }
    given = {name for service in ("intake", "worker", "web") for name in SERVICES[service]["environment"]}
    assert set(known) <= given, "the file no longer sets what this test replaces"
    return os.environ | known


@pytest.mark.redis
@pytest.mark.postgres
@pytest.mark.slow
def test_every_command_starts_and_its_health_check_passes(container, tmp_path):
    """Migrate ends with 0; then each lasting service runs, is healthy by its own check, and stops on SIGTERM."""
    port = free_port()
    environment = container | {"WHEREFROM_PORT": str(port)}
    migrate = here(SERVICES["migrate"]["command"], port)
    subprocess.run(migrate, cwd=ROOT, env=environment, check=True, capture_output=True, timeout=120)
    processes = {}
    try:
        for name in LASTING:
            with (tmp_path / f"{name}.log").open("wb") as log:
                processes[name] = subprocess.Popen(
                    here(SERVICES[name]["command"], port),
                    cwd=ROOT,
                    env=environment,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
        for name in LASTING:
            check = here(SERVICES[name]["healthcheck"]["test"][1:], port)

            def healthy(check: list[str] = check) -> bool:
                return (
                    subprocess.run(
                        check, cwd=ROOT, env=environment, capture_output=True, check=False
                    ).returncode
                    == 0
                )

            wait_until(
                healthy, 120, f"{name} is not healthy: {(tmp_path / f'{name}.log').read_text()[-1000:]}"
            )
        for process in processes.values():
            process.send_signal(signal.SIGTERM)
        for name, process in processes.items():
            assert process.wait(60) in {0, -signal.SIGTERM}, (tmp_path / f"{name}.log").read_text()[-1000:]
    finally:
        for process in processes.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
