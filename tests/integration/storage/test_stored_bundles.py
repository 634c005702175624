"""Bundles in object storage: pushed, fetched into a bounded cache, deleted; and what happens when store, disk or file fail."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.plain_bundle import seal_plain_bundle, write_plain_bundle
from tests.services.object_storage import BreakingLink, ObjectStorage
from tests.waiting import wait_until
from wherefrom.attribution.bundles.cache import BundleCache
from wherefrom.attribution.bundles.card_file import replace_card
from wherefrom.attribution.bundles.manifest import CARD, MANIFEST, SIGNATURE, read_card, read_manifest
from wherefrom.attribution.bundles.signing import make_keys, sign_bundle
from wherefrom.attribution.bundles.stored import (
    BundlePlace,
    bytes_of,
    delete_bundle,
    fetch_bundle,
    push_bundle,
    stored_bundles,
)
from wherefrom.errors import (
    BundleCorrupt,
    BundleUnsigned,
    CacheFull,
    ConfigurationError,
    DiskFull,
    StorageUnavailable,
    UnknownBundle,
)
from wherefrom.storage import Store, open_store

FILES = {"features/a.npy": b"a" * 3000, "index/b.hnsw": b"b" * 2000, "corpus/examples.jsonl": b"c" * 1000}
LIMIT = 10_000_000


@pytest.fixture
def store(bucket: str) -> Store:
    """An empty store."""
    return open_store(f"s3://{bucket}/bundles")


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """An intact bundle in a folder."""
    write_plain_bundle(tmp_path / "made", FILES)
    return tmp_path / "made"


@pytest.fixture
def cache(store: Store, tmp_path: Path) -> BundleCache:
    """An empty cache over the store."""
    return BundleCache(tmp_path / "cache", store, limit_bytes=LIMIT)


def pushed(store: Store, folder: Path, contents: Mapping[str, bytes] = FILES) -> str:
    """A bundle with these files in the store; its name."""
    write_plain_bundle(folder, contents)
    return push_bundle(folder, store).name


def held(folder: Path) -> list[str]:
    """What lies in a folder but lock files, hidden things too."""
    return sorted(one.name for one in folder.iterdir() if one.name != ".locks")


def files_of(bundle: Path) -> dict[str, bytes]:
    """Every file of a bundle."""
    return {
        str(one.relative_to(bundle)): one.read_bytes() for one in sorted(bundle.rglob("*")) if one.is_file()
    }


def test_a_bundle_comes_back_byte_for_byte(
    store: Store, cache: BundleCache, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pushed, listed, fetched when it is first asked for; after that the store is not asked."""
    name = push_bundle(made, store).name
    assert stored_bundles(store) == [name]
    with cache.hold(name) as folder:
        assert files_of(folder) == files_of(made)

    def gone(*_: object) -> None:
        raise AssertionError("the store was asked")

    for method in ("fetch", "names", "size"):
        monkeypatch.setattr(store, method, gone)
    with cache.hold(name) as again:
        assert again == folder


