"""Database and bundles are backed up while the service runs, come back as they were, and an older state is told."""

import json
import secrets
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import create_engine, text

from db import dump
from db.audit_trail import trail_chain
from db.audit_trail.trail import acting_as
from db.audit_trail.trail_verify import Fault
from db.dump import dump_database
from db.reading import reader
from db.session import Database, parse_url
from db.storing.intake import accept
from tests.tiny import shared_micro_bundle
from wherefrom.attribution.bundles.manifest import hash_file, read_manifest
from wherefrom.errors import BackupFailed, BundleCorrupt, ConfigurationError
from wherefrom.metrics import Metrics
from wherefrom.records import FlaggedRecord
from wherefrom.settings import Settings
from worker.backup import CONTENT, make_backup, restore_backup
from worker.bundles import add_bundle
from worker.checkup.diagnosis import Finding
from worker.checkup.upkeep import look_at_trail
from worker.sweeper.sealing import Sealer

pytestmark = pytest.mark.usefixtures("postgres_programs")


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    """A service's settings, without Redis."""
    return Settings(
        database_url=SecretStr(database_url),
        state_dir=tmp_path / "state",
        bundles_dir=tmp_path / "bundles",
        trail_anchor_file=tmp_path / "elsewhere" / "anchors.jsonl",
        trail_anchor_seconds=0.001,
    )


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    """The service's database, with a bundle."""
    opened = Database(settings.database_url.get_secret_value())
    add_bundle(opened, settings, shared_micro_bundle(), activate=True)
    yield opened
    opened.dispose()


@pytest.fixture
def flag(settings: Settings, database: Database) -> Callable[[str], None]:
    """Accepts an output and seals the trail."""
    sealer = Sealer(database, settings, metrics=Metrics())

    def _flag(said: str) -> None:
        with acting_as("operator"):
            record = FlaggedRecord(prompt="p", completion=said, model="micro@1")
            accept(database, [record], producer="p", channel="cli")
        sealer.step()
        sealer.close()

    _flag("first")
    return _flag


