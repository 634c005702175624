"""What a storm hurts and brings back beside processes: Redis, PostgreSQL with a standby, the wall clock, and the disk below the database."""

import os
import shutil
import signal
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
import redis

from benchmarks.chaos.ledger import ALWAYS, EVERYSEC, FLUSHALL, NO_AOF, NO_CAUSE
from tests.services.postgres import PostgresServer
from tests.services.redis import RedisServer
from wherefrom.errors import ConfigurationError

#: Real ones: what is committed must survive a crash of the server, and be on the standby before a failover.
_DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "hot_standby": "on"}
_WAIT_S = 60.0
#: How long PostgreSQL answers and takes no writes in a failover, seconds.
READ_ONLY_S = 3.0
DISK_BYTES, _BLOCK_BYTES = 1 << 30, 1 << 12


class RedisHouse:
    """One Redis on one port whose setting of the append-only file changes; knows what destroyed which entry."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server = RedisServer(folder / "everysec", append_only=True)
        self._mode = EVERYSEC
        #: Moments of wall time at which entries may have been destroyed, and by what.
        self._destroyed: list[tuple[float, str]] = []

    @property
    def url(self) -> str:
        """Where it is, for as long as the storm lasts."""
        return self._server.url

    def start(self, mode: str) -> None:
        """Start with an append-only file under this setting; the one before is stopped, and what it held is lost."""
        self._server.stop()
        folder = self._folder / mode.replace(" ", "-")
        folder.mkdir(mode=0o700, exist_ok=True)
        password = self._server.data_dir / "redis.password"
        if password.exists() and password.parent != folder:
            shutil.copy(password, folder / "redis.password")
        self._server = RedisServer(folder, port=self._server.port, append_only=mode != NO_AOF)
        self._mode = mode
        self._launch()

    def crash(self) -> None:
        """SIGKILL, and back again."""
        self._server.kill()
        self._destroyed.append((time.time(), self._mode))
        self._launch()

    def flush(self) -> None:
        """FLUSHALL."""
        self._server.flushall()
        self._destroyed.append((time.time(), FLUSHALL))

    def pause(self, seconds: float) -> None:
        """SIGSTOP for some seconds."""
        pid = self._server.pid
        if pid is not None:
            os.kill(pid, signal.SIGSTOP)
            time.sleep(seconds)
            os.kill(pid, signal.SIGCONT)

    def destroyer(self, sent_at: float) -> str:
        """What destroyed an entry that was sent at this moment and never stored: the first thing that may have."""
        later = [cause for moment, cause in self._destroyed if moment >= sent_at]
        return later[0] if later else NO_CAUSE

    def client(self) -> redis.Redis:
        """A new client."""
        return self._server.client()

    def stop(self) -> None:
        """End it."""
        self._server.stop()

    def _launch(self) -> None:
        self._server.start()
        if self._mode == ALWAYS:
            with self.client() as client:
                client.config_set("appendfsync", "always")


class PostgresHouse:
    """One PostgreSQL on one port, as production sees it: it restarts, fails over to a standby, and loses connections."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self._server = PostgresServer(options=_DURABLE, environment=environment, folder=folder).start()
        self._server.create_database("storm")
        self.url = self._server.url("storm")

    def restart(self, how: signal.Signals) -> None:
        """End it, and start it again."""
        self._server.halt(how)
        self._server.launch()

    def kill_backends(self) -> None:
        """End every connection of others."""
        self._run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'storm' AND pid <> pg_backend_pid()"
        )

    def fail_over(self) -> None:
        """A synchronous standby takes over on the same address when the primary has crashed; at first it is read-only."""
        old, new = self._server, self._server.standby()
        self._run("ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()")
        self._await("SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'")
        old.halt(signal.SIGQUIT)
        new.halt(signal.SIGINT)
        new.port, self._server = old.port, new
        new.launch(primary_conninfo="")
        time.sleep(READ_ONLY_S)
        self._run("SELECT pg_promote()")
        self._await("SELECT (NOT pg_is_in_recovery())::int")

    def revive(self) -> None:
        """Start it again if a fault ended it."""
        if not self._server.runs:
            self._server.launch()

    def stop(self) -> None:
        """End it and remove its folder."""
        self._server.stop()

    def _run(self, *statements: str) -> list[tuple[object, ...]]:
        with psycopg.connect(
            host="127.0.0.1", port=self._server.port, user="postgres", dbname="storm", autocommit=True
        ) as connection:
            cursor = [connection.execute(statement.encode()) for statement in statements][-1]
            return cursor.fetchall() if cursor.description else []

    def _await(self, question: str) -> None:
        deadline = time.monotonic() + _WAIT_S
        while not self._run(question)[0][0]:
            if time.monotonic() > deadline:
                raise ConfigurationError(f"PostgreSQL does not get there: {question}")
            time.sleep(0.05)


class Clock:
    """The wall clock of the processes that are started with `environment`; needs a C compiler, else `environment` is empty."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self._file.write_bytes(struct.pack("q", 0))
        self._file.chmod(0o644)
        library, compiler = folder / "clock.so", shutil.which("cc")
        self.environment: dict[str, str] = {}
        if compiler is None:
            return
        source = Path(__file__).with_name("clock.c")
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
        library.chmod(0o755)
        self.environment = {"LD_PRELOAD": str(library), "STORM_CLOCK": str(self._file)}

    def set(self, offset_s: int) -> None:
        """Let them believe that it is so much later, in whole seconds; may be negative."""
        with self._file.open("r+b") as file:
            file.write(struct.pack("q", offset_s))


@contextmanager
def small_disk(folder: Path) -> Iterator["Disk | None"]:
    """A file system of its own below `folder`; None where this user may not mount one."""
    mount = shutil.which("mount")
    command = [str(mount), "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=755", "storm", str(folder)]
    if (
        mount is None
        or os.geteuid() != 0
        or subprocess.run(command, capture_output=True, check=False).returncode
    ):
        yield None
        return
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


class Disk:
    """A small file system."""

    def __init__(self, folder: Path) -> None:
        self._ballast = folder / "ballast"

    def fill(self, seconds: float) -> None:
        """Leave not a byte free for some seconds."""
        with suppress(OSError), self._ballast.open("wb") as file:
            while True:  # until there is no room
                os.posix_fallocate(file.fileno(), file.tell(), _BLOCK_BYTES)
                file.seek(_BLOCK_BYTES, os.SEEK_CUR)
        time.sleep(seconds)
        self._ballast.unlink()


@contextmanager
def public_folder(*, keep: bool = False) -> Iterator[Path]:
    """A temporary folder that every user may enter: PostgreSQL runs as another one. It is deleted at the end of the block, unless it is kept."""
    folder = Path(tempfile.mkdtemp(prefix="wherefrom-storm-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
