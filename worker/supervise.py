"""Runs the whole service on one machine as child processes: starts them in order, starts again what ends, stops in order.

Each child has a session of its own, so Ctrl-C reaches only the supervisor, which then stops the children one after the
other. Children end by themselves when the supervisor is killed (`--exit-with-parent`). For one machine and for trying out;
in production docker-compose or systemd does this.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from pydantic import SecretStr

from db.migrate import upgrade
from wherefrom.access import refuse_keyless_production
from wherefrom.backoff import backoff_seconds
from wherefrom.errors import ConfigurationError
from wherefrom.logs import get_logger
from wherefrom.private import open_private, private_folder
from wherefrom.settings import Settings, child_environment
from worker.checkup.health import web_url
from worker.embedded import EmbeddedRedis, EmbeddedRedisError, data_dir_of
from worker.loop import STOP_GRACE_S
from worker.vitals.liveness import LivenessFile

log = get_logger(__name__)

#: The service's processes in the order of their start.
PROCESSES = ("run", "sweep", "intake", "web")
#: Seconds that these wait before they import anything. Four at once on two cores take twice as long each, and the worker, which has a model to load, and the page
#: are the ones that are waited for.
AFTER_S = {"sweep": 4.0, "intake": 4.0}
#: Runs beside them where a recipe is set.
MEASURER = "measure"
#: They are stopped in stages: first web and intake end, then what was taken in is finished.
STOP_STAGES = (("web", "intake"), ("sweep", "run", MEASURER))
#: Exit code of a child whose settings or bundles are wrong; starting it again cannot help.
EXIT_USAGE = 2
#: A child that lived this long starts again without wait.
SETTLED_S = 30.0
RESTART_BASE_S = 1.0
RESTART_CAP_S = 30.0
POLL_S = 0.2


@dataclass
class _Child:
    """One process and what is known of its past."""

    name: str
    command: Sequence[str]
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    failures: int = 0
    start_at: float = 0.0


class Supervisor:
    """Keeps child processes running."""

    def __init__(
        self,
        commands: Mapping[str, Sequence[str]],
        *,
        environment: Mapping[str, str],
        log_path: Path | None = None,
        grace_s: float = STOP_GRACE_S,
        stop_stages: Sequence[Sequence[str]] | None = None,
    ) -> None:
        """Prepare; nothing is started yet.

        Args:
            commands: Command line by name, in the order of the start.
            environment: Environment of all children.
            log_path: File that gets the children's output; by default it goes where the supervisor's own goes.
            grace_s: Seconds that a stage may take to end.
            stop_stages: Names that are stopped together, stage after stage; by default each alone, last started first.
        """
        self._children = [_Child(name, command) for name, command in commands.items()]
        self._environment = dict(environment)
        self._log_path = log_path
        self._log_file: IO[bytes] | None = None
        self._grace_s = grace_s
        self._stop_stages: Sequence[Sequence[str]] = stop_stages or [
            (name,) for name in reversed(list(commands))
        ]

    def start(self) -> None:
        """Start all children."""
        if self._log_path is not None:
            private_folder(self._log_path.parent)
            self._log_file = open_private(self._log_path, "ab")
        for child in self._children:
            self._start(child)

    def watch(self) -> None:
        """Start again what has ended; call it often.

        Raises:
            ConfigurationError: a child cannot work with these settings or bundles.
        """
        for child in self._children:
            if child.process is None:
                if time.monotonic() >= child.start_at:
                    self._start(child)
            elif (code := child.process.poll()) is not None:
                self._after_end(child, code)

    def stop(self) -> None:
        """Stop the children stage by stage; by force what does not end in time."""
        for stage in self._stop_stages:
            ending = [child for child in self._children if child.name in stage and _lives(child)]
            for child in ending:
                _signal(child, signal.SIGTERM)
            deadline = time.monotonic() + self._grace_s
            for child in ending:
                self._await_end(child, deadline)
        if self._log_file is not None:
            self._log_file.close()
            self._log_file = None

    def pids(self) -> dict[str, int]:
        """Process ids of the running children by name."""
        return {
            child.name: child.process.pid
            for child in self._children
            if child.process is not None and _lives(child)
        }

    def _await_end(self, child: _Child, deadline: float) -> None:
        if child.process is None:
            return
        try:
            child.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            log.warning("child_killed", child=child.name, grace_s=self._grace_s)
            os.killpg(child.process.pid, signal.SIGKILL)  # with what it started: the pool of the worker
            child.process.wait()
        log.info("child_stopped", child=child.name, exit_code=child.process.returncode)

    def _start(self, child: _Child) -> None:
        child.process = subprocess.Popen(
            list(child.command),
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=self._log_file,
            stderr=self._log_file,
            start_new_session=True,
        )
        child.started_at = time.monotonic()
        log.info("child_started", child=child.name, pid=child.process.pid)

    def _after_end(self, child: _Child, code: int) -> None:
        if code == EXIT_USAGE:
            raise ConfigurationError(
                f"{child.name} cannot work with these settings or bundles; its message is above"
            )
        lived_s = time.monotonic() - child.started_at
        child.failures = 1 if lived_s >= SETTLED_S else child.failures + 1
        wait_s = backoff_seconds(child.failures, base_s=RESTART_BASE_S, cap_s=RESTART_CAP_S)
        log.error(
            "child_ended",
            child=child.name,
            exit_code=code,
            lived_s=round(lived_s),
            again_in_s=round(wait_s, 1),
        )
        child.process = None
        child.start_at = time.monotonic() + wait_s


class LocalService:
    """The whole service on this machine; a context manager, and what `python -m worker up` runs.

    Without a Redis URL in the environment it brings its own Redis server, under `state_dir`.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        overrides: Mapping[str, str | int] | None = None,
        log_path: Path | None = None,
        grace_s: float = STOP_GRACE_S,
    ) -> None:
        """Prepare; nothing is started yet.

        Args:
            settings: Settings of this process; the children read theirs from the same environment.
            overrides: Settings by name that the children get instead.
            log_path: See `Supervisor`.
            grace_s: See `Supervisor`.
        """
        self._overrides = {name: str(value) for name, value in (overrides or {}).items()}
        own_redis = "redis_url" not in settings.model_fields_set
        self._redis = EmbeddedRedis(data_dir_of(settings)) if own_redis else None
        self._redis_at = 0.0
        self._log_path = log_path
        self._grace_s = grace_s
        self._supervisor: Supervisor | None = None
        #: The settings of the children; with the embedded Redis's URL once it is started.
        self.settings = settings.model_copy(update=dict(overrides or {}))

    def start(self) -> Self:
        """Start Redis where it is ours, bring the schema up to date, start the processes.

        Raises:
            ConfigurationError: the page would be served to others without API keys.
            DatabaseUnavailable: the schema cannot be brought up to date.
            EmbeddedRedisError: our Redis does not start.
        """
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def watch(self) -> None:
        """Start again what has ended, our Redis included; see `Supervisor.watch`."""
        if self._supervisor is None:
            return
        if self._redis is not None and self._redis.pid is None:
            self._restart_redis(self._redis)
        self._supervisor.watch()

    def web_url(self) -> str | None:
        """Address of the page once it is being served, else None."""
        return web_url(self.settings) if LivenessFile(self.settings, "web").age_s() is not None else None

    def pids(self) -> dict[str, int]:
        """Process ids by name."""
        return self._supervisor.pids() if self._supervisor is not None else {}

    def stop(self) -> None:
        """Stop the processes in order, Redis last."""
        if self._supervisor is not None:
            self._supervisor.stop()
            self._supervisor = None
        if self._redis is not None:
            self._redis.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _restart_redis(self, server: EmbeddedRedis) -> None:
        """Bring our Redis back on its port and with its data; if that fails, not again for a while."""
        if time.monotonic() < self._redis_at:
            return
        log.error("redis_ended", port=server.port)
        try:
            server.start()
        except EmbeddedRedisError as error:
            self._redis_at = time.monotonic() + RESTART_CAP_S
            log.error("redis_not_started", reason=str(error), again_in_s=RESTART_CAP_S)  # noqa: TRY400 - its text says it
        else:
            log.info("redis_started", port=server.port)

    def _start(self) -> None:
        refuse_keyless_production(self.settings)
        if self._redis is not None:
            self._overrides["redis_url"] = self._redis.start().url
            self.settings = self.settings.model_copy(update={"redis_url": SecretStr(self._redis.url)})
        upgrade(self.settings.database_url.get_secret_value())
        LivenessFile(self.settings, "web").remove()
        self._supervisor = Supervisor(
            {name: command_of(name) for name in processes_of(self.settings)},
            environment=child_environment(**self._overrides),
            log_path=self._log_path,
            grace_s=self._grace_s,
            stop_stages=STOP_STAGES,
        )
        self._supervisor.start()


def processes_of(settings: Settings) -> tuple[str, ...]:
    """The processes that these settings ask for, in the order of their start."""
    return PROCESSES if settings.recipe is None else (*PROCESSES, MEASURER)


def _lives(child: _Child) -> bool:
    return child.process is not None and child.process.poll() is None


def _signal(child: _Child, number: signal.Signals) -> None:
    if child.process is not None:
        child.process.send_signal(number)


def command_of(name: str) -> list[str]:
    """Command line of one of the service's processes."""
    wait = ["--after", str(AFTER_S[name])] if name in AFTER_S else []
    return [sys.executable, "-m", "worker", name, "--exit-with-parent", str(os.getpid()), *wait]
