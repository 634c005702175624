"""The bundles of a store that are on this machine: fetched when they are first asked for, at most so many bytes of them, the one that was used longest ago goes first.

A bundle's folder is there whole or not at all. Each bundle has two lock files: whoever has it open holds the one together with others, and whoever removes it to make room holds
that alone; one process alone fetches, under the other. The system lets go of the locks of a process that dies. A fetch works in a hidden folder beside the bundles; one that
was killed is gone on with.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from wherefrom.atomic import disk_errors, move_folder
from wherefrom.attribution.bundles.hash_memory import HashMemory
from wherefrom.attribution.bundles.manifest import CARD, MANIFEST, SIGNATURE, Manifest, read_manifest
from wherefrom.attribution.bundles.model_location import is_plain_name
from wherefrom.attribution.bundles.signing import check_signature
from wherefrom.attribution.bundles.stored import (
    BundlePlace,
    bytes_of,
    fetch_bundle,
    fetch_file,
    fetch_manifest,
)
from wherefrom.errors import (
    BundleCorrupt,
    BundleUnsigned,
    CacheFull,
    ConfigurationError,
    DiskFull,
    UnknownBundle,
)
from wherefrom.logs import get_logger
from wherefrom.storage import Store

log = get_logger(__name__)

_LOCKS, _FETCHING, _GOING, _STATED = ".locks", ".fetching.", ".going.", ".stated."
#: Lock files: of a bundle that is fetched, after its name; of whoever counts and makes room.
_FETCH, _ROOM = ".fetch", ".room"


class HeldBundle:
    """A bundle's folder, which stays as long as it is held; also as a context."""

    def __init__(self, path: Path, lock: int | None = None) -> None:
        """Take over a lock.

        Args:
            path: the folder.
            lock: descriptor of the lock file, which is closed at the end; None where nothing removes folders.
        """
        self.path = path
        self._lock = lock

    def release(self) -> None:
        """Let go; once more is no error."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Path:
        return self.path

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


@dataclass(frozen=True)
class CachedBundle:
    """A bundle that is on this machine."""

    name: str
    size_bytes: int
    #: When it was last asked for, seconds since 1970.
    used_at: float


class BundleCache:
    """Bundles of one store in one folder; several processes may share the folder."""

    def __init__(
        self, folder: Path, store: Store, *, limit_bytes: int | None, keys: Sequence[Path] = ()
    ) -> None:
        """Name the places; nothing is asked of the store yet.

        Args:
            folder: where bundles are kept.
            store: where they come from.
            limit_bytes: most bytes of the folder; None where it holds what must stay.
            keys: public keys, one of which must have signed a bundle.
        """
        self._folder = folder
        self._store = store
        self._limit_bytes = limit_bytes
        self._keys = keys

    def manifest(self, name: str, folder: Path) -> Manifest:
        """What the store says of a bundle, without fetching it; manifest and signature are put into a folder.

        Raises:
            UnknownBundle, BundleUnsigned, BundleCorrupt: see `fetch_manifest`.
        """
        return fetch_manifest(self._place(name), folder, keys=self._keys)

    def has(self, name: str) -> bool:
        """Whether a bundle is on this machine."""
        return is_plain_name(name) and (self._folder / name).is_dir()

    def hold(self, name: str, *, hashes: HashMemory | None = None) -> HeldBundle:
        """The folder of a bundle, fetched where it is not there, or is no longer what it was.

        Args:
            name: of the bundle.
            hashes: what this machine remembers of files that it hashed before.

        Raises:
            UnknownBundle: the store has no such bundle.
            BundleUnsigned, BundleCorrupt: what the store has cannot be used.
            StorageUnavailable, StorageRefused: the store does not answer, or says no.
            ConfigurationError: the bundle is larger than the cache may be.
            CacheFull: the bundles that are in use leave no room.
            DiskFull: there is no room on the disk.
        """
        place = self._place(name)
        home = self._folder / name
        held = HeldBundle(home, self._lock(name, fcntl.LOCK_SH))
        try:
            if not self._usable(home, hashes):
                with self._alone(f"{name}{_FETCH}"):
                    if not self._usable(home, hashes):  # another process may have fetched it meanwhile
                        self._fetch(place, home)
            os.utime(self._lock_file(name))
        except BaseException:
            held.release()
            raise
        return held

    def refresh(self, name: str) -> None:
        """Take over the card and the signature that the store has of a bundle that is here, where it was measured or signed since. The rest follows from its name.

        Raises:
            UnknownBundle, BundleUnsigned, BundleCorrupt: the bundle here stays as it is.
        """
        place = self._place(name)
        home, work = self._folder / name, self._folder / f"{_STATED}{name}"
        with self._alone(f"{name}{_FETCH}"):
            shutil.rmtree(work, ignore_errors=True)
            manifest = fetch_manifest(place, work, keys=self._keys)
            if self.has(name) and manifest.to_bytes() != (home / MANIFEST).read_bytes():
                fetch_file(place, work, CARD, manifest.files[CARD])
            for one in (CARD, SIGNATURE, MANIFEST):
                if self.has(name) and (work / one).is_file():
                    (work / one).replace(home / one)
            shutil.rmtree(work, ignore_errors=True)

    def bundles(self) -> list[CachedBundle]:
        """What is on this machine, the one that was used longest ago first."""
        found = []
        for one in self._folder.iterdir() if self._folder.is_dir() else ():
            if one.is_dir() and not one.name.startswith("."):
                lock = self._lock_file(one.name)
                used = lock.stat().st_mtime if lock.exists() else 0.0
                found.append(CachedBundle(one.name, _size_of(one), used))
        return sorted(found, key=lambda one: one.used_at)

    def drop(self, name: str) -> bool:
        """Remove a bundle from this machine, in use or not; whether it was there. A file that a process has mapped leaves the disk when it closes it."""
        there = self.has(name)
        _remove(self._folder / self._place(name).name)
        self._remove_half(name)
        return there

    def _place(self, name: str) -> BundlePlace:
        if not is_plain_name(name) or name.startswith("."):
            raise UnknownBundle(f"{name[:200]!r} is no name of a bundle")
        return BundlePlace(self._store, name)

    def _usable(self, home: Path, hashes: HashMemory | None) -> bool:
        """Whether a bundle is there, every byte of it."""
        if not home.is_dir():
            return False
        try:
            check_signature(home, self._keys)
            read_manifest(home, hashes=hashes)
        except (BundleCorrupt, BundleUnsigned, UnknownBundle) as error:
            log.warning("cached_bundle_unusable", bundle=home.name, reason=str(error))
            return False
        return True

    def _fetch(self, place: BundlePlace, home: Path) -> None:
        work = home.with_name(f"{_FETCHING}{place.name}")
        if home.is_dir():  # what is intact of it needs no fetching
            shutil.rmtree(work, ignore_errors=True)
            home.rename(work)
        manifest = fetch_manifest(place, work, keys=self._keys)
        self._make_room(place.name, bytes_of(manifest))
        log.info("bundle_fetching", bundle=place.name, url=place.url, bytes=bytes_of(manifest))
        try:
            manifest = fetch_bundle(place, work, keys=self._keys)
        except DiskFull:
            shutil.rmtree(work, ignore_errors=True)  # others need the room
            raise
        move_folder(work, home)
        log.info("bundle_fetched", bundle=place.name, files=len(manifest.files))

    def _make_room(self, name: str, needed_bytes: int) -> None:
        """Remove what was used longest ago and is not in use, until a bundle fits beside those that are being fetched.

        Raises:
            ConfigurationError: it never fits.
            CacheFull: what is in use leaves no room.
        """
        if self._limit_bytes is None:
            return
        if needed_bytes > self._limit_bytes:
            raise ConfigurationError(
                f"bundle {name} has {needed_bytes} bytes, and the cache may have {self._limit_bytes}; raise WHEREFROM_BUNDLE_CACHE_BYTES"
            )
        with self._alone(_ROOM):
            left = self._limit_bytes - needed_bytes - self._bytes_of_fetches(name)
            present = [one for one in self.bundles() if one.name != name]
            left -= sum(one.size_bytes for one in present)
            for one in present:
                if left < 0 and self._evict(one.name):
                    left += one.size_bytes
        if left < 0:
            raise CacheFull(
                f"bundle {name} needs {-left} bytes more than the bundles in use leave of the cache; raise WHEREFROM_BUNDLE_CACHE_BYTES"
            )

    def _evict(self, name: str) -> bool:
        """Remove a bundle that nobody has open; whether it went."""
        try:
            with self._alone(name, wait=False):
                _remove(self._folder / name)
        except BlockingIOError:
            return False
        log.info("cached_bundle_evicted", bundle=name)
        return True

    def _bytes_of_fetches(self, but: str) -> int:
        """What the fetches of other bundles will take; those that were killed are removed."""
        total = 0
        for work in list(self._folder.glob(f"{_FETCHING}*")):
            name = work.name.removeprefix(_FETCHING)
            if name == but or self._remove_half(name):
                continue
            try:
                total += bytes_of(read_manifest(work, verify=False))
            except (BundleCorrupt, UnknownBundle):
                continue  # it has just begun, and looks for room after us
        return total

    def _remove_half(self, name: str) -> bool:
        """Remove what a killed fetch left; whether nobody fetches the bundle."""
        try:
            with self._alone(f"{name}{_FETCH}", wait=False):
                shutil.rmtree(self._folder / f"{_FETCHING}{name}", ignore_errors=True)
        except BlockingIOError:
            return False
        return True

    @contextmanager
    def _alone(self, name: str, *, wait: bool = True) -> Iterator[None]:
        lock = self._lock(name, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        try:
            yield
        finally:
            os.close(lock)

    def _lock(self, name: str, kind: int) -> int:
        file = self._lock_file(name)
        try:
            with disk_errors(file):
                file.parent.mkdir(parents=True, exist_ok=True)
                lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigurationError(
                f"the bundle cache {self._folder} cannot be written to ({error.strerror}); name a folder of this user in WHEREFROM_BUNDLE_CACHE_DIR"
            ) from error
        try:
            fcntl.flock(lock, kind)
        except OSError:
            os.close(lock)
            raise
        return lock

    def _lock_file(self, name: str) -> Path:
        return self._folder / _LOCKS / name


def _remove(home: Path) -> None:
    """A folder gets another name first: whoever opens it meanwhile finds all of it or nothing."""
    going = home.with_name(f"{_GOING}{home.name}")
    shutil.rmtree(going, ignore_errors=True)
    if home.exists():
        home.rename(going)
        shutil.rmtree(going)


def _size_of(folder: Path) -> int:
    try:
        return sum(one.stat().st_size for one in folder.rglob("*") if one.is_file())
    except FileNotFoundError:  # another process removes it
        return 0
