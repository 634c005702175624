"""Alive, ready, measured; and what happens when something is away."""

import math

import pytest
import structlog
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text, update
from starlette.testclient import TestClient

from db import migrate, signs
from db.clock import db_after
from db.models import ProcessSign
from db.session import Database
from tests.integration.db.sabotage import read_only, refuse_rows
from tests.integration.web.conftest import BASE_URL
from web.app import create_app
from web.wellness.health import RedisProbe
from wherefrom.errors import DatabaseUnavailable, QueueUnavailable
from wherefrom.messages import FLAGGED_STREAM
from wherefrom.metrics import Metrics
from wherefrom.settings import Settings
from worker.vitals.counter_store import CounterStore


def samples(client):
    """All samples of /metrics by name and labels."""
    families = text_string_to_metric_families(client.get("/metrics").text)
    return {
        (one.name, *sorted(one.labels.items())): one.value for family in families for one in family.samples
    }


def test_alive_and_ready(client, stored_story):
    """Both answer 200 and say so."""
    assert client.get("/healthz").json() == {"status": "ok"}
    answer = client.get("/readyz")
    assert answer.status_code == 200
    assert set(answer.json()["checks"]) == {"database", "redis", "schema"}


def test_metrics_hold_the_queue_and_the_requests(client, stored_story):
    """Gauges are read now; routes are counted by template, never by id."""
    client.get("/v1/audits/1")
    client.get("/v1/nothing-of-this-name")
    found = samples(client)
    assert found[("wherefrom_audits", ("state", "pending"))] == 2
    assert found[("wherefrom_oldest_pending_seconds",)] >= 0
    assert found[("wherefrom_stream_entries",)] == 0
    assert found[("wherefrom_quarantine_entries",)] == 0
    assert found[("wherefrom_hints_queued",)] == found[("wherefrom_expired_leases",)] == 0
    assert found[("wherefrom_state_free_bytes",)] > 0
    assert found[("wherefrom_measurements", ("state", "dead"))] == 0
    assert found[("wherefrom_erased_texts", ("kind", "output"))] == 0
    assert found[("wherefrom_erasure_lag_seconds",)] == found[("wherefrom_retention_lag_seconds",)] == 0
    assert {found[("wherefrom_processes", ("role", role))] for role in signs.ROLES} == {0}
    route = ("route", "/v1/audits/{audit_id}")
    assert found[("wherefrom_http_requests_total", ("method", "GET"), route, ("status", "200"))] == 1
    assert not any("nothing-of-this-name" in str(key) for key in found)


def test_metrics_say_which_processes_are_alive(client, database):
    """A process that gave a sign counts, one that was silent for a minute does not."""
    for name in ("one", "two"):
        signs.give_sign(database, signs.Sign(name, "attribute", "host", 1))
    with database.writing() as session:
        silent = update(ProcessSign).where(ProcessSign.name == "two")
        session.execute(silent.values(seen_at=db_after(-2 * signs.SILENT_S)))
    found = samples(client)
    assert found[("wherefrom_processes", ("role", "attribute"))] == 1
    assert found[("wherefrom_processes", ("role", "sweep"))] == 0


def test_metrics_hold_what_other_processes_counted(client, database):
    """A worker's counters and those of the process that is asked, stored and not yet stored, add up; a scrape changes nothing."""
    worker = Metrics()
    worker.count("claims_total", 3)
    worker.count("intake_records_total", 2, channel="http", status="accepted")
    CounterStore(worker, database).store()
    answer = client.post("/v1/flagged", json={"model": "m", "prompt": "p", "completion": "c"})
    assert answer.status_code == 202
    for _ in range(2):
        found = samples(client)
        assert found[("wherefrom_claims_total",)] == 3
        accepted = ("wherefrom_intake_records_total", ("channel", "http"), ("status", "accepted"))
        assert found[accepted] == 3


def test_counters_of_failures_begin_at_0(client, database):
    """Prometheus sees no increase in a series that begins with 1: the first dead audit would alert nobody."""
    found = samples(client)
    dead = ("wherefrom_audits_finished_total", ("state", "dead"))
    assert found[dead] == found[("wherefrom_trail_reads_unnoted_total",)] == 0
    worker = Metrics()
    worker.count("audits_finished_total", 2, state="dead")
    CounterStore(worker, database).store()
    assert samples(client)[dead] == 2


def test_gauges_of_a_database_that_went_away_are_no_numbers(quick_client, sqlite_story, monkeypatch):
    """Those with labels too: what was read last is not true any more."""
    stored = {
        ("wherefrom_audits", ("state", "pending")),
        ("wherefrom_processes", ("role", "sweep")),
        ("wherefrom_measurements", ("state", "dead")),
        ("wherefrom_build_parts", ("state", "pending")),
        ("wherefrom_webhook_deliveries", ("state", "dead")),
        ("wherefrom_oldest_pending_seconds",),
    }
    assert not any(math.isnan(value) for name, value in samples(quick_client).items() if name in stored)

    def away(*_args):
        raise DatabaseUnavailable("away")

    monkeypatch.setattr("web.wellness.gauges.reader.queue_health", away)
    found = samples(quick_client)
    assert all(math.isnan(found[name]) for name in stored)


