"""Signs of life."""

import errno
import os
import subprocess
import sys

import pytest
from structlog.testing import capture_logs

from wherefrom.errors import ConfigurationError
from wherefrom.settings import Settings
from worker.checkup.health import check_health
from worker.vitals.liveness import STALE_S, LivenessFile, forget_left, leaving_file


def test_a_sign_tells_its_age_and_details_until_it_is_removed(tmp_path):
    """Fresh after it was given; gone after an end in order."""
    liveness = LivenessFile(Settings(state_dir=tmp_path / "state"), "web")
    assert liveness.age_s() is None
    assert liveness.details() == {}
    liveness.create(url="http://x")
    age_s = liveness.age_s()
    assert age_s is not None
    assert age_s < 5
    assert liveness.details() == {"pid": str(os.getpid()), "url": "http://x"}
    liveness.remove()
    liveness.remove()
    assert liveness.age_s() is None


def test_what_killed_workers_left_is_removed(tmp_path):
    """A worker that is leaving now keeps its sign: its pool processes look for it."""
    settings = Settings(state_dir=tmp_path)
    signs = {node: leaving_file(settings, node) for node in ("alive", "killed")}
    for sign in signs.values():
        sign.beat()
    ended = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True
    )
    signs["killed"].beat(pid=ended.stdout.decode().strip())
    forget_left(settings)
    assert [node for node, sign in signs.items() if sign.age_s() is not None] == ["alive"]


def test_health_follows_the_age_of_the_sign(tmp_path):
    """A process that stopped turning is unwell, though it still exists."""
    settings = Settings(state_dir=tmp_path)
    assert not check_health("intake", settings).well
    LivenessFile(settings, "intake").create()
    assert check_health("intake", settings).well
    old = (tmp_path / "intake.json").stat().st_mtime - STALE_S - 5
    os.utime(tmp_path / "intake.json", (old, old))
    assert not check_health("intake", settings).well


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    """The operator learns which setting to look at."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="WHEREFROM_STATE_DIR"):
        LivenessFile(Settings(state_dir=tmp_path / "file" / "state"), "web").create()


def test_a_torn_sign_has_no_details(tmp_path):
    """Half a file is no reason to fail."""
    (tmp_path / "web.json").write_text("{", encoding="utf-8")
    assert LivenessFile(Settings(state_dir=tmp_path), "web").details() == {}


def test_another_users_state_folder_is_one_line(tmp_path, monkeypatch):
    """The folder is the service's alone; whoever else asks is told as whom to ask."""
    liveness = LivenessFile(Settings(state_dir=tmp_path), "web")

    def refuse(*_args, **_kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.stat", refuse)
    monkeypatch.setattr("pathlib.Path.read_text", refuse)
    for ask in (liveness.age_s, liveness.details):
        with pytest.raises(ConfigurationError, match="another user"):
            ask()


def fails_with(monkeypatch, number):
    """Let every sign fail as a disk does."""

    def _fail(path, *_args, **_kwargs):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr("pathlib.Path.write_text", _fail)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_a_full_or_failing_disk_is_a_warning(tmp_path, monkeypatch, number):
    """The process works without its sign, from the first one on; nothing is left behind."""
    fails_with(monkeypatch, number)
    liveness = LivenessFile(Settings(state_dir=tmp_path), "intake")
    with capture_logs() as logs:
        liveness.create()
        liveness.beat()
    assert [(one["event"], one["log_level"]) for one in logs] == [("sign_not_written", "warning")] * 2
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_goes_away_while_the_process_runs_is_a_warning(tmp_path):
    """What was a folder at the start and is none now ends nothing."""
    liveness = LivenessFile(Settings(state_dir=tmp_path / "state"), "intake")
    liveness.create()
    (tmp_path / "state" / "intake.json").unlink()
    (tmp_path / "state").rmdir()
    (tmp_path / "state").write_text("", encoding="utf-8")
    with capture_logs() as logs:
        liveness.beat()
        liveness.remove()
        assert liveness.age_s() is None
        assert liveness.details() == {}
    assert [one["event"] for one in logs] == ["sign_not_written"] * 2
