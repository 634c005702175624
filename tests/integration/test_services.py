"""The services that tests run on are real, can be killed and restarted, and leave nothing behind."""

import os
from pathlib import Path

import psycopg
import pytest
import redis
from sqlalchemy import create_engine, make_url, text

from tests.services.postgres import PostgresServer
from tests.services.redis import RedisServer
from tests.waiting import wait_until


@pytest.mark.redis
def test_redis_is_new_enough(redis_url):
    """The Redis is at least 6.2, which kombu 5.7 needs."""
    with redis.Redis.from_url(redis_url) as client:
        version = tuple(int(part) for part in client.info("server")["redis_version"].split("."))
    assert version >= (6, 2)


@pytest.mark.redis
def test_each_test_finds_redis_empty(redis_server):
    """FLUSHALL empties it, so no test sees another test's keys."""
    with redis_server.client() as client:
        assert client.dbsize() == 0
        client.set("left", "behind")
        redis_server.flushall()
        assert client.dbsize() == 0


@pytest.mark.redis
def test_redis_without_a_file_forgets_when_killed(redis_server):
    """A killed Redis without an append-only file comes back empty on the same port."""
    url = redis_server.url
    with redis_server.client() as client:
        client.set("key", "value")
    redis_server.kill()
    assert redis_server.pid is None
    redis_server.start()
    with redis_server.client() as client:
        assert client.get("key") is None
    assert redis_server.url == url


@pytest.mark.redis
def test_redis_with_a_file_remembers(tmp_path):
    """A Redis with an append-only file keeps its data over an orderly restart on the same port."""
    server = RedisServer(tmp_path, append_only=True)
    with server:
        url = server.url
        with server.client() as client:
            client.set("key", "value")
    with server, server.client() as client:
        assert client.get("key") == "value"
        assert server.url == url


@pytest.mark.postgres
def test_postgres_databases_are_apart(postgres_server):
    """A database made from a template holds its tables, and what is written there stays there."""
    postgres_server.create_database("template_of_this_test")
    try:
        with psycopg.connect(
            postgres_server.url("template_of_this_test").replace("+psycopg", "")
        ) as connection:
            connection.execute("CREATE TABLE thing (id int)")
        postgres_server.create_database("copy_of_this_test", template="template_of_this_test")
        with psycopg.connect(postgres_server.url("copy_of_this_test").replace("+psycopg", "")) as connection:
            connection.execute("INSERT INTO thing VALUES (1)")
        with psycopg.connect(
            postgres_server.url("template_of_this_test").replace("+psycopg", "")
        ) as connection:
            assert connection.execute("SELECT count(*) FROM thing").fetchone() == (0,)
    finally:
        postgres_server.drop_database("copy_of_this_test")
        postgres_server.drop_database("template_of_this_test")


@pytest.mark.postgres
def test_postgres_leaves_nothing_behind():
    """A stopped cluster has no process and no folder."""
    server = PostgresServer().start()
    assert server._process is not None
    assert server._home is not None
    pid, home = server._process.pid, Path(server._home)
    server.stop()
    assert not home.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_database_url_is_a_new_database(database_url):
    """Both databases answer SQLAlchemy and hold no table."""
    engine = create_engine(database_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE once (id integer)"))
        assert connection.execute(text("SELECT count(*) FROM once")).scalar_one() == 0
    engine.dispose()


def test_database_url_names_the_driver(database_url):
    """PostgreSQL URLs name psycopg 3, so that no release of SQLAlchemy chooses another driver."""
    assert make_url(database_url).drivername in {"sqlite", "postgresql+psycopg"}


def test_waiting_says_what_it_waited_for():
    """A deadline that passes names what was waited for and the last answer."""
    with pytest.raises(TimeoutError, match=r"the moon.*last answer: 0"):
        wait_until(lambda: 0, timeout_s=0.05, message="the moon")
