"""Files with flagged texts are their owner's alone, whatever the umask."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from db.session import Database
from wherefrom.cli.output_file import output_file
from wherefrom.cli.targets import Targets
from wherefrom.client import Client
from wherefrom.client.sender import SendingOptions
from wherefrom.export_files import pieces_of
from wherefrom.private import open_private, own_folder, private_file, private_folder
from wherefrom.records import ExportFormat, ExportRows
from wherefrom.settings import Settings
from worker.supervise import Supervisor
from worker.vitals.liveness import LivenessFile


@pytest.fixture(params=[0, 0o022, 0o077], ids=["none", "usual", "strict"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A folder that everybody reads, under a umask."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o755)
    before = os.umask(request.param)
    yield shared
    os.umask(before)


def _modes(folder: Path) -> dict[str, int]:
    """Modes of everything below a folder, by name."""
    return {one.name: one.stat().st_mode & 0o7777 for one in folder.rglob("*")}


def test_files_and_folders(folder: Path) -> None:
    """New ones are closed to others; a folder of the operator's stays as it is, one of ours alone is closed."""
    private_folder(folder / "a" / "b")
    private_folder(folder / "a" / "b")
    private_file(folder / "a" / "b" / "one")
    for mode in ("w", "ab"):
        with open_private(folder / f"by-{mode}", mode) as file:
            file.write("ü\n" if mode == "w" else b"1")
    assert _modes(folder) == {"a": 0o700, "b": 0o700, "one": 0o600, "by-w": 0o600, "by-ab": 0o600}
    assert folder.stat().st_mode & 0o777 == 0o755
    own_folder(folder)
    assert folder.stat().st_mode & 0o777 == 0o700


def test_older_files_are_closed_when_they_are_written(folder: Path) -> None:
    """A log of a release before, and a file in the place of a folder."""
    old = folder / "old.log"
    old.touch()
    old.chmod(0o644)
    with open_private(old, "a") as file:
        file.write("more\n")
    assert old.stat().st_mode & 0o777 == 0o600
    with pytest.raises(OSError, match="exists"):
        private_folder(old)
    with pytest.raises(OSError, match=r"directory|exists"):
        private_folder(old / "below")


def test_spool(folder: Path) -> None:
    """The file, what SQLite puts beside it, the sender's lock and the folder."""
    client = Client(
        "http://127.0.0.1:1", spool_path=folder / "new" / "spool.db", sending=SendingOptions(poll_s=0.01)
    )
    client.flag(prompt="p", completion="a flagged text", model="m")
    client.flush(0.1)
    modes = _modes(folder)
    client.close(0.0)
    assert modes.pop("new") == 0o700
    assert {"spool.db", "spool.db-wal", "spool.db-shm"} <= modes.keys()
    assert set(modes.values()) == {0o600}


def test_database(folder: Path) -> None:
    """Written and read while it is open, so that its log is there."""
    database = Database(f"sqlite:///{folder / 'new' / 'wherefrom.db'}")
    with database.writing() as session:
        session.connection().exec_driver_sql("CREATE TABLE t (text TEXT)")
    with database.writing() as session:
        session.connection().exec_driver_sql("INSERT INTO t VALUES ('a flagged text')")
    database.ping()
    modes = _modes(folder)
    database.dispose()
    assert modes == {
        "new": 0o700,
        "wherefrom.db": 0o600,
        "wherefrom.db-wal": 0o600,
        "wherefrom.db-shm": 0o600,
    }


def test_state_folder_and_log(folder: Path) -> None:
    """The state folder is ours alone; the log of the processes may hold what a database said."""
    LivenessFile(Settings(state_dir=folder / "state"), "web").create(url="http://127.0.0.1:1")
    supervisor = Supervisor({}, environment={}, log_path=folder / "logs" / "up.log")
    supervisor.start()
    supervisor.stop()
    assert _modes(folder) == {"state": 0o700, "web.json": 0o600, "logs": 0o700, "up.log": 0o600}


@pytest.mark.parametrize("form", list(ExportFormat))
def test_exports_and_attributions(folder: Path, form: ExportFormat) -> None:
    """What the command line writes of flagged outputs, also in the place of a file that others read."""
    file = folder / "audits"
    file.touch()
    file.chmod(0o644)
    with output_file(file) as unfinished:
        unfinished.write_bytes(b"".join(pieces_of([], ExportRows.CITATIONS, form)))
    Targets(folder / "attributed.jsonl", None).write_lines([])
    assert _modes(folder) == {"audits": 0o600, "attributed.jsonl": 0o600}
