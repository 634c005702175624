"""Where the bundles of this service are for the processes of this machine: a folder, or a cache of what the setting `bundles_dir` names by a URL."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from db.bundles import erased_bundles
from db.session import Database
from wherefrom.attribution.bundles.cache import BundleCache, HeldBundle
from wherefrom.attribution.bundles.hash_memory import HashMemory
from wherefrom.attribution.bundles.manifest import Manifest, read_manifest
from wherefrom.attribution.bundles.model_location import note_path
from wherefrom.attribution.bundles.signing import check_signature
from wherefrom.attribution.bundles.stored import stored_bundles
from wherefrom.errors import (
    BundleCorrupt,
    BundleUnsigned,
    StorageRefused,
    StorageUnavailable,
    UnknownBundle,
)
from wherefrom.settings import Settings
from wherefrom.storage import Store, open_store


def bundle_store(settings: Settings) -> Store | None:
    """The store of the bundles; None where they are in a folder."""
    return None if settings.bundles_url is None else open_store(settings.bundles_url)


def bundle_cache(settings: Settings) -> BundleCache | None:
    """What this machine has fetched of the store; None where the bundles are in a folder.

    Raises:
        ConfigurationError, StorageRefused: the store cannot be used.
    """
    store = bundle_store(settings)
    if store is None:
        return None
    limit = settings.bundle_cache_bytes
    return BundleCache(settings.bundles_dir, store, limit_bytes=limit, keys=settings.bundle_keys)


def hold_bundle(settings: Settings, name: str) -> HeldBundle:
    """The folder of a bundle, fetched where it is not here; see `BundleCache.hold`. In a folder, it may be missing, and nothing of it was checked."""
    cache = bundle_cache(settings)
    if cache is None:
        return HeldBundle(settings.bundles_dir / name)
    return cache.hold(name, hashes=HashMemory.of_machine(settings))


def bundle_names(settings: Settings) -> set[str]:
    """Names below which bundles can be found, in the folder or in the store.

    Raises:
        StorageUnavailable, StorageRefused: the store cannot be asked.
    """
    if (store := bundle_store(settings)) is not None:
        return set(stored_bundles(store))
    folder = settings.bundles_dir
    return {one.name for one in folder.iterdir() if one.is_dir()} if folder.is_dir() else set()


def where_bundles_are(settings: Settings, names: Iterable[str]) -> dict[str, str]:
    """For people: where each of some bundles is, seen from this machine. A store that cannot be asked is `unknown`."""
    cache = bundle_cache(settings)
    if cache is None:
        return {one: "here" if (settings.bundles_dir / one).is_dir() else "missing" for one in names}
    try:
        stored = bundle_names(settings)
    except (StorageRefused, StorageUnavailable):
        return {one: "here, store unknown" if cache.has(one) else "unknown" for one in names}
    where = {
        (True, True): "store and here",
        (True, False): "store",
        (False, True): "here",
        (False, False): "missing",
    }
    return {one: where[one in stored, cache.has(one)] for one in names}


def intact_manifest(settings: Settings, name: str) -> Manifest:
    """The manifest of a bundle whose signature and files were checked. Of one in a store that is not on this machine, the files are checked when it is fetched.

    Raises:
        UnknownBundle, BundleUnsigned, BundleCorrupt: it cannot be used.
        StorageUnavailable, StorageRefused: the store cannot be asked.
    """
    cache = bundle_cache(settings)
    if cache is None:
        folder = settings.bundles_dir / name
        check_signature(folder, settings.bundle_keys)
        return read_manifest(folder, hashes=HashMemory.of_machine(settings))
    if cache.has(name):
        with hold_bundle(settings, name) as folder:
            return read_manifest(folder, verify=False)
    with TemporaryDirectory(prefix="wherefrom-") as work:
        return cache.manifest(name, Path(work))


def stated_manifest(settings: Settings, name: str) -> Manifest:
    """The same without a look at the files."""
    cache = bundle_cache(settings)
    if cache is None:
        return _stated_here(settings, name)
    if cache.has(name):
        # else another process has just removed it to make room, or it is fetched anew when it is opened
        with suppress(UnknownBundle, BundleUnsigned, BundleCorrupt):
            return _stated_here(settings, name)
    with TemporaryDirectory(prefix="wherefrom-") as work:
        return cache.manifest(name, Path(work))


def _stated_here(settings: Settings, name: str) -> Manifest:
    folder = settings.bundles_dir / name
    check_signature(folder, settings.bundle_keys)
    return read_manifest(folder, verify=False)


def drop_copy(settings: Settings, name: str) -> bool:
    """Remove what this machine fetched of a bundle in object storage; whether it had something."""
    cache = bundle_cache(settings)
    note_path(settings.bundles_dir / name).unlink(missing_ok=True)
    return cache is not None and cache.drop(name)


def drop_erased_copies(database: Database, settings: Settings) -> list[str]:
    """Remove the copies that this machine fetched of bundles that are gone: for machines without a sweeper. Names of the bundles."""
    if settings.bundles_url is None:
        return []
    gone = [one.name for one in erased_bundles.leaving(database) if one.deleted]
    return [name for name in gone if drop_copy(settings, name)]
