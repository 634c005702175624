"""The trail's processes: reads are moved once, events are sealed in time, anchors stand outside, and the command says what is broken."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from db.audit_trail import trail_chain
from db.audit_trail.trail import Event, TrailKind, record_events
from db.audit_trail.trail_verify import Fault, verify
from db.models import TrailEvent
from db.session import Database
from tests.waiting import wait_until
from wherefrom.errors import ConfigurationError
from wherefrom.journal import Journal, Line, files_of, journal_folder, new_id
from wherefrom.metrics import Metrics
from wherefrom.settings import Settings
from worker.sweeper.anchors import AnchorFile, Anchors, anchor_file
from worker.sweeper.journal_mover import JournalMover
from worker.sweeper.sealing import RoundThread, Sealer


@pytest.fixture
def settings(migrated_sqlite_url: str, tmp_path: Path) -> Settings:
    """Settings of a service on an empty database."""
    return Settings.model_validate(
        {"database_url": migrated_sqlite_url, "state_dir": tmp_path / "state", "trail_anchor_seconds": 3600}
    )


@pytest.fixture
def db(settings: Settings) -> Iterator[Database]:
    """Its database."""
    opened = Database(settings.database_url.get_secret_value())
    yield opened
    opened.dispose()


def read(number: int) -> Line:
    """A read of one audit."""
    return Line(new_id(), datetime.now(UTC), "text.read", f"audit:{number}", "person:1", {"audits": [number]})


def write(db: Database, number: int = 1) -> None:
    """Append events."""
    with db.writing() as session:
        record_events(session, [Event(TrailKind.AUDIT_FINISHED, f"audit:{one}") for one in range(number)])


def moved(db: Database) -> list[str]:
    """Subjects of the events that came from a journal."""
    with db.reading() as session:
        found = session.query(TrailEvent).where(TrailEvent.journal_id.is_not(None)).order_by(TrailEvent.id)
        return [one.subject for one in found]


def journaled(settings: Settings, number: int) -> Journal:
    """A journal with lines, still open."""
    journal = Journal(journal_folder(settings))
    for one in range(number):
        journal.append(read(one)).result(10)
    return journal


def test_reads_are_moved_once_and_finished_files_are_removed(settings: Settings, db: Database) -> None:
    """While the writer lives its file stays; a second mover, and one that died before it removed the file, move nothing twice."""
    journal = journaled(settings, 3)
    movers = [JournalMover(db, journal_folder(settings), metrics=Metrics()) for _ in range(2)]
    for mover in movers:
        mover.step()
    assert moved(db) == ["audit:0", "audit:1", "audit:2"]
    journal.append(read(3)).result(10)
    [file] = files_of(journal_folder(settings))
    copy = file.read_bytes()
    journal.close()
    for mover in movers:
        mover.step()
    assert files_of(journal_folder(settings)) == []
    file.with_name("reads-restored.jsonl").write_bytes(copy)  # from a backup, or by a mover that died
    assert movers[0].step() == 4
    assert moved(db) == [f"audit:{number}" for number in range(4)]


def test_a_damaged_file_is_set_aside(settings: Settings, db: Database) -> None:
    """Its good lines are moved, the file is kept for somebody to look at, and a metric tells."""
    folder = journal_folder(settings)
    folder.mkdir(parents=True)
    (folder / "reads-1.jsonl").write_bytes(read(1).to_bytes() + b"?\n" + read(2).to_bytes() + b'{"torn')
    metrics = Metrics()
    JournalMover(db, folder, metrics=metrics).step()
    assert moved(db) == ["audit:1", "audit:2"]
    assert [one.name for one in folder.iterdir()] == ["reads-1.jsonl.damaged"]
    assert metrics.registry.get_sample_value("wherefrom_trail_reads_damaged_total") == 1


def test_events_are_sealed_within_five_seconds(settings: Settings, db: Database) -> None:
    """The sweeper's thread seals what workers wrote and what was read; whatever is away, it goes on."""
    journal = journaled(settings, 2)
    write(db, 3)
    thread = RoundThread(Sealer(db, settings, metrics=Metrics()), name="sealer", every_s=0.05).start()
    try:
        wait_until(lambda: trail_chain.count_events(db) == (5, 0), 5.0, "the sealer")
        with db.writing() as session:
            session.execute(text("ALTER TABLE trail_event RENAME TO away"))
        with db.writing() as session:
            session.execute(text("ALTER TABLE away RENAME TO trail_event"))
        write(db)
        wait_until(lambda: trail_chain.count_events(db) == (6, 0), 5.0, "the sealer after a fault")
    finally:
        thread.close()
        journal.close()
    assert verify(db, anchors={}).whole


