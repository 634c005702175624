"""Files and folders appear whole or not at all, with the mode that was asked for."""

import errno
import json
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from wherefrom import atomic
from wherefrom.atomic import (
    PRIVATE,
    PUBLIC,
    atomic_file,
    atomic_folder,
    disk_errors,
    move_folder,
    tells_full_disk,
)
from wherefrom.errors import DiskFull

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fail(error: Exception) -> Callable[..., Any]:
    """A function that raises."""

    def raise_it(*arguments: Any, **options: Any) -> Any:
        raise error

    return raise_it


def mode(path: Path) -> int:
    """Permission bits."""
    return stat.S_IMODE(path.stat().st_mode)


def names(folder: Path) -> list[str]:
    """What lies in a folder, hidden files too."""
    return sorted(one.name for one in folder.iterdir())


@pytest.fixture(params=[0o022, 0o077, 0o000])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    """The umask of the user who writes."""
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.mark.parametrize("wanted", [PUBLIC, PRIVATE])
def test_the_mode_is_the_one_that_was_asked_for(tmp_path: Path, umask: int, wanted: int) -> None:
    """Whatever the umask and the mode of the file before; nobody else may read it while it is written."""
    path = tmp_path / "a.json"
    path.write_text("old")
    path.chmod(0o640)
    with atomic_file(path, mode=wanted) as unfinished:
        assert mode(unfinished) == PRIVATE
        unfinished.write_text("new")
    assert (path.read_text(), mode(path), names(tmp_path)) == ("new", wanted, ["a.json"])


def test_readers_see_the_old_file_until_the_end(tmp_path: Path) -> None:
    """The new content takes the path in one step."""
    path = tmp_path / "a"
    atomic.write_text(path, "ä")
    with atomic_file(path) as unfinished:
        unfinished.write_text("half")
        assert path.read_bytes() == "ä".encode()
    assert path.read_text() == "half"
    atomic.write_json(path, {"a": [1]})
    assert json.loads(path.read_text()) == {"a": [1]}


def test_content_and_name_are_handed_to_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file before it gets its name, the folder after."""
    synced: list[str] = []
    monkeypatch.setattr(atomic, "_sync", lambda path: synced.append(f"{path.name} {names(tmp_path)}"))
    atomic.write_bytes(tmp_path / "a", b"1")
    unfinished, folder = synced
    assert unfinished.startswith(".a.")
    assert folder == f"{tmp_path.name} ['a']"
    synced.clear()
    with atomic_file(tmp_path / "b", durable=False):
        pass
    assert synced == []


def break_off(path: Path, error: BaseException) -> None:
    """Write a half, then fail."""
    with atomic_file(path) as unfinished:
        unfinished.write_text("half")
        raise error


#: The places where a disk turns out to be full, and how the system or a library says so.
FAILING = {
    "making it": ("os.open", FULL),
    "the text": ("Path.write_bytes", FULL),
    "the quota": ("Path.write_bytes", OSError(errno.EDQUOT, "quota")),
    "numpy": ("Path.write_bytes", OSError("4715 requested and 3040 written")),
    "safetensors": ("Path.write_bytes", RuntimeError("I/O error: No space left on device (os error 28)")),
    "the disk": ("os.fsync", FULL),
    "the name": ("Path.replace", FULL),
}


@pytest.mark.parametrize("place", FAILING)
def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """The old file is there, no part of the new one is, and the error names the path."""
    path = tmp_path / "a"
    path.write_text("old")
    name, error = FAILING[place]
    with monkeypatch.context() as patch:
        patch.setattr(f"wherefrom.atomic.{name}", fail(error))
        with pytest.raises(DiskFull, match=rf"the disk is full while writing {path}; free some space"):
            atomic.write_bytes(path, b"new")
    assert (path.read_text(), names(tmp_path)) == ("old", ["a"])


def test_any_other_failure_leaves_nothing_either(tmp_path: Path) -> None:
    """The caller's own error passes as it is, and so does a folder that is not there."""
    for error in (ValueError("mine"), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            break_off(tmp_path / "a", error)
    with pytest.raises(FileNotFoundError):
        atomic.write_bytes(tmp_path / "none" / "a", b"")
    assert names(tmp_path) == []


def test_a_folder_appears_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing under the name before the end; nothing at all after a full disk; a folder that is there is not replaced."""
    home = tmp_path / "home"
    with atomic_folder(home) as unfinished:
        (unfinished / "part").mkdir()
        (unfinished / "part" / "a").write_text("1")
        assert not home.exists()
    assert (home / "part" / "a").read_text() == "1"
    with pytest.raises(OSError, match="not empty"), atomic_folder(home):
        pass
    for name in ("os.fsync", "Path.rename"):
        with monkeypatch.context() as patch:
            patch.setattr(f"wherefrom.atomic.{name}", fail(FULL))
            with pytest.raises(DiskFull, match="other"), atomic_folder(tmp_path / "other") as unfinished:
                (unfinished / "a").write_text("1")
    assert names(tmp_path) == ["home"]


def test_move_folder_hands_every_file_to_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files and folders, then the name."""
    (tmp_path / "new" / "inner").mkdir(parents=True)
    (tmp_path / "new" / "inner" / "a").write_text("1")
    synced: list[str] = []
    monkeypatch.setattr(atomic, "_sync", lambda path: synced.append(path.name))
    move_folder(tmp_path / "new", tmp_path / "home")
    assert sorted(synced[:-1]) == ["a", "inner", "new"]
    assert synced[-1] == tmp_path.name


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    """Only what belongs to this path and has not been written to for long."""
    old, young, other = (tmp_path / f".{name}.part" for name in ("a.12345678", "a.12345679", "ab.12345678"))
    for one in (old, young, other):
        one.write_text("half")
        os.utime(one, (0, 0))
    os.utime(young)
    atomic.write_bytes(tmp_path / "a", b"1")
    assert names(tmp_path) == sorted(["a", young.name, other.name])


def test_a_full_disk_below_is_told_for_the_whole_work(tmp_path: Path) -> None:
    """The innermost file is of no interest to who builds a bundle; other errors stay."""
    with (
        pytest.raises(DiskFull, match="full while building out;"),
        disk_errors(Path("out"), doing="building"),
    ):
        raise DiskFull("a shard")
    with pytest.raises(OSError, match="read-only"), disk_errors(tmp_path):
        raise OSError(errno.EROFS, "read-only")
    assert not tells_full_disk(RuntimeError("os error 281)"))
