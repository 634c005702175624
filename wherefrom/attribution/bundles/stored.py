"""Bundles in a store: put in, fetched, deleted. A bundle is the files below its name; its manifest is put in last, so who finds one finds the rest.

Nothing that comes out of a store is parsed before it was checked: a signature, where one is asked for, before the manifest; the manifest before any other file is fetched;
each file's hash before the folder counts as a bundle.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from wherefrom.attribution.bundles.manifest import (
    CARD,
    MANIFEST,
    SIGNATURE,
    FileEntry,
    Manifest,
    hash_file,
    read_manifest,
)
from wherefrom.attribution.bundles.model_location import is_plain_name
from wherefrom.attribution.bundles.signing import check_signature
from wherefrom.errors import BundleCorrupt, ConfigurationError, NotStored, StorageRefused, UnknownBundle
from wherefrom.storage import Store, check_name, open_store

#: What may be replaced in a store: the rest of a bundle follows from its name. The order in which it is.
_REPLACED = (CARD, SIGNATURE, MANIFEST)
#: Times that a fetch begins again because the card was replaced meanwhile.
_REPEATS = 3
_CURE = "; push the bundle again with `wherefrom bundle push --again`"

#: Is told the bytes that are there and those that there will be.
OnBytes = Callable[[int, int], None]


def ignore_bytes(_done: int, _total: int) -> None:
    """Nobody wants to know."""


@dataclass(frozen=True)
class BundlePlace:
    """A bundle in a store."""

    store: Store
    #: The bundle's name, below which its files are.
    name: str

    @classmethod
    def of_url(cls, url: str) -> "BundlePlace":
        """The bundle that a URL names by its last part.

        Raises:
            ConfigurationError: it names no bundle, or no store can be there.
        """
        above, _, name = url.rstrip("/").rpartition("/")
        if not is_plain_name(name) or above.endswith(("/", ":")):
            raise ConfigurationError(
                "the URL names no bundle; write the URL of the store and the bundle's name, such as s3://BUCKET/bundles/b-0123456789abcdef"
            )
        return cls(open_store(above), name)

    @property
    def url(self) -> str:
        """For people."""
        return f"{self.store.url}/{self.name}"

    def file(self, name: str) -> str:
        """The name in the store of one of the bundle's files."""
        return f"{self.name}/{name}"


def bytes_of(manifest: Manifest) -> int:
    """Size of a bundle's files."""
    return sum(entry.bytes for entry in manifest.files.values())


def stored_bundles(store: Store) -> list[str]:
    """Names of the bundles in a store."""
    ending = f"/{MANIFEST}"
    names = [one.removesuffix(ending) for one in store.names() if one.endswith(ending)]
    return [one for one in names if is_plain_name(one)]


def push_bundle(
    bundle: Path, store: Store, *, again: bool = False, on_bytes: OnBytes = ignore_bytes
) -> BundlePlace:
    """Put a bundle into a store under the name that its content gives it. A push that was cut off goes on.

    Args:
        bundle: an intact bundle; its hashes are checked.
        store: where to.
        again: also upload the files that are there already.
        on_bytes: hears of each file.

    Raises:
        UnknownBundle, BundleCorrupt: there is no intact bundle.
        StorageUnavailable, StorageRefused: readers find the bundle as it was before, or none.
    """
    manifest = read_manifest(bundle)
    place = BundlePlace(store, manifest.name)
    present = frozenset() if again else frozenset(store.names(f"{manifest.name}/"))
    whole = present.issuperset(place.file(one) for one in (*manifest.files, MANIFEST))
    if whole and _stated(bundle) == _stated_in(place):
        return place
    total, done = bytes_of(manifest), 0
    for name, entry in manifest.files.items():
        if name not in _REPLACED and place.file(name) not in present:
            store.put(bundle / name, place.file(name))
        done += entry.bytes
        on_bytes(done, total)
    for name in _REPLACED:
        if (bundle / name).is_file():
            store.put(bundle / name, place.file(name))
        else:
            store.delete(place.file(name))
    return place


def _stated(bundle: Path) -> tuple[bytes, bytes]:
    """Manifest and signature."""
    signature = bundle / SIGNATURE
    return (bundle / MANIFEST).read_bytes(), signature.read_bytes() if signature.is_file() else b""


def _stated_in(place: BundlePlace) -> tuple[bytes, bytes]:
    with TemporaryDirectory(prefix="wherefrom-") as folder:
        _fetch_stated(place, Path(folder))
        return _stated(Path(folder))


