"""What is remembered of the hashes of a bundle's files, and what is not believed."""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from tests.plain_bundle import write_plain_bundle
from wherefrom.attribution.bundles import hash_memory, manifest
from wherefrom.attribution.bundles.hash_memory import HashMemory
from wherefrom.attribution.bundles.manifest import CARD, FileEntry, read_manifest
from wherefrom.errors import BundleCorrupt
from wherefrom.settings import Settings

FILES = {f"x/{number}": bytes([number]) * (1000 + number) for number in range(5)}


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle whose files have not changed for long."""
    write_plain_bundle(tmp_path / "bundle", FILES)
    monkeypatch.setattr(hash_memory, "_SETTLED_NS", 0)
    return tmp_path / "bundle"


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were read through since it was last cleared."""
    read: list[str] = []
    real = manifest.hash_file

    def counted(file: Path) -> FileEntry:
        read.append(file.name)
        return real(file)

    monkeypatch.setattr(manifest, "hash_file", counted)
    return read


@pytest.fixture
def memory(tmp_path: Path) -> HashMemory:
    """An empty memory."""
    return HashMemory(tmp_path / "hashes")


ALL = sorted([*(name.partition("/")[2] for name in FILES), CARD])


def test_a_second_look_reads_nothing(bundle: Path, memory: HashMemory, hashed: list[str]) -> None:
    """Files are hashed once, by this and by later processes of the machine; `afresh` hashes them again."""
    read_manifest(bundle, hashes=memory)
    assert sorted(hashed) == ALL
    hashed.clear()
    read_manifest(bundle, hashes=HashMemory(bundle.with_name("hashes")))
    assert hashed == []
    read_manifest(bundle, hashes=HashMemory(bundle.with_name("hashes"), afresh=True))
    assert sorted(hashed) == ALL
    hashed.clear()
    read_manifest(bundle)
    assert sorted(hashed) == ALL


def test_the_setting_hashes_afresh(tmp_path: Path, bundle: Path, hashed: list[str]) -> None:
    """`verify_bundles` or the caller's wish."""
    settings = Settings(state_dir=tmp_path / "state")
    read_manifest(bundle, hashes=HashMemory.of_machine(settings))
    hashed.clear()
    read_manifest(bundle, hashes=HashMemory.of_machine(settings))
    assert hashed == []
    read_manifest(bundle, hashes=HashMemory.of_machine(settings, afresh=True))
    read_manifest(bundle, hashes=HashMemory.of_machine(settings.model_copy(update={"verify_bundles": True})))
    assert sorted(hashed) == sorted(2 * ALL)


def _rewritten(file: Path) -> None:
    """Other bytes of the same length, with the old time set again, as somebody would who hides it."""
    before = file.stat()
    file.write_bytes(b"!" * before.st_size)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def _replaced(file: Path) -> None:
    before = file.stat()
    other = file.with_name("other")
    other.write_bytes(b"!" * before.st_size)
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(file)


@pytest.mark.parametrize("change", [_rewritten, _replaced])
def test_a_changed_file_is_found(bundle: Path, memory: HashMemory, change: Callable[[Path], None]) -> None:
    """Its length and its time are what they were; the inode's own time, or its number, is not."""
    read_manifest(bundle, hashes=memory)
    change(bundle / "x" / "3")
    with pytest.raises(BundleCorrupt, match="x/3"):
        read_manifest(bundle, hashes=memory)


def test_a_file_that_others_can_write_is_always_hashed(
    bundle: Path, memory: HashMemory, hashed: list[str]
) -> None:
    """Neither remembered nor believed: by its mode now, and by its mode then."""
    (bundle / "x" / "1").chmod(0o664)
    (bundle / "x" / "2").chmod(0o646)
    read_manifest(bundle, hashes=memory)
    hashed.clear()
    read_manifest(bundle, hashes=memory)
    assert sorted(hashed) == ["1", "2"]


@pytest.mark.parametrize(
    "change", [{"st_uid": os.geteuid() + 1}, {"st_mode": 0o100664}, {"st_mode": 0o100646}]
)
def test_a_file_that_became_writable_is_not_believed(
    bundle: Path, memory: HashMemory, change: dict[str, int]
) -> None:
    """Whatever its times say: another owner, or a mode that lets others write."""
    read_manifest(bundle, hashes=memory)
    found = (bundle / CARD).stat()
    fields = {name: getattr(found, name) for name in dir(found) if name.startswith("st_")}
    assert memory.of(bundle).recall(CARD, found) is not None
    assert memory.of(bundle).recall(CARD, cast("os.stat_result", SimpleNamespace(**fields | change))) is None


def test_only_the_owner_and_root_count_as_ours(tmp_path: Path) -> None:
    """A file of a third user is not believed."""
    file = tmp_path / "f"
    file.touch(0o644)
    found = list(file.stat())
    found[stat.ST_UID] = os.geteuid() + 1
    assert hash_memory.is_ours_alone(file.stat())
    assert not hash_memory.is_ours_alone(os.stat_result(found))


def test_a_memory_that_others_can_write_is_not_believed(
    bundle: Path, memory: HashMemory, hashed: list[str], tmp_path: Path
) -> None:
    """Neither the file nor its folder; both are made for the owner alone."""
    read_manifest(bundle, hashes=memory)
    [file] = (tmp_path / "hashes").iterdir()
    assert (stat.S_IMODE(file.stat().st_mode), stat.S_IMODE(file.parent.stat().st_mode)) == (0o600, 0o700)
    for changed, mode in ((file, 0o622), (file.parent, 0o777)):
        before = stat.S_IMODE(changed.stat().st_mode)
        changed.chmod(mode)
        hashed.clear()
        memory_now = HashMemory(tmp_path / "hashes")
        assert memory_now.of(bundle).recall(CARD, (bundle / CARD).stat()) is None
        changed.chmod(before)
    assert HashMemory(tmp_path / "hashes").of(bundle).recall(CARD, (bundle / CARD).stat()) is not None


def test_what_has_just_changed_is_not_remembered(
    bundle: Path, memory: HashMemory, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second change within a tick of the file system's clock would not show."""
    monkeypatch.setattr(hash_memory, "_SETTLED_NS", 10**15)
    read_manifest(bundle, hashes=memory)
    hashed.clear()
    read_manifest(bundle, hashes=memory)
    assert sorted(hashed) == ALL


def test_a_broken_memory_is_no_harm(
    bundle: Path, memory: HashMemory, hashed: list[str], tmp_path: Path
) -> None:
    """Nonsense in it, or a place where it cannot be written: files are hashed."""
    read_manifest(bundle, hashes=memory)
    [file] = (tmp_path / "hashes").iterdir()
    file.write_text("{nonsense")
    hashed.clear()
    read_manifest(bundle, hashes=memory)
    assert sorted(hashed) == ALL
    (tmp_path / "file").touch()
    read_manifest(bundle, hashes=HashMemory(tmp_path / "file" / "hashes"))


def test_the_memory_of_bundles_that_are_gone_goes(bundle: Path, memory: HashMemory, tmp_path: Path) -> None:
    """When another bundle's is first written."""
    read_manifest(bundle, hashes=memory)
    bundle.rename(tmp_path / "moved")
    read_manifest(tmp_path / "moved", hashes=memory)
    assert len(list((tmp_path / "hashes").iterdir())) == 1