def test_a_push_ends_with_the_manifest_and_goes_on(
    store: Store, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who finds a manifest finds the rest; a push that was cut off uploads what is missing; a further one nothing."""
    put: list[str] = []
    real = store.put

    def counted(path: Path, name: str) -> None:
        if len(put) == 2:
            put.append("-")
            raise StorageUnavailable("gone")
        put.append(name.partition("/")[2])
        real(path, name)

    monkeypatch.setattr(store, "put", counted)
    with pytest.raises(StorageUnavailable):
        push_bundle(made, store)
    assert stored_bundles(store) == []
    push_bundle(made, store)
    assert put[:3] == [*sorted(FILES)[:2], "-"]
    assert put[3:] == [sorted(FILES)[2], CARD, MANIFEST]
    push_bundle(made, store)
    assert len(put) == 6
    push_bundle(made, store, again=True)
    assert put[6:] == [*sorted(FILES), CARD, MANIFEST]


def test_a_card_that_was_measured_since_is_taken_over(store: Store, cache: BundleCache, made: Path) -> None:
    """The store gets it by another push, a machine that has the bundle by `refresh`; nothing else is copied."""
    name = push_bundle(made, store).name
    cache.hold(name).release()
    home = cache.hold(name).path
    inode = (home / "features/a.npy").stat().st_ino
    replace_card(made, {"quality": {"measures": 1}})
    push_bundle(made, store)
    cache.refresh(name)
    assert read_card(home)["quality"] == {"measures": 1}
    assert read_manifest(home).name == name
    assert (home / "features/a.npy").stat().st_ino == inode


def test_an_unknown_bundle_is_told(cache: BundleCache) -> None:
    """A name that the store lacks, and names that could lead out of the folder."""
    for name in ("b-missing", "../b", ".locks", ""):
        with pytest.raises(UnknownBundle):
            cache.hold(name)


def test_a_changed_file_is_refused_and_not_kept(
    store: Store, cache: BundleCache, made: Path, tmp_path: Path
) -> None:
    """Other bytes, other lengths and missing files; with the right file back, the fetch goes on."""
    name = push_bundle(made, store).name
    for content, said in (
        (b"x" * 3000, "has changed"),
        (b"x" * 999_999, "999999 bytes"),
        (None, "is missing"),
    ):
        if content is None:
            store.delete(f"{name}/features/a.npy")
        else:
            (tmp_path / "changed").write_bytes(content)
            store.put(tmp_path / "changed", f"{name}/features/a.npy")
        with pytest.raises(BundleCorrupt, match=f"features/a.npy .*{said}|features/a.npy {said}"):
            cache.hold(name)
        assert not cache.has(name)
        assert not list((tmp_path / "cache").rglob("a.npy"))
    push_bundle(made, store, again=True)
    with cache.hold(name) as folder:
        assert files_of(folder) == files_of(made)


def test_a_manifest_cannot_lead_out_of_the_cache(store: Store, cache: BundleCache, tmp_path: Path) -> None:
    """A manifest that is right in itself and names `../x` is refused before anything is fetched; so is one of another bundle."""
    write_plain_bundle(tmp_path / "made", FILES)
    manifest = seal_plain_bundle(tmp_path / "made", {"features/a.npy": "../../escaped"})
    store.put(tmp_path / "made" / MANIFEST, f"{manifest.name}/{MANIFEST}")
    store.put(tmp_path / "made" / MANIFEST, f"b-other/{MANIFEST}")
    with pytest.raises(BundleCorrupt, match="names a file"):
        cache.hold(manifest.name)
    with pytest.raises(BundleCorrupt, match="that of bundle"):
        cache.hold("b-other")
    assert not list(tmp_path.rglob("escaped"))


def test_a_signature_is_asked_for_before_anything_else(store: Store, made: Path, tmp_path: Path) -> None:
    """Without the right one, nothing is parsed and no other file is fetched. A bundle that is signed later is taken, also where it was fetched unsigned."""
    make_keys(tmp_path / "team.key", tmp_path / "team.pub")
    place = push_bundle(made, store)
    strict = BundleCache(tmp_path / "strict", store, limit_bytes=LIMIT, keys=[tmp_path / "team.pub"])
    with pytest.raises(BundleUnsigned):
        strict.hold(place.name)
    assert [
        one.name for one in (tmp_path / "strict").rglob("*") if one.is_file() and one.parent.name != ".locks"
    ] == [MANIFEST]
    (tmp_path / "hostile").write_text("{hostile")
    store.put(tmp_path / "hostile", place.file(MANIFEST))
    with pytest.raises(BundleUnsigned):
        strict.hold(place.name)
    push_bundle(made, store, again=True)
    loose = BundleCache(tmp_path / "strict", store, limit_bytes=LIMIT)
    loose.hold(place.name).release()
    sign_bundle(made, tmp_path / "team.key")
    push_bundle(made, store)
    with strict.hold(place.name) as folder:
        assert (folder / SIGNATURE).read_bytes() == (made / SIGNATURE).read_bytes()


def test_a_store_that_goes_away_leaves_no_half_a_bundle(
    bucket: str, object_storage: ObjectStorage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The bundle is not there; with the store back, what was fetched before is not fetched again."""
    contents = {"a": os.urandom(200_000), "b": os.urandom(5_000_000)}
    name = pushed(open_store(f"s3://{bucket}"), tmp_path / "made", contents)
    folder = tmp_path / "cache"
    with (
        BreakingLink(object_storage.port, breaks_after_bytes=2_000_000) as link,
        monkeypatch.context() as patch,
    ):
        patch.setenv("AWS_ENDPOINT_URL", link.url)
        with pytest.raises(StorageUnavailable):
            BundleCache(folder, open_store(f"s3://{bucket}"), limit_bytes=LIMIT).hold(name)
    assert held(folder) == [f".fetching.{name}"]
    [first] = folder.rglob("a")
    inode = first.stat().st_ino
    with BundleCache(folder, open_store(f"s3://{bucket}"), limit_bytes=LIMIT).hold(name) as home:
        assert files_of(home) == files_of(tmp_path / "made")
        assert (home / "a").stat().st_ino == inode
    assert held(folder) == [name]


def test_a_killed_fetch_is_gone_on_with(bucket: str, object_storage: ObjectStorage, tmp_path: Path) -> None:
    """A process that is killed in the middle of a file leaves nothing that counts as a bundle, and no lock."""
    contents = {"a": os.urandom(200_000), "b": os.urandom(5_000_000)}
    name = pushed(open_store(f"s3://{bucket}"), tmp_path / "made", contents)
    folder = tmp_path / "cache"
    program = (
        "from pathlib import Path\nfrom wherefrom.attribution.bundles.cache import BundleCache\nfrom wherefrom.storage import open_store\n"
        f"BundleCache(Path({str(folder)!r}), open_store('s3://{bucket}'), limit_bytes={LIMIT}).hold({name!r})"
    )
    with BreakingLink(object_storage.port, breaks_after_bytes=2_000_000, stays=True) as link:
        environment = os.environ | {"AWS_ENDPOINT_URL": link.url}
        with subprocess.Popen([sys.executable, "-c", program], env=environment) as process:
            half = folder / f".fetching.{name}"
            wait_until(lambda: process.poll() is not None or list(half.glob(".b.*.part")), 30, "a fetch of b")
            assert process.poll() is None
            process.send_signal(signal.SIGKILL)
    assert held(folder) == [half.name]
    inode = (half / "a").stat().st_ino
    with BundleCache(folder, open_store(f"s3://{bucket}"), limit_bytes=LIMIT).hold(name) as home:
        assert files_of(home) == files_of(tmp_path / "made")
        assert (home / "a").stat().st_ino == inode


def test_a_full_disk_gives_the_room_back(
    store: Store, cache: BundleCache, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told as a full disk, and what was fetched goes; later the fetch works."""
    name = push_bundle(made, store).name
    real = store.fetch

    def full(wanted: str, to: Path) -> None:
        if wanted.endswith("b.hnsw"):
            raise DiskFull(f"the disk is full while writing {to}") from OSError(errno.ENOSPC, "")
        real(wanted, to)

    with monkeypatch.context() as patch:
        patch.setattr(store, "fetch", full)
        with pytest.raises(DiskFull):
            cache.hold(name)
    assert held(cache._folder) == []
    cache.hold(name).release()


def test_a_copy_that_was_damaged_is_mended(store: Store, cache: BundleCache, made: Path) -> None:
    """A file of the cache that changed is fetched again, the others are not."""
    name = push_bundle(made, store).name
    cache.hold(name).release()
    home = cache.hold(name).path
    inode = (home / "features/a.npy").stat().st_ino
    (home / "index/b.hnsw").write_bytes(b"B" * 2000)
    with cache.hold(name) as folder:
        assert files_of(folder) == files_of(made)
        assert (folder / "features/a.npy").stat().st_ino == inode


def test_the_cache_keeps_to_its_bound(store: Store, tmp_path: Path) -> None:
    """The bundle that was used longest ago goes, never one that somebody has open; one that cannot fit says so."""
    names = [pushed(store, tmp_path / f"m{n}", {"x": bytes([n]) * 1_000_000}) for n in range(4)]
    size = bytes_of(read_manifest(tmp_path / "m0"))
    folder = tmp_path / "cache"
    cache = BundleCache(folder, store, limit_bytes=2 * size + 50_000)
    cache.hold(names[0]).release()
    cache.hold(names[1]).release()
    os.utime(folder / ".locks" / names[1], (1, 1))
    cache.hold(names[2]).release()
    assert held(folder) == sorted([names[0], names[2]])
    first, third = cache.hold(names[0]), cache.hold(names[2])
    with pytest.raises(CacheFull, match="BUNDLE_CACHE_BYTES"):
        cache.hold(names[3])
    assert held(folder) == sorted([f".fetching.{names[3]}", names[0], names[2]])
    third.release()
    with BundleCache(folder, store, limit_bytes=2 * size + 50_000).hold(names[3]):
        assert held(folder) == sorted([names[0], names[3]])
    first.release()
    with pytest.raises(ConfigurationError, match="BUNDLE_CACHE_BYTES"):
        BundleCache(folder, store, limit_bytes=1_000_000).hold(names[1])
    assert [one.name for one in cache.bundles()] == [names[0], names[3]]


def test_what_a_killed_fetch_left_makes_room(store: Store, tmp_path: Path) -> None:
    """A half of a bundle that nobody fetches counts for nothing and goes when room is needed."""
    names = [pushed(store, tmp_path / f"m{n}", {"x": bytes([n]) * 1_000_000}) for n in range(2)]
    cache = BundleCache(tmp_path / "cache", store, limit_bytes=1_100_000)
    half = tmp_path / "cache" / f".fetching.{names[0]}"
    half.mkdir(parents=True)
    (half / "x").write_bytes(b"x" * 1_000_000)
    (half / MANIFEST).write_bytes((tmp_path / "m0" / MANIFEST).read_bytes())
    cache.hold(names[1]).release()
    assert held(tmp_path / "cache") == [names[1]]


def test_two_that_fetch_the_same_bundle_are_harmless(
    store: Store, made: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Both get it, and it is fetched once."""
    name = push_bundle(made, store).name
    fetched: list[str] = []
    real = store.fetch

    def counted(wanted: str, to: Path) -> None:
        fetched.append(wanted)
        real(wanted, to)

    monkeypatch.setattr(store, "fetch", counted)
    found: list[dict[str, bytes]] = []

    def hold() -> None:
        with BundleCache(tmp_path / "cache", store, limit_bytes=LIMIT).hold(name) as folder:
            found.append(files_of(folder))

    threads = [threading.Thread(target=hold) for _ in range(3)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert found == [files_of(made)] * 3
    assert sum(one.endswith("a.npy") for one in fetched) == 1


def test_a_deleted_bundle_leaves_nothing(
    store: Store, cache: BundleCache, made: Path, tmp_path: Path
) -> None:
    """Neither in the store nor in the cache, also while somebody has it open."""
    place = push_bundle(made, store)
    kept = pushed(store, tmp_path / "other", {"x": b"y"})
    open_copy = cache.hold(place.name)
    assert delete_bundle(place)
    assert not delete_bundle(place)
    assert cache.drop(place.name)
    assert not cache.drop(place.name)
    open_copy.release()
    assert store.names(f"{place.name}/") == []
    assert stored_bundles(store) == [kept]
    with pytest.raises(UnknownBundle):
        cache.hold(place.name)
    assert not list((tmp_path / "cache").rglob("*.npy"))


def test_a_cache_that_cannot_be_written_is_a_setting_to_mend(store: Store, tmp_path: Path) -> None:
    """The error names the setting."""
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="WHEREFROM_BUNDLE_CACHE_DIR"):
        BundleCache(tmp_path / "file" / "cache", store, limit_bytes=LIMIT).hold("b-1")


@pytest.mark.parametrize("url", ["s3://bucket", "s3://bucket/", "s3://bucket/x/.."])
def test_a_url_that_names_no_bundle_is_refused(url: str) -> None:
    """The error shows the form."""
    with pytest.raises(ConfigurationError, match="s3://BUCKET/bundles/b-"):
        BundlePlace.of_url(url)


def test_a_card_that_is_replaced_meanwhile_is_fetched_anew(
    store: Store, made: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Manifest and card of one push, not of two."""
    place = push_bundle(made, store)
    real, replaced = store.fetch, list[bool]()

    def late(wanted: str, to: Path) -> None:
        real(wanted, to)
        if wanted == place.file(MANIFEST) and not replaced:
            replaced.append(True)
            replace_card(made, {"quality": {"measures": 2}})
            push_bundle(made, store)

    monkeypatch.setattr(store, "fetch", late)
    fetch_bundle(place, tmp_path / "out")
    assert files_of(tmp_path / "out") == files_of(made)
    assert json.loads((tmp_path / "out" / CARD).read_bytes())["quality"] == {"measures": 2}


def test_a_bundle_that_changes_all_the_time_is_given_up(
    store: Store, made: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its card is replaced behind every look at its manifest: the error says so, not that a file is damaged."""
    place = push_bundle(made, store)
    real, changes = store.fetch, iter(range(2, 100))

    def late(wanted: str, to: Path) -> None:
        real(wanted, to)
        if wanted == place.file(MANIFEST):
            replace_card(made, {"quality": {"measures": next(changes)}})
            for name in (CARD, MANIFEST):
                store.put(made / name, place.file(name))

    monkeypatch.setattr(store, "fetch", late)
    with pytest.raises(BundleCorrupt, match="changes while it is fetched"):
        fetch_bundle(place, tmp_path / "out")
    assert next(changes) < 20