def fetch_manifest(place: BundlePlace, folder: Path, *, keys: Sequence[Path] = ()) -> Manifest:
    """Fetch manifest and signature of a bundle into a folder, and check them.

    Args:
        place: which bundle.
        folder: where to; made where it is missing.
        keys: public keys, one of which must have signed it; none asks for no signature.

    Raises:
        UnknownBundle: the store has no such bundle.
        BundleUnsigned: nothing of it was parsed.
        BundleCorrupt: the manifest is unreadable, or of another bundle.
    """
    _fetch_stated(place, folder)
    check_signature(folder, keys)
    manifest = read_manifest(folder, verify=False)
    if manifest.name != place.name:
        raise BundleCorrupt(f"{place.url}: the manifest there is that of bundle {manifest.name}")
    return manifest


def _fetch_stated(place: BundlePlace, folder: Path) -> None:
    try:
        place.store.fetch(place.file(MANIFEST), folder / MANIFEST)
    except NotStored as error:
        raise UnknownBundle(f"{place.url}: there is no bundle ({MANIFEST} is missing)") from error
    try:
        place.store.fetch(place.file(SIGNATURE), folder / SIGNATURE)
    except NotStored:
        (folder / SIGNATURE).unlink(missing_ok=True)


def fetch_files(
    place: BundlePlace, folder: Path, manifest: Manifest, *, on_bytes: OnBytes = ignore_bytes
) -> None:
    """Fetch the files of a bundle whose manifest is in a folder; those that are there and right stay, so that a fetch that was cut off goes on.

    Raises:
        BundleCorrupt: a file is missing in the store, or is not what the manifest states; it is not kept.
    """
    _check_names(place, manifest)
    _remove_strange(folder, manifest)
    total, done = bytes_of(manifest), 0
    for name, entry in manifest.files.items():
        if not _is_there(folder / name, entry):
            fetch_file(place, folder, name, entry)
        done += entry.bytes
        on_bytes(done, total)


def fetch_bundle(
    place: BundlePlace, folder: Path, *, keys: Sequence[Path] = (), on_bytes: OnBytes = ignore_bytes
) -> Manifest:
    """Fetch a whole bundle into a folder. A card that is replaced meanwhile makes it look twice.

    Raises:
        UnknownBundle, BundleUnsigned, BundleCorrupt: see `fetch_manifest` and `fetch_files`.
    """
    for _ in range(_REPEATS):
        manifest = fetch_manifest(place, folder, keys=keys)
        try:
            fetch_files(place, folder, manifest, on_bytes=on_bytes)
        except BundleCorrupt:
            if _stated(folder) == _stated_in(place):
                raise
        else:
            return manifest
    raise BundleCorrupt(f"{place.url}: the bundle changes while it is fetched; try again")


def delete_bundle(place: BundlePlace, *, but: Callable[[str], bool] = lambda _name: False) -> bool:
    """Delete a bundle from its store, the manifest first, so that nobody begins to fetch it; whether something was there.

    What the store keeps of deleted objects (versions, backups) is the store's: see docs/operations.md.

    Args:
        place: which bundle.
        but: says of which of its files it stays.
    """
    names = place.store.names(place.file(""))
    for name in sorted(names, key=lambda name: name != place.file(MANIFEST)):
        if not but(name.removeprefix(place.file(""))):
            place.store.delete(name)
    return bool(names)


def fetch_file(place: BundlePlace, folder: Path, name: str, entry: FileEntry) -> None:
    """Fetch one file of a bundle, whose name was checked.

    Raises:
        BundleCorrupt: it is missing in the store, or is not what the manifest states; it is not kept.
    """
    try:
        found_bytes = place.store.size(place.file(name))  # before a stranger's file fills the disk
        if found_bytes == entry.bytes:
            place.store.fetch(place.file(name), folder / name)
    except NotStored as error:
        raise BundleCorrupt(f"{place.url}: file {name} is missing") from error
    if found_bytes != entry.bytes:
        raise BundleCorrupt(
            f"{place.url}: file {name} has {found_bytes} bytes, the manifest says {entry.bytes}{_CURE}"
        )
    found = hash_file(folder / name)
    if found != entry:
        (folder / name).unlink()
        raise BundleCorrupt(
            f"{place.url}: file {name} has changed (SHA-256 {found.sha256[:12]}..., the manifest says {entry.sha256[:12]}...){_CURE}"
        )


def _check_names(place: BundlePlace, manifest: Manifest) -> None:
    """A manifest may come from a stranger: its files must lie below the bundle."""
    for name in manifest.files:
        try:
            check_name(name)
        except StorageRefused as error:
            raise BundleCorrupt(
                f"{place.url}: the manifest names a file that no bundle has: {error}"
            ) from error


def _is_there(file: Path, entry: FileEntry) -> bool:
    return file.is_file() and file.stat().st_size == entry.bytes and hash_file(file) == entry


def _remove_strange(folder: Path, manifest: Manifest) -> None:
    """Files that no longer belong to the bundle, and halves of a fetch that was killed."""
    known = {*manifest.files, MANIFEST, SIGNATURE}
    for file in [one for one in folder.rglob("*") if one.is_file()]:
        if str(file.relative_to(folder)) not in known:
            file.unlink()
