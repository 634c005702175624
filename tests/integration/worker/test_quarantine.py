"""One entry that cannot be stored keeps nobody out, is not lost, and is not blamed for what the database does."""

import json

import pytest

from db.reading import reader
from tests.integration.db.sabotage import allow_rows, refuse_rows, run
from tests.waiting import wait_until
from wherefrom.errors import DatabaseUnavailable, QuarantineFull
from wherefrom.messages import INTAKE_GROUP
from wherefrom.records import AuditState
from worker.checkup.doctor import examine
from worker.checkup.health import check_health
from worker.flagged_stream.poison_suspects import CHANCES
from worker.vitals.liveness import LivenessFile

pytestmark = [pytest.mark.redis, pytest.mark.usefixtures("bundle_id")]

STREAM, REJECTED, QUARANTINE = "t:wherefrom:flagged", "t:wherefrom:rejected", "t:wherefrom:quarantine"


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Short reads and short waits."""
    monkeypatch.setattr("worker.flagged_stream.intake.BLOCK_MS", 5)
    monkeypatch.setattr("worker.flagged_stream.poison_suspects.RETRY_BASE_S", 0.001)
    monkeypatch.setattr("worker.flagged_stream.poison_suspects.RETRY_CAP_S", 0.002)


def add(client, key, **fields):
    """XADD one good record with this key."""
    record = {
        "prompt": "p",
        "completion": f"answer {key}",
        "model": "tiny@1",
        "idempotency_key": key,
        **fields,
    }
    return client.xadd(STREAM, {"record": json.dumps(record)})


def pending(database):
    """Audits that were made."""
    return reader.queue_health(database).states.get(AuditState.PENDING, 0)


def test_a_poisoned_entry_goes_to_the_quarantine_while_others_are_stored(parts, client, database):
    """It takes nobody with it, holds nobody up, and ends whole in a stream of its own, with code and reason."""
    refuse_rows(database, like="poison%", sqlstate="P0001")
    for number in range(20):
        add(client, f"poison-{number}" if number in {0, 3, 7} else f"good-{number}", completion="x" * 70_000)
    intake = parts.intake()
    for _ in range(6):
        intake.step()
    assert pending(database) == 17, "what is good is stored before anybody is condemned"
    number = 100
    while client.xlen(STREAM):
        assert number < 200, "the entries are neither stored nor put away"
        add(client, f"later-{number}")
        intake.step()
        number += 1
    assert client.xlen(QUARANTINE) == 3
    assert client.xlen(REJECTED) == 0
    assert pending(database) == 17 + number - 100
    kept = client.xrange(QUARANTINE)[0][1]
    assert json.loads(kept[b"record"])["idempotency_key"].startswith("poison-")
    assert len(json.loads(kept[b"record"])["completion"]) == 70_000
    assert kept[b"rejected_code"] == b"database_unavailable"
    assert kept[b"rejected_reason"]
    assert client.xpending(STREAM, INTAKE_GROUP)["pending"] == 0
    assert parts.metrics.registry.get_sample_value("wherefrom_intake_quarantined_entries_total") == 3


def test_an_entry_alone_is_never_condemned(parts, client, database):
    """Nobody else is stored meanwhile, so nothing is known about it; it is stored when it can be."""
    refuse_rows(database, like="poison%", sqlstate="P0001")
    add(client, "poison")
    intake = parts.intake()
    for _ in range(6 * CHANCES):
        intake.step()
    assert (client.xlen(STREAM), client.xlen(QUARANTINE), client.xlen(REJECTED)) == (1, 0, 0)
    allow_rows(database)
    wait_until(lambda: intake.step() or client.xlen(STREAM) == 0)
    assert pending(database) == 1


@pytest.mark.parametrize("sqlstate", ["42501", "23514", "22000", "P0001"])
def test_nothing_is_condemned_while_the_probe_fails(parts, client, database, sqlstate):
    """A rule that keeps everything out keeps the probe out too, whatever its code is."""
    for number in range(12):
        add(client, f"good-{number}")
    refuse_rows(database, like="%", sqlstate=sqlstate)
    intake = parts.intake()
    for _ in range(2 * CHANCES):
        with pytest.raises(DatabaseUnavailable):
            intake.step()
    assert (client.xlen(STREAM), client.xlen(QUARANTINE), client.xlen(REJECTED)) == (12, 0, 0)
    allow_rows(database)
    wait_until(lambda: intake.step() or client.xlen(STREAM) == 0)
    assert pending(database) == 12


def test_a_fault_that_the_probe_does_not_see_condemns_nobody(parts, client, database):
    """Everything but the probe is refused: nothing is stored, so no failure counts."""
    for number in range(30):
        add(client, f"good-{number}")
    refuse_rows(database, like="good%", sqlstate="P0001")
    intake = parts.intake()
    for _ in range(4 * CHANCES):
        try:
            intake.step()
        except DatabaseUnavailable:
            continue
    assert (client.xlen(STREAM), client.xlen(QUARANTINE), client.xlen(REJECTED)) == (30, 0, 0)
    allow_rows(database)
    wait_until(lambda: intake.step() or client.xlen(STREAM) == 0)
    assert pending(database) == 30


@pytest.mark.parametrize("sqlstate", ["22P05", "23514"])
def test_a_value_that_the_database_refuses_is_rejected_alone(parts, client, database, sqlstate):
    """At once, with a code, and its neighbours are stored."""
    refuse_rows(database, like="poison%", sqlstate=sqlstate)
    for number in range(9):
        add(client, "poison" if number == 4 else f"good-{number}")
    intake = parts.intake()
    intake.step()
    assert (client.xlen(STREAM), client.xlen(REJECTED), client.xlen(QUARANTINE)) == (0, 1, 0)
    assert client.xrange(REJECTED)[0][1][b"rejected_code"] == b"unstorable_record"
    assert pending(database) == 8


def test_a_full_quarantine_pauses_intake_and_says_so(parts, client, database):
    """Nothing is trimmed, good entries wait too, and room makes it go on."""
    intake = parts.intake()
    intake._stream._settings = parts.settings.model_copy(update={"quarantine_limit": 2})
    for number in range(2):
        client.xadd(QUARANTINE, {"record": str(number)})
    add(client, "good")
    with pytest.raises(QuarantineFull, match="replay"):
        intake.step()
    assert "2 entries are in the quarantine" in intake.situation()["paused"]
    assert (client.xlen(STREAM), client.xlen(QUARANTINE)) == (1, 2)
    LivenessFile(parts.settings, "intake").create(**intake.situation())
    health = check_health("intake", parts.settings)
    assert not health.well
    assert "replay --list" in health.text
    full = parts.settings.model_copy(update={"quarantine_limit": 2})
    [finding] = [one for one in examine(full) if one.what == "quarantine"]
    assert (finding.verdict, "pauses" in finding.text) == ("problem", True)
    client.xdel(QUARANTINE, client.xrange(QUARANTINE)[0][0])
    intake.step()
    assert (intake.situation(), pending(database)) == ({}, 1)


def test_two_intakes_put_an_entry_away_once(parts, client, database):
    """Whoever is second finds it gone."""
    refuse_rows(database, like="poison%", sqlstate="P0001")
    add(client, "poison")
    one, two = parts.intake("one"), parts.intake("two")
    for number in range(60):
        add(client, f"good-{number}")
        (one if number % 2 else two).step()
    wait_until(lambda: one.step() or two.step() or client.xlen(STREAM) == 0)
    assert pending(database) == 60
    assert client.xlen(QUARANTINE) == 1


def test_a_missing_table_condemns_nobody(parts, client, database):
    """Half a schema is the database's own fault."""
    run(database, "ALTER TABLE trail_event RENAME TO away")
    add(client, "good")
    intake = parts.intake()
    for _ in range(2 * CHANCES):
        with pytest.raises(DatabaseUnavailable, match="migrate"):
            intake.step()
    run(database, "ALTER TABLE away RENAME TO trail_event")
    intake.step()
    assert (client.xlen(STREAM), client.xlen(REJECTED), pending(database)) == (0, 0, 1)
