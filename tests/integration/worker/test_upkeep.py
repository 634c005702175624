"""What doctor looks at beside the parts of the service."""

from datetime import timedelta
from types import SimpleNamespace

import pytest
import redis

from db import signs
from db.erasure import erasures, retention
from db.session import Database
from db.storing.intake import accept
from tests.integration.worker.conftest import MODEL
from wherefrom.messages import ATTRIBUTE_QUEUE
from wherefrom.metrics import Metrics
from wherefrom.records import ErasureDraft, FlaggedRecord, OutputClass, RetentionDraft, utc_now
from wherefrom.settings import Settings
from worker.broker.redis_link import flagged_stream, hint_queue
from worker.checkup import upkeep
from worker.checkup.diagnosis import Finding
from worker.checkup.health import Health
from worker.sweeper.anchors import anchor_file
from worker.sweeper.sealing import Sealer
from worker.vitals.traces import MISSING
from worker.web_address import web_file

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
    client.rpush(hint_queue(settings, ATTRIBUTE_QUEUE), "hint")
    assert list(upkeep.look_at_hints(client, database, settings)) == []


@pytest.mark.usefixtures("bundle_id")
def test_erasures_and_rules_that_nobody_applies(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No sweeper beside other processes, an erasure that waits and a rule that nobody applies are problems, each with what to do; a sweeper's round mends them."""
    accept(database, [FlaggedRecord(prompt="p", completion="c", model=MODEL)], producer="p", channel="cli")
    signs.give_sign(database, signs.Sign("w", "attribute", "host", 1))
    assert [one.what for one in upkeep.look_at_erasing(settings)] == ["sweeper"]
    erasures.ask(database, ErasureDraft(audit_ids=(1,), reason="asked"), by="me")
    retention.add(database, RetentionDraft(name="all", outputs=OutputClass(), days=9), by="me")
    monkeypatch.setattr(upkeep, "UNERASED_S", -1.0)
    monkeypatch.setattr(upkeep, "UNAPPLIED_S", -1.0)
    found = told(list(upkeep.look_at_erasing(settings)))
    assert {name: one.verdict for name, one in found.items()} == dict.fromkeys(
        ("sweeper", "erasures", "retention"), "problem"
    )
    assert all("python -m worker sweep" in one.text for one in found.values())
    assert "'all'" in found["retention"].text
    for one in erasures.waiting(database):
        erasures.carry_out(database, one, before=lambda _: None)
    retention.step(database, before=lambda _: None)
    signs.give_sign(database, signs.Sign("s", "sweep", "host", 1))
    monkeypatch.undo()
    assert {one.what: one.verdict for one in upkeep.look_at_erasing(settings)} == {"retention": "ok"}


def test_a_sweeper_is_missed_where_anything_else_runs(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An installation that is not started is healthy: a warning. Beside any other process, the web service of this machine too, it is a problem."""

    def verdicts() -> list[tuple[str, str]]:
        return [(one.what, one.verdict) for one in upkeep.look_at_erasing(settings)]

    assert verdicts() == [("sweeper", "warning")]
    web_file(settings).create(url="http://127.0.0.1:1")  # of one that was killed: nobody answers there
    assert verdicts() == [("sweeper", "warning")]
    monkeypatch.setattr(upkeep, "check_health", lambda name, _: Health(name, well=True, text=""))
    assert verdicts() == [("sweeper", "problem")]
    web_file(settings).remove()
    for role in ("intake", "attribute", "measure", "build"):
        signs.give_sign(database, signs.Sign(role, role, "host", 1))
        assert verdicts() == [("sweeper", "problem")], role
        signs.take_sign(database, role)
    signs.give_sign(database, signs.Sign("s", "sweep", "host", 1))
    assert verdicts() == []


def test_traces_that_cannot_be_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for traces hears why none come."""
    assert not list(upkeep.look_at_traces())
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    assert [one.verdict for one in upkeep.look_at_traces()] == ["ok"]
    monkeypatch.setattr(upkeep, "missing_package", lambda: MISSING)
    assert told(list(upkeep.look_at_traces()))["traces"].text == MISSING
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    assert "4318" in told(list(upkeep.look_at_traces()))["traces"].text
