"""A database that can be read but not written: processes wait, nobody is blamed, and the operator is told in words."""

import json

import pytest

from db.queues.audit_queue import AuditQueue
from db.reading import reader
from tests.integration.db.sabotage import on_postgres, read_only
from wherefrom.errors import DatabaseReadOnly
from wherefrom.records import AuditState
from worker.checkup.doctor import examine
from worker.checkup.health import check_health
from worker.vitals.watchdog import Watchdog

pytestmark = [pytest.mark.redis, pytest.mark.usefixtures("bundle_id")]

STREAM, REJECTED = "t:wherefrom:flagged", "t:wherefrom:rejected"


@pytest.fixture(autouse=True)
def _short_reads(monkeypatch):
    """A read of an empty stream does not keep the test waiting."""
    monkeypatch.setattr("worker.flagged_stream.intake.BLOCK_MS", 20)


@pytest.fixture
def url(settings):
    """URL of the test's database."""
    return settings.database_url.get_secret_value()


def add(client, number, **fields):
    """XADD one good record."""
    record = {"prompt": "p", "completion": f"answer {number}", "model": "tiny@1", **fields}
    return client.xadd(STREAM, {"record": json.dumps(record)})


def test_intake_acknowledges_nothing(parts, client, database, url):
    """Good entries stay in the stream, large ones too, and are taken when the database can be written again."""
    for number in range(25):
        add(client, number, completion="x" * (100_000 if number == 3 else 20))
    intake = parts.intake()
    with read_only(database, url):
        for _ in range(3):
            with pytest.raises(DatabaseReadOnly):
                intake.step()
    assert (client.xlen(STREAM), client.xlen(REJECTED)) == (25, 0)
    for _ in range(5):
        intake.step()
    assert (client.xlen(STREAM), client.xlen(REJECTED)) == (0, 0)
    assert reader.queue_health(database).states[AuditState.PENDING] == 25


def test_the_sweeper_and_the_watchdog_wait(parts, database, url, bundle_id):
    """The sweeper meets a transient error, which its loop waits out; the watchdog ends no worker that cannot claim."""
    add(parts.client, 1)
    parts.intake().step()
    now = [0.0]
    watchdog = Watchdog(database, limit_s=10, clock=lambda: now[0])
    sweeper = parts.sweeper()
    AuditQueue(database).claim(bundle_id, limit=1, owner="dead", lease_s=-1)
    watchdog.look()
    with read_only(database, url):
        now[0] = 100
        assert watchdog.look() == 0
        with pytest.raises(DatabaseReadOnly):
            sweeper.step()
    sweeper.step()
    assert reader.queue_health(database).states[AuditState.PENDING] == 1


def test_health_and_doctor_say_so(settings, database, url):
    """In words, and doctor calls it a problem; reading alone would have been content."""
    assert check_health("database", settings).well
    if not on_postgres(database):
        return  # a SQLite file is read-only for a user, and root writes all the same
    with read_only(database, url):
        health = check_health("database", settings)
        assert not health.well
        assert "read-only" in health.text
        verdicts = {one.what: (one.verdict, one.text) for one in examine(settings)}
        assert verdicts["database"][0] == "problem"
        assert "standby" in verdicts["database"][1]
    assert check_health("database", settings).well
