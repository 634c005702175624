"""Alive, ready, measured; and what happens when something is away."""

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from db import migrate
from db.session import Database
from tests.integration.web.conftest import BASE_URL
from web.app import create_app
from web.health import RedisProbe
from wherefrom.errors import QueueUnavailable
from wherefrom.messages import FLAGGED_STREAM
from wherefrom.metrics import Metrics
from wherefrom.settings import Settings


def samples(client):
    """All samples of /metrics by name and labels."""
    families = text_string_to_metric_families(client.get("/metrics").text)
    return {
        (one.name, *sorted(one.labels.items())): one.value for family in families for one in family.samples
    }


def test_alive_and_ready(client, told):
    """Both answer 200 and say so."""
    assert client.get("/healthz").json() == {"status": "ok"}
    answer = client.get("/readyz")
    assert answer.status_code == 200
    assert set(answer.json()["checks"]) == {"database", "redis", "schema"}


def test_metrics_hold_the_queue_and_the_requests(client, told):
    """Gauges are read now; routes are counted by template, never by id."""
    client.get("/v1/audits/1")
    client.get("/v1/nothing-of-this-name")
    found = samples(client)
    assert found[("wherefrom_audits", ("state", "pending"))] == 2
    assert found[("wherefrom_oldest_pending_seconds",)] >= 0
    assert found[("wherefrom_stream_entries",)] == 0
    route = ("route", "/v1/audits/{audit_id}")
    assert found[("wherefrom_http_requests_total", ("method", "GET"), route, ("status", "200"))] == 1
    assert not any("nothing-of-this-name" in str(key) for key in found)


def test_an_old_schema_is_not_ready(make_app, database_url):
    """The answer says what to run."""
    client = TestClient(make_app(), base_url=BASE_URL)
    migrate.downgrade(database_url, "base")
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert "python -m worker migrate" in answer.json()["checks"]["schema"]["detail"]


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