def test_anchors_are_put_outside_when_it_is_time_and_at_the_end(settings: Settings, db: Database) -> None:
    """The first head at once, then at most so often, and the last one when the sealer stops."""
    sealer = Sealer(db, settings, metrics=Metrics())
    for _ in range(3):
        write(db)
        sealer.step()
    file = anchor_file(settings)
    assert list(file.read()) == [1]
    sealer.close()
    sealer.close()
    assert list(file.read()) == [1, 3]
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert verify(db, anchors=file.read()).anchors == 2


def test_a_sink_that_fails_stops_nothing(tmp_path: Path) -> None:
    """It is counted and logged; the other sinks get the anchor."""
    (tmp_path / "file").write_text("no folder")
    metrics, good = Metrics(), AnchorFile(tmp_path / "good.jsonl")
    anchors = Anchors((AnchorFile(tmp_path / "file" / "a"), good), every_s=0.001, metrics=metrics)
    anchors.saw(trail_chain.Link(1, "a" * 64))
    assert good.read() == {1: "a" * 64}
    assert metrics.registry.get_sample_value("wherefrom_trail_anchor_failures_total") == 1


def test_a_torn_anchor_is_passed_over_and_a_contradiction_is_told(tmp_path: Path) -> None:
    """A power cut may tear the last line; two digests of one place mean that the file is not to be believed."""
    file = AnchorFile(tmp_path / "anchors.jsonl")
    file.put(trail_chain.Link(1, "a" * 64))
    with file.path.open("ab") as torn:
        torn.write(b'{"at": "2026')
    file.put(trail_chain.Link(2, "b" * 64))
    assert file.read() == {1: "a" * 64, 2: "b" * 64}
    file.put(trail_chain.Link(2, "c" * 64))
    with pytest.raises(ConfigurationError, match="two digests of event 2"):
        file.read()


def test_the_command_verifies_and_names_the_first_broken_link(operator_command: Any, db: Database) -> None:
    """Whole: exit code 0. Cut off or changed: exit code 1, with the place."""
    write(db, 4)
    nothing = operator_command("trail", "verify")
    assert (nothing.code, "0 events" in nothing.out, "4 events not sealed" in nothing.err) == (0, True, True)
    assert operator_command("trail", "seal", "--json").out.strip() == '{"sealed": 4}'
    whole = json.loads(operator_command("trail", "verify", "--json").out)
    assert (whole["whole"], whole["events"], whole["anchors"]) == (True, 4, 1)
    with db.writing() as session:
        session.execute(text("DROP TRIGGER trail_event_no_delete"))
    assert "trail_event_no_delete" in operator_command("trail", "verify").out
    with db.writing() as session:
        session.execute(text("DELETE FROM trail_event WHERE sequence > 2"))
    broken = operator_command("trail", "verify", "--json")
    found = json.loads(broken.out)
    assert (broken.code, found["whole"], found["fault"], found["sequence"]) == (1, False, Fault.CUT, 3)
    assert operator_command("trail", "verify", "--anchor", "/nowhere/anchors.jsonl").code == 2
