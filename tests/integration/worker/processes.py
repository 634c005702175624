"""Processes of the service as the tests start them: real ones, with settings in their environment."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.waiting import wait_until
from wherefrom.settings import Settings, child_environment
from worker.loop import run_loop

ROOT = Path(__file__).parents[3]
NAMES = (
    "database_url",
    "redis_url",
    "key_prefix",
    "state_dir",
    "bundles_dir",
    "lease_seconds",
    "heartbeat_seconds",
    "batch_audits",
    "sweep_seconds",
    "watchdog_seconds",
    "batch_time_limit_seconds",
    "intake_idle_claim_seconds",
    "port",
    "engine",
    "allow_other_engine",
)


def plain_settings(settings: Settings) -> dict[str, str]:
    """The settings that matter here, as they are written in an environment."""
    values = {name: getattr(settings, name) for name in NAMES}
    return {
        name: value.get_secret_value() if hasattr(value, "get_secret_value") else str(value)
        for name, value in values.items()
        if value is not None
    }


def environment(settings: Settings, **overrides: str) -> dict[str, str]:
    """The environment that makes a child process have these settings."""
    return child_environment(**(plain_settings(settings) | overrides))


def run_worker_command(settings: Settings, *words: str, **overrides: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m worker ...` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "worker", *words],
        cwd=ROOT,
        env=environment(settings, **overrides),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@contextmanager
def running(
    settings: Settings, *words: str, log: Path, **overrides: str
) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m worker ...` in a process group of its own, killed with SIGKILL at the end of the block."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "worker", *words],
            cwd=ROOT,
            env=environment(settings, **overrides),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            kill_group(process)


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL for the process and everything that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def kill_group_at_work(process: subprocess.Popen[bytes], at_work: Callable[[], int]) -> None:
    """SIGKILL for the group at a moment at which it surely holds a claimed batch.

    The group is stopped first. What it had sent to the database by then is committed a moment later; if a
    batch is still claimed after that, nobody but the killed group can have held it.
    """

    def stopped_at_work() -> bool:
        os.killpg(process.pid, signal.SIGSTOP)
        time.sleep(0.05)
        if at_work():
            return True
        os.killpg(process.pid, signal.SIGCONT)
        return False

    wait_until(stopped_at_work, 30, "the worker to be stopped within a batch", 0.005)
    kill_group(process)


@contextmanager
def sweeping(parts):
    """A sweeper beside the test."""
    sweeper = parts.sweeper()
    stop = threading.Event()
    thread = threading.Thread(
        target=run_loop,
        args=(sweeper.step,),
        kwargs={
            "name": "sweeper",
            "stop": stop,
            "beat": lambda: None,
            "pause_s": parts.settings.sweep_seconds,
        },
    )
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
