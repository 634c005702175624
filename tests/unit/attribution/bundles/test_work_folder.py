"""One process at a time works in a folder, whatever becomes of the others."""

import fcntl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.tiny import build, shared_corpus, shared_micro_model
from wherefrom.attribution.bundles.work_folder import slot_folder, sole_use
from wherefrom.errors import ConfigurationError

#: Takes the folder, says so, and waits for the end of its input.
_HOLDER = (
    "import sys; from pathlib import Path; from wherefrom.attribution.bundles.work_folder import sole_use\n"
    "with sole_use(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
)


@contextmanager
def another_process(program: str, folder: Path) -> Iterator[None]:
    """A process that says that it holds the folder; killed at the end of the block."""
    with subprocess.Popen(
        [sys.executable, "-c", program, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        yield
        holder.kill()


def test_a_second_process_is_refused_until_the_first_one_is_gone(tmp_path: Path) -> None:
    """Killed ones too: their lock is the system's, and the file that they leave is taken over and removed."""
    work = tmp_path / "bundle.building"
    with another_process(_HOLDER, work):
        refused = pytest.raises(ConfigurationError, match=r"another process works in .*bundle\.building")
        with refused, sole_use(work):
            pass
    assert [one.name for one in tmp_path.iterdir()] == ["bundle.building.lock"]
    with sole_use(work):
        work.mkdir()
    assert [one.name for one in tmp_path.iterdir()] == ["bundle.building"]


def test_a_lock_that_its_holder_removed_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file goes between our opening and our locking it: a lock on it would keep nobody out."""
    locked = fcntl.flock
    lock = tmp_path / "work.lock"
    removed: list[bool] = []

    def late(file: object, how: int) -> None:
        if not removed:
            lock.unlink()
            removed.append(True)
        locked(file, how)  # type: ignore[arg-type]  # an open file

    monkeypatch.setattr(fcntl, "flock", late)
    with sole_use(tmp_path / "work"):
        assert removed
        assert lock.exists()
        with pytest.raises(ConfigurationError), sole_use(tmp_path / "work"):
            pass
    assert not lock.exists()


def test_folders_that_stay_empty_go(tmp_path: Path) -> None:
    """As a build that comes to nothing leaves nothing."""
    with sole_use(tmp_path / "a" / "b" / "work"):
        assert (tmp_path / "a" / "b").is_dir()
    assert not list(tmp_path.iterdir())


def test_two_builds_do_not_share_a_folder(tmp_path: Path) -> None:
    """The second one is refused and leaves what the first one made."""
    kept = tmp_path / "bundle.building" / "rendered" / "rows"
    with sole_use(tmp_path / "bundle.building"):
        kept.mkdir(parents=True)
        with pytest.raises(ConfigurationError, match="another process works in"):
            build(shared_micro_model(), shared_corpus(8), tmp_path / "bundle")
    assert kept.is_dir()


#: Takes a slot, writes into it, says so, and waits for the end of its input.
_IN_SLOT = (
    "import sys; from pathlib import Path; from wherefrom.attribution.bundles.work_folder import slot_folder\n"
    "with slot_folder(Path(sys.argv[1])) as slot: (slot / 'rows').touch(); print('held', flush=True); sys.stdin.read()"
)


def test_what_a_killed_process_left_in_its_slot_goes(tmp_path: Path) -> None:
    """Who comes beside it takes the next number; who comes after it takes its place, empty."""
    base = tmp_path / "slots"
    with another_process(_IN_SLOT, base), slot_folder(base) as beside:
        assert beside == base / "2"
    assert (base / "1" / "rows").exists()
    with slot_folder(base) as after:
        assert after == base / "1"
        assert not list(after.iterdir())
    assert not list(base.iterdir())
    assert base.stat().st_mode & 0o777 == 0o700


def test_an_error_in_a_slot_is_its_own(tmp_path: Path) -> None:
    """It is not taken for a place that somebody holds, and leaves nothing."""
    with pytest.raises(ConfigurationError, match="mine"), slot_folder(tmp_path):
        raise ConfigurationError("mine")
    assert not list(tmp_path.iterdir())


def test_a_folder_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder for temporary files, anybody may have made it before us."""
    monkeypatch.setattr("os.getuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(ConfigurationError, match="belongs to another user"), slot_folder(tmp_path):
        pass
