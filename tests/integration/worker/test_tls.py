"""Redis over TLS with the least commands, and PostgreSQL with `sslmode=verify-full`: the whole service works, and nothing less secure does."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
from pydantic import SecretStr
from sqlalchemy import text

from db import migrate
from db.session import Database
from tests.absence import absent
from tests.integration.worker.processes import ROOT, running, sweeping
from tests.integration.worker.test_worker import flag
from tests.services.secured import (
    Certificates,
    find_debian_postgres,
    find_debian_redis,
    make_certificates,
    secured_postgres,
    secured_redis,
)
from tests.waiting import wait_until
from web.wellness.health import RedisProbe
from wherefrom.errors import DatabaseUnavailable, QueueUnavailable
from wherefrom.messages import INTAKE_GROUP
from wherefrom.records import AuditState
from worker.broker.redis_link import connect_redis, redis_errors
from worker.checkup.doctor import examine
from worker.checkup.health import check_health
from worker.flagged_stream.replay import Kept, KeptEntries

STREAM = "t:wherefrom:flagged"
SERVICE, PRODUCER = "s3cret-of-a-test", "p3rducer-of-a-test"


def documented_acl() -> str:
    """The users of docs/operations.md, with the passwords and the key prefix of this test, and one who looks at what was refused."""
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    lines = re.findall(r"^user \w+ .*$", text, re.MULTILINE)
    assert [line.split()[1] for line in lines] == ["default", "wherefrom", "producer"]
    acl = "\n".join([*lines, "user looker on >LOOKS ~* resetchannels -@all +acl|log +info"])
    given = acl.replace("SERVICE_PASSWORD", SERVICE).replace("PRODUCER_PASSWORD", PRODUCER)
    return given.replace(" ~", " ~t:") + "\n"


@dataclass(frozen=True)
class SecuredRedis:
    """Where it listens, and who vouches for it."""

    port: int
    authority: Path

    def url(
        self,
        user: str = "wherefrom",
        password: str = SERVICE,
        *,
        host: str = "localhost",
        authority: Path | None = None,
    ) -> str:
        """The URL that docs/operations.md shows."""
        given = authority or self.authority
        return f"rediss://{user}:{password}@{host}:{self.port}/0?ssl_cert_reqs=required&ssl_check_hostname=true&ssl_ca_certs={given}"


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredRedis]:
    """One for the module."""
    if (program := find_debian_redis()) is None:
        absent("Debian's redis-server is not installed")
    folder = tmp_path_factory.mktemp("tls")
    with secured_redis(program, folder, acl=documented_acl()) as port:
        yield SecuredRedis(port, folder / "ca.crt")


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """The database plays no part where Redis is tried."""
    return sqlite_url


@pytest.fixture
def redis_url(secured: SecuredRedis) -> str:
    """What the settings of this folder take."""
    return secured.url()


#: What a full Redis, a database number or another version of kombu asks for.
RARE = {"select", "xtrim", "rpop", "smembers"}


def granted() -> set[str]:
    """The commands of the service's user."""
    [line] = [one for one in documented_acl().splitlines() if one.startswith("user wherefrom ")]
    return {word[1:] for word in line.split() if word.startswith("+")}


def used(secured: SecuredRedis) -> set[str]:
    """The commands that Redis ran since it started."""
    with redis.Redis.from_url(secured.url("looker", "LOOKS"), decode_responses=True) as looker:
        return {name.removeprefix("cmdstat_") for name in looker.info("commandstats")}


def refused(secured: SecuredRedis) -> list[str]:
    """What Redis refused the service."""
    with redis.Redis.from_url(secured.url("looker", "LOOKS"), decode_responses=True) as looker:
        return [one["object"] for one in looker.acl_log() if one["username"] == "wherefrom"]


@pytest.mark.redis
@pytest.mark.usefixtures("bundle_id")
def test_the_least_commands_are_enough(parts, settings, tmp_path, secured):
    """Producer, intake, rejected entries and their replay, hints, sweeper, a real worker, the page's probe, health and doctor: Redis refuses nothing."""
    record = {"record": '{"model": "tiny@1", "prompt": "p", "completion": "the battery is safe to open"}'}
    with redis.Redis.from_url(secured.url("producer", PRODUCER)) as producer:
        producer.xadd(STREAM, record)
        producer.xadd(STREAM, {"record": "no record"})
        for forbidden in (
            ("XRANGE", STREAM, "-", "+"),
            ("XTRIM", STREAM, "MAXLEN", 0),
            ("XADD", "t:wherefrom:rejected", "*", "a", "b"),
        ):
            with pytest.raises(redis.exceptions.NoPermissionError):
                producer.execute_command(*forbidden)
    RedisProbe(settings).ping()
    assert RedisProbe(settings).stream_entries() == 2
    flag(parts, 3)
    kept = KeptEntries(parts.client, settings)
    assert [one.code for one in kept.listed(list(Kept), limit=5)] == ["invalid_record"]
    assert kept.take_back(list(Kept), None).replayed == 1
    _take_over(parts)
    with sweeping(parts), running(settings, "run", log=tmp_path / "log") as worker:
        wait_until(lambda: parts.count(AuditState.DONE) == 5, 60, "all audits")
        worker.terminate()
        assert worker.wait(60) == 0
    assert check_health("redis", settings).well
    assert refused(secured) == []
    assert any("CONFIG is not allowed" in one.text for one in examine(settings))
    assert refused(secured) == ["config|get"]
    assert granted() - used(secured) <= RARE, "the least commands"


