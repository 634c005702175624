"""What doctor looks at beside the parts of the service."""

from datetime import timedelta
from types import SimpleNamespace

import pytest
import redis

from db.session import Database
from db.storing.intake import accept
from tests.integration.worker.conftest import MODEL
from wherefrom.metrics import Metrics
from wherefrom.records import FlaggedRecord, utc_now
from wherefrom.settings import Settings
from worker.broker.redis_link import attribute_queue, flagged_stream
from worker.checkup import upkeep
from worker.checkup.diagnosis import Finding
from worker.sweeper.anchors import anchor_file
from worker.sweeper.sealing import Sealer

pytestmark = pytest.mark.redis


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """The looks are the same on both databases."""
    return sqlite_url


def told(findings: list[Finding]) -> dict[str, Finding]:
    """By what was looked at."""
    return {one.what: one for one in findings}


@pytest.mark.usefixtures("bundle_id")
def test_the_trail_and_its_anchors(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not sealed for long: a problem. Sealed without an anchor: a warning. With one: ok. A damaged journal is named."""
    monkeypatch.setattr(upkeep, "UNSEALED_S", -1.0)
    found = told(list(upkeep.look_at_trail(settings)))
    assert (found["trail"].verdict, found["trail anchor"].verdict) == ("problem", "ok")
    assert "trail seal" in found["trail"].text
    monkeypatch.undo()
    sealer = Sealer(database, settings, metrics=Metrics())
    sealer.step()
    anchors = anchor_file(settings).path
    sealer.close()
    assert told(list(upkeep.look_at_trail(settings)))["trail anchor"].verdict == "ok"
    (anchors.parent / "reads-1.jsonl.damaged").touch()
    anchors.rename(anchors.with_suffix(".away"))
    found = told(list(upkeep.look_at_trail(settings)))
    assert (found["trail"].verdict, found["trail anchor"].verdict) == ("ok", "warning")
    assert "reads-1.jsonl.damaged" in found["journals"].text
    anchors.write_text(anchors.with_suffix(".away").read_text().replace('"row_hash": "', '"row_hash": "00'))
    assert "has another event there" in told(list(upkeep.look_at_trail(settings)))["trail anchor"].text


@pytest.mark.usefixtures("database")
def test_disks_and_clock(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Little room is a warning, none a problem; a clock that is off is told with its way."""
    settings.state_dir.mkdir(parents=True)
    for free, verdict in ((9e9, "ok"), (1e9, "warning"), (1e8, "problem")):
        monkeypatch.setattr(
            "worker.checkup.upkeep.shutil.disk_usage", lambda _, room=free: SimpleNamespace(free=int(room))
        )
        assert {one.verdict for one in upkeep.look_at_disks(settings)} == {verdict}
    [right] = upkeep.look_at_clock(settings)
    assert right.verdict == "ok"
    monkeypatch.setattr(upkeep, "utc_now", lambda: utc_now() + timedelta(minutes=2))
    [wrong] = upkeep.look_at_clock(settings)
    assert wrong.verdict == "warning"
    assert "120 s ahead of the database" in wrong.text


@pytest.mark.usefixtures("bundle_id")
def test_entries_and_audits_that_nobody_takes(
    settings: Settings, database: Database, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An old entry on the stream, and an old audit while no hint is queued."""
    assert list(upkeep.look_at_stream(client, settings)) == []
    client.xadd(flagged_stream(settings), {"record": "{}"}, id="1-1")
    [late] = upkeep.look_at_stream(client, settings)
    assert (late.what, late.verdict) == ("stream lag", "warning")
    accept(database, [FlaggedRecord(prompt="p", completion="c", model=MODEL)], producer="p", channel="cli")
    assert list(upkeep.look_at_hints(client, database, settings)) == []
    monkeypatch.setattr(upkeep, "UNHINTED_S", -1.0)
    [late] = upkeep.look_at_hints(client, database, settings)
    assert "no hint is on the queue" in late.text
    client.rpush(attribute_queue(settings), "hint")
    assert list(upkeep.look_at_hints(client, database, settings)) == []
