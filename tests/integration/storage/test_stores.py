"""What every store does, in a folder and in object storage; and what object storage does when it cannot."""

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.services.object_storage import BreakingLink, ObjectStorage
from wherefrom.errors import DiskFull, NotStored, StorageRefused, StorageUnavailable
from wherefrom.storage import Store, open_store
from wherefrom.storage.objects import PROVIDERS, ObjectStore

LARGE = 8_000_000


@pytest.fixture(params=["folder", "objects"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of each kind."""
    if request.param == "folder":
        return open_store(str(tmp_path / "store"))
    return open_store(f"s3://{request.getfixturevalue('bucket')}/some/place")


def written(file: Path, content: bytes) -> Path:
    """A file with this content."""
    file.write_bytes(content)
    return file


def test_files_go_in_and_come_out(store: Store, tmp_path: Path) -> None:
    """What was put is listed, is fetched byte for byte, is replaced, and is gone when deleted."""
    assert store.names() == []
    file = written(tmp_path / "a", b"first")
    for name in ("b-1/manifest.json", "b-1/index/x", "b-10/manifest.json"):
        assert not store.exists(name)
        store.put(file, name)
        assert store.exists(name)
    assert store.names() == ["b-1/index/x", "b-1/manifest.json", "b-10/manifest.json"]
    assert store.names("b-1/") == ["b-1/index/x", "b-1/manifest.json"]
    assert store.names("b-10") == ["b-10/manifest.json"]
    assert store.names("none/at/all") == []
    assert not store.exists("b-1")
    store.put(written(file, b"second"), "b-1/index/x")
    store.fetch("b-1/index/x", tmp_path / "new" / "folder" / "x")
    assert (tmp_path / "new" / "folder" / "x").read_bytes() == b"second"
    store.delete("b-1/index/x")
    store.delete("b-1/index/x")
    assert not store.exists("b-1/index/x")


def test_what_is_not_there_is_told_and_leaves_nothing(store: Store, tmp_path: Path) -> None:
    """A fetch of a missing file, or of what is no file, keeps what was at the target."""
    store.put(written(tmp_path / "a", b"x"), "folder/file")
    kept = written(tmp_path / "to", b"before")
    for name in ("missing", "folder", "folder/file/below"):
        with pytest.raises(NotStored, match=name):
            store.fetch(name, kept)
    assert kept.read_bytes() == b"before"
    assert sorted(one.name for one in tmp_path.glob("*") if one.is_file()) == ["a", "to"]


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a//b", "a/../b", "", ".", "a\\b", "a\nb"])
def test_a_name_cannot_leave_the_store(store: Store, name: str, tmp_path: Path) -> None:
    """Names may come from strangers: none leads out."""
    file = written(tmp_path / "a", b"x")
    calls: list[Callable[[], object]] = [
        lambda: store.exists(name),
        lambda: store.fetch(name, tmp_path / "to"),
        lambda: store.put(file, name),
        lambda: store.delete(name),
    ]
    for call in calls:
        with pytest.raises(StorageRefused, match="no name"):
            call()


def test_readers_never_see_half_a_file(store: Store, tmp_path: Path) -> None:
    """While a file is replaced over and over, each fetch gets one content or the other, whole."""
    first, second = b"1" * 300_000, b"2" * 400_000
    files = written(tmp_path / "1", first), written(tmp_path / "2", second)
    store.put(files[0], "x")
    stop = threading.Event()

    def replace() -> None:
        while not stop.is_set():
            for file in files:
                store.put(file, "x")

    writer = threading.Thread(target=replace)
    writer.start()
    try:
        for _ in range(10):
            store.fetch("x", tmp_path / "to")
            assert (tmp_path / "to").read_bytes() in {first, second}
    finally:
        stop.set()
        writer.join()
    assert store.names() == ["x"]


def test_a_large_object_comes_in_parts(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A download of several parts at once gives the same bytes."""
    store = ObjectStore(f"s3://{bucket}", PROVIDERS["s3"])
    monkeypatch.setattr(store._system, "default_block_size", 1 << 20)
    content = os.urandom(5 << 20)
    store.put(written(tmp_path / "a", content), "large")
    store.fetch("large", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == content


def _calls(store: Store, file: Path) -> list[Callable[[], object]]:
    return [
        store.names,
        lambda: store.exists("x"),
        lambda: store.fetch("x", file.with_name("to")),
        lambda: store.put(file, "x"),
        lambda: store.delete("x"),
    ]


def test_a_missing_bucket_is_told(object_storage: ObjectStorage, tmp_path: Path) -> None:
    """Every call says that the bucket is missing; none says that it is the file."""
    for call in _calls(open_store("s3://no-such-bucket/x"), written(tmp_path / "a", b"x")):
        with pytest.raises(StorageRefused, match="no such bucket"):
            call()


def test_wrong_credentials_are_refused(bucket: str, object_storage: ObjectStorage, tmp_path: Path) -> None:
    """Every call is refused for good, and the secret is not told."""
    store = open_store(f"s3://{bucket}")
    object_storage.refuse_strangers(True)
    try:
        for call in _calls(store, written(tmp_path / "a", b"x")):
            with pytest.raises(StorageRefused, match="AWS_ACCESS_KEY_ID") as told:
                call()
            assert os.environ["AWS_SECRET_ACCESS_KEY"] not in str(told.value)
    finally:
        object_storage.refuse_strangers(False)
    assert not (tmp_path / "to").exists()


def test_missing_credentials_are_refused(
    bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An environment without credentials is told so."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(StorageRefused, match="credentials"):
        open_store(f"s3://{bucket}").names()


def test_a_store_that_goes_away_is_unavailable(
    bucket: str, object_storage: ObjectStorage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A link that breaks in the middle of a fetch leaves the target as it was; later calls may be tried again."""
    open_store(f"s3://{bucket}").put(written(tmp_path / "a", os.urandom(LARGE)), "x")
    kept = written(tmp_path / "to", b"before")
    with BreakingLink(object_storage.port, breaks_after_bytes=LARGE // 2) as link:
        monkeypatch.setenv("AWS_ENDPOINT_URL", link.url)
        store = open_store(f"s3://{bucket}")
        with pytest.raises(StorageUnavailable, match="does not answer"):
            store.fetch("x", kept)
        for call in _calls(store, tmp_path / "a"):
            with pytest.raises(StorageUnavailable):
                call()
    assert kept.read_bytes() == b"before"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a", "to"]


def test_a_full_disk_is_no_error_of_the_store(
    bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It keeps its own code, and what was at the target stays."""
    store = ObjectStore(f"s3://{bucket}", PROVIDERS["s3"])
    store.put(written(tmp_path / "a", b"x"), "x")
    kept = written(tmp_path / "to", b"before")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(store._system, "get_file", full)
    with pytest.raises(DiskFull, match="disk is full"):
        store.fetch("x", kept)
    assert kept.read_bytes() == b"before"