def _take_over(parts):
    """An intake dies with an entry in its hands; another one takes it over, and puts the dead one out of the group."""
    parts.client.xadd(
        STREAM, {"record": '{"model": "tiny@1", "prompt": "p", "completion": "we never answer"}'}
    )
    parts.client.xreadgroup(INTAKE_GROUP, "dead", {STREAM: ">"})
    survivor = parts.intake("survivor")

    def is_taken():
        survivor.step()
        return parts.client.xlen(STREAM) == 0 and len(parts.client.xinfo_consumers(STREAM, INTAKE_GROUP)) == 1

    wait_until(is_taken, 30, "the entry of the dead one")


#: One of each kind: data of others, settings, scripts that stay, other keys, what is told to everybody.
FORBIDDEN = (
    ("FLUSHALL",), ("CONFIG", "SET", "dir", "/tmp"), ("KEYS", "*"), ("ACL", "LIST"), ("MODULE", "LIST"), ("SHUTDOWN",),
    ("SET", "t:wherefrom:x", "1"), ("DEL", STREAM), ("XADD", "other", "*", "a", "b"), ("LPUSH", "other", "a"), ("PUBLISH", "t:wherefrom:x", "a"),
    ("EVAL", "return redis.call('GET', KEYS[1])", 1, STREAM), ("EVAL", "return redis.call('XLEN', 'other')", 0), ("SCRIPT", "FLUSH"), ("CLIENT", "LIST"),
    ("REPLICAOF", "example.org", 6379), ("MIGRATE", "h", 1, STREAM, 0, 1),
)  # fmt: skip


@pytest.mark.redis
@pytest.mark.parametrize("command", FORBIDDEN, ids=lambda given: given[0])
def test_nothing_else_is_allowed(secured, command):
    """Whoever has the service's password cannot do more than the service does."""
    with (
        redis.Redis.from_url(secured.url()) as client,
        pytest.raises(
            (redis.exceptions.NoPermissionError, redis.ResponseError),
            match=r"(?i)permission|NOPERM|can't (access|run)",
        ),
    ):
        client.execute_command(*command)


@pytest.mark.redis
def test_a_redis_that_cannot_prove_who_it_is_is_refused(secured, settings, tmp_path):
    """Another authority, another name, no TLS, no password: the client gives up before it says its password."""
    foreign = make_certificates(tmp_path).authority
    for url in (
        secured.url(authority=foreign),
        secured.url().replace("rediss://", "redis://").partition("?")[0],
        secured.url("wherefrom", "wrong"),
        secured.url("default", ""),
    ):
        with (
            pytest.raises(QueueUnavailable),
            redis_errors(),
            connect_redis(settings.model_copy(update={"redis_url": SecretStr(url)})) as client,
        ):
            client.ping()


@pytest.fixture(scope="module")
def postgres() -> Iterator[tuple[int, Certificates]]:
    """A PostgreSQL of Debian's with TLS."""
    if (programs := find_debian_postgres()) is None:
        absent("Debian's postgresql is not installed")
    with secured_postgres(programs) as given:
        yield given


@pytest.mark.postgres
def test_postgres_is_verified_in_full(postgres, tmp_path):
    """The name and the authority are checked, as docs/operations.md writes the URL; what does not prove itself is refused, and so is a plain connection."""
    port, made = postgres
    plain = f"postgresql+psycopg://postgres@localhost:{port}/postgres?hostaddr=127.0.0.1"
    url = f"{plain}&sslmode=verify-full&sslrootcert={made.authority}"
    migrate.upgrade(url)
    database = Database(url)
    with database.reading() as session:
        assert (
            session.execute(text("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")).scalar_one()
            is True
        )
    database.dispose()
    foreign = make_certificates(tmp_path).authority
    for wrong in (
        url.replace(str(made.authority), str(foreign)),
        url.replace("@localhost", "@elsewhere.example"),
        f"{plain}&sslmode=disable",
    ):
        refusing = Database(wrong)
        with pytest.raises(DatabaseUnavailable):
            refusing.ping()
        refusing.dispose()
