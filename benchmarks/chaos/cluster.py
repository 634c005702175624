"""The processes of a storm: real ones, each started again the moment it ends, as a supervisor of production does it."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

#: How often the processes are looked at, seconds.
_LOOK_S = 0.1
_STOP_S = 20.0
_POOL_MARK = b"spawn_main"


@dataclass
class Kept:
    """One process that is kept running."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    #: Not started again when it ends with code 0: a producer that is done.
    ends: bool = False
    process: subprocess.Popen[bytes] | None = None
    done: bool = False
    starts: int = 0

    @property
    def pid(self) -> int | None:
        """Its process id while it lives."""
        return self.process.pid if self.process is not None and self.process.poll() is None else None

    def start(self) -> None:
        """Start it, with a process group of its own."""
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                list(self.command),
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.starts += 1


@dataclass
class Cluster:
    """All of them; a thread starts again what ends."""

    kept: dict[str, Kept] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._keep, name="storm-cluster", daemon=True)
        self._thread.start()

    def add(self, one: Kept) -> None:
        """Start a process and keep it running."""
        with self._lock:
            one.start()
            self.kept[one.name] = one

    def pid(self, name: str) -> int | None:
        """Process id of one of them while it lives."""
        return self.kept[name].pid

    def pool(self, name: str) -> list[int]:
        """Pool processes of a worker."""
        pid = self.pid(name)
        return [] if pid is None else pool_of(pid)

    def signal_group(self, name: str, number: signal.Signals) -> None:
        """A signal for a process and all that it started."""
        if (pid := self.pid(name)) is not None:
            with suppress(ProcessLookupError):
                os.killpg(pid, number)

    def stop(self) -> None:
        """End all of them: in order, and by force what does not listen."""
        self._stop.set()
        self._thread.join()
        for name in self.kept:
            self.signal_group(name, signal.SIGCONT)
            if (pid := self.pid(name)) is not None:
                os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + _STOP_S
        for one in self.kept.values():
            if one.process is None:
                continue
            with suppress(subprocess.TimeoutExpired):
                one.process.wait(max(0.0, deadline - time.monotonic()))
            with suppress(ProcessLookupError):
                os.killpg(one.process.pid, signal.SIGKILL)  # what a killed parent left behind, too
            one.process.wait()

    def _keep(self) -> None:
        while not self._stop.wait(_LOOK_S):
            with self._lock:
                for one in self.kept.values():
                    if one.process is None or one.done or one.process.poll() is None:
                        continue
                    one.done = one.ends and one.process.returncode == 0
                    if not one.done:
                        one.start()


def worker_command(*words: str) -> list[str]:
    """`python -m worker ...`."""
    return [sys.executable, "-m", "worker", *words]


def pool_of(pid: int) -> list[int]:
    """Pool processes of a worker's main process."""
    return [child for child in _children(pid) if _is_pool(child)]


def _children(pid: int) -> list[int]:
    try:
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _is_pool(pid: int) -> bool:
    try:
        return _POOL_MARK in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