@pytest.fixture
def elsewhere(database_url: str, tmp_path: Path) -> Iterator[str]:
    """An empty database of the same kind."""
    if database_url.startswith("sqlite"):
        yield f"sqlite:///{tmp_path / 'back' / 'wherefrom.db'}"
        return
    name = f"brought_back_{secrets.token_hex(4)}"
    admin = create_engine(database_url, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    yield database_url.rsplit("/", 1)[0] + f"/{name}"
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


def _verdicts(findings: list[Finding]) -> dict[str, str]:
    return {one.what: one.verdict for one in findings}


def test_a_backup_comes_back_and_an_older_state_is_told(
    settings: Settings, database: Database, *, flag: Callable[[str], None], elsewhere: str, tmp_path: Path
) -> None:
    """Rows, trail and bundle are those of the backup. The trail is whole until the anchors have seen more; then `restore`, `verify` and `doctor` say so."""
    out = tmp_path / "backups" / "one"
    made = make_backup(settings, out)
    [bundle] = made.bundles
    assert made.trail_sequence > 0
    assert (out.stat().st_mode & 0o077, (out / made.database).stat().st_mode & 0o077) == (0, 0)
    back = settings.model_copy(
        update={"database_url": SecretStr(elsewhere), "bundles_dir": tmp_path / "back" / "bundles"}
    )
    found = restore_backup(back, out)
    assert found.trail.whole, found.trail.text
    assert found.bundles == (bundle,)
    assert read_manifest(back.bundles_dir / bundle).name == bundle
    restored = Database(elsewhere)
    try:
        assert reader.get_audit(restored, 1) == reader.get_audit(database, 1)
        assert trail_chain.count_events(restored) == trail_chain.count_events(database)
        flag("after the backup")
        assert _verdicts(list(look_at_trail(settings)))["trail anchor"] == "ok"
        told = {one.what: one for one in look_at_trail(back)}
        assert told["trail anchor"].verdict == "problem"
        assert "restored to an older state" in told["trail anchor"].text
    finally:
        restored.dispose()
    with pytest.raises(ConfigurationError, match="into an empty database only"):
        restore_backup(back, out)


def test_an_older_state_is_cut(
    settings: Settings, flag: Callable[[str], None], elsewhere: str, tmp_path: Path
) -> None:
    """The restore itself says that anchors saw a longer chain."""
    out = tmp_path / "one"
    made = make_backup(settings, out, with_bundles=False)
    assert made.bundles == ()
    flag("after the backup")
    found = restore_backup(settings.model_copy(update={"database_url": SecretStr(elsewhere)}), out)
    assert found.trail.fault is Fault.CUT


class TestWhatIsRefused:
    """Before anything is written."""

    @pytest.fixture
    def database_url(self, sqlite_url: str) -> str:
        """Files are checked the same for both."""
        return sqlite_url

    def test_a_changed_backup(
        self, settings: Settings, database: Database, elsewhere: str, tmp_path: Path
    ) -> None:
        """A changed file of the database, a changed bundle, another kind of database, no backup, a folder that is there."""
        out = tmp_path / "one"
        made = make_backup(settings, out)
        back = settings.model_copy(update={"database_url": SecretStr(elsewhere)})
        with pytest.raises(ConfigurationError, match="gets a folder of its own"):
            make_backup(settings, out)
        with pytest.raises(ConfigurationError, match="is no backup"):
            restore_backup(back, tmp_path)
        away = back.model_copy(update={"database_url": SecretStr("postgresql+psycopg://x@127.0.0.1:1/x")})
        with pytest.raises(ConfigurationError, match="of its own kind"):
            restore_backup(away, out)
        card = out / "bundles" / made.bundles[0] / "card.json"
        card.write_bytes(card.read_bytes() + b" ")
        with pytest.raises(BundleCorrupt):
            restore_backup(back, out)
        file = out / made.database
        file.write_bytes(file.read_bytes()[:-1] + b"?")
        with pytest.raises(BackupFailed, match="has changed since the backup was made"):
            restore_backup(back, out)
        shutil.rmtree(out / "bundles")
        shutil.copyfile(parse_url(settings.database_url.get_secret_value()).database or "", file)
        content = json.loads((out / CONTENT).read_text())
        (out / CONTENT).write_text(json.dumps(content | {"sha256": hash_file(file).sha256}))
        with pytest.raises(BackupFailed, match="is missing; the backup is not whole"):
            restore_backup(back, out)
        (out / CONTENT).write_text(json.dumps(content | {"bundles": ["../../etc"]}))
        with pytest.raises(ConfigurationError, match="leads out of the folder"):
            restore_backup(back, out)
        assert not Path(elsewhere.removeprefix("sqlite:///")).exists()

    def test_what_is_left_of_an_old_database(
        self, settings: Settings, database: Database, elsewhere: str, tmp_path: Path
    ) -> None:
        """SQLite would play the log of a database that was killed into the one that is brought back."""
        out = tmp_path / "one"
        make_backup(settings, out, with_bundles=False)
        target = Path(elsewhere.removeprefix("sqlite:///"))
        target.parent.mkdir()
        target.with_name(f"{target.name}-wal").write_bytes(b"old")
        with pytest.raises(ConfigurationError, match=r"-wal exists; .* Move the old files away"):
            restore_backup(settings.model_copy(update={"database_url": SecretStr(elsewhere)}), out)
        assert not target.exists()

    def test_a_path_with_signs_of_an_address(self, database_url: str, tmp_path: Path) -> None:
        """They are part of the name: SQLite would make an empty database under the first half of it, and that would be the backup."""
        home = tmp_path / "a#b c"
        home.mkdir()
        shutil.copyfile(database_url.removeprefix("sqlite:///"), home / "w.db")
        with closing(sqlite3.connect(dump_database(f"sqlite:///{home / 'w.db'}", tmp_path))) as copied:
            assert copied.execute("SELECT count(*) FROM flagged_output").fetchone() == (0,)


def test_no_password_on_a_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever in the URL it stands: others on the machine can read the words of a command."""
    ran: list[tuple[list[str], dict[str, str]]] = []

    def run(words: list[str], *, env: dict[str, str], **_: object) -> subprocess.CompletedProcess[str]:
        ran.append((words, env))
        return subprocess.CompletedProcess(words, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(shutil, "which", lambda program: f"/usr/bin/{program}")
    for url in ("postgresql://u:s3cret@h/d", "postgresql://u@h/d?password=s3cret&sslmode=require"):
        dump._run("pg_dump", parse_url(url))
    assert [env["PGPASSWORD"] for _, env in ran] == ["s3cret", "s3cret"]
    assert not [words for words, _ in ran if "s3cret" in " ".join(words)]
    assert "sslmode=require" in ran[1][0][-1]