def test_an_old_schema_is_not_ready(make_app, database_url):
    """The answer says what to run."""
    client = TestClient(make_app(), base_url=BASE_URL)
    migrate.downgrade(database_url, "base")
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert "python -m worker migrate" in answer.json()["checks"]["schema"]["detail"]


def test_a_newer_schema_is_ready_if_it_is_declared_compatible(make_app, database, database_url):
    """During a rolling upgrade the older release stays ready; with a schema nobody declared it is not, and says why."""
    client = TestClient(make_app(), base_url=BASE_URL)
    head = migrate.schema_of(database_url).head
    with database.writing() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert "run the newer release" in answer.json()["checks"]["schema"]["detail"]
    with database.writing() as session:
        declare = text("UPDATE schema_release SET revision = '9999', compatible_from = :head")
        session.execute(declare, {"head": head})
    assert client.get("/readyz").status_code == 200


@pytest.fixture
def homeless(tmp_path):
    """A client of a service whose database is no database, and whose Redis is nowhere."""
    path = tmp_path / "broken.db"
    path.write_bytes(b"this is no database " * 100)
    settings = Settings.model_validate(
        {"database_url": f"sqlite:///{path}", "redis_url": "redis://127.0.0.1:1/0"}
    )
    database = Database(settings.database_url.get_secret_value())
    yield TestClient(create_app(settings, database, metrics=Metrics()), base_url=BASE_URL)
    database.dispose()


def test_a_database_that_is_away(homeless):
    """503 with the time to wait; nothing about where the database is; still alive, still measured."""
    for answer in (
        homeless.get("/v1/audits"),
        homeless.post("/v1/flagged", json={"model": "m", "prompt": "p", "completion": "c"}),
    ):
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "5"
        assert answer.json()["error"]["code"] == "database_unavailable"
        assert "sqlite" not in answer.text
    assert homeless.get("/").status_code == 503
    assert homeless.get("/healthz").status_code == 200
    assert homeless.get("/metrics").status_code == 200
    ready = homeless.get("/readyz")
    assert ready.status_code == 503
    assert {name: check["ok"] for name, check in ready.json()["checks"].items()} == {
        "database": False,
        "redis": False,
    }
    assert "broken.db" not in ready.text


def test_a_database_that_cannot_be_written(client, database, database_url):
    """Not ready, in words; a flagged output gets 503 with the time to wait; pages go on; and it heals by itself."""
    record = {"model": "m", "prompt": "p", "completion": "c"}
    with read_only(database, database_url):
        ready = client.get("/readyz")
        assert ready.status_code == 503
        assert ready.json()["checks"]["schema"]["ok"]
        assert "read-only" in ready.json()["checks"]["database"]["detail"]
        answer = client.post("/v1/flagged", json=record)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert answer.json()["error"]["code"] == "database_read_only"
        assert client.get("/v1/audits").status_code == 200
    assert client.get("/readyz").status_code == 200
    assert client.post("/v1/flagged", json=record).status_code == 202


def test_a_table_that_cannot_be_written(client, database):
    """Whatever keeps rows out of the database, the service is not ready and blames no record."""
    refuse_rows(database, like="%", sqlstate="42501")
    ready = client.get("/readyz")
    assert ready.status_code == 503
    assert "not written" in ready.json()["checks"]["database"]["detail"]
    answer = client.post("/v1/flagged", json={"model": "m", "prompt": "p", "completion": "c"})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")


def test_a_record_that_the_database_refuses(client, database):
    """422 with a code of its own; the same request without it is taken."""
    refuse_rows(database, like="poison%", sqlstate="22P05")
    record = {"model": "m", "prompt": "p", "completion": "c", "idempotency_key": "poison"}
    answer = client.post("/v1/flagged", json=[record, {**record, "idempotency_key": "good"}])
    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == "unstorable_record"
    assert (
        client.post("/v1/flagged", json={**record, "idempotency_key": "good"}).json()["results"][0]["status"]
        == "accepted"
    )


@pytest.mark.redis
def test_the_real_redis_is_asked(redis_server, redis_url):
    """Entries of the stream are counted; a Redis that stops is told apart from an empty one."""
    settings = Settings.model_validate({"redis_url": redis_url, "key_prefix": "t:"})
    probe = RedisProbe(settings)
    probe.ping()
    assert probe.stream_entries() == 0
    with redis_server.client() as redis:
        redis.xadd("t:" + FLAGGED_STREAM, {"record": "{}"})
    assert probe.stream_entries() == 1
    redis_server.stop()
    with pytest.raises(QueueUnavailable):
        RedisProbe(settings).ping()


def test_a_request_has_an_id_that_stands_on_its_lines(client, stored_story, capsys):
    """One of its own where it brings none or a hostile one; the answer carries it, and so does every line."""
    answer = client.get("/v1/audits/1", headers={"X-Request-ID": "trace-17.b"})
    assert answer.headers["X-Request-ID"] == "trace-17.b"
    assert "request_id=trace-17.b" in capsys.readouterr().out
    for hostile in ("", "a b", "x" * 65, "\x1b[31m"):
        given = client.get("/healthz", headers={"X-Request-ID": hostile}).headers["X-Request-ID"]
        assert len(given) == 16
        int(given, 16)
    assert "request_id" not in structlog.contextvars.get_contextvars()
