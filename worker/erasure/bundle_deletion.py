"""Deletes bundles that hold an erased training example, as soon as no lease uses them. Each machine deletes its own folders.

A bundle in object storage is deleted there by whoever comes first, and each machine lets go of the copy that it fetched. Collections in Milvus go with the last bundle that names them.
"""

import shutil
from pathlib import Path

from db.bundles import erased_bundles
from db.session import Database
from wherefrom.attribution.bundles.milvus_collections import (
    collection_files,
    collections_in_store,
    collections_of,
    drop_collections,
    is_collection_file,
)
from wherefrom.attribution.bundles.model_location import note_path
from wherefrom.attribution.bundles.stored import BundlePlace, delete_bundle, stored_bundles
from wherefrom.errors import WherefromError
from wherefrom.logs import get_logger
from wherefrom.settings import Settings
from wherefrom.storage import Store
from worker.bundle_homes import bundle_store, drop_copy

log = get_logger(__name__)


def delete_unused(database: Database, settings: Settings, *, told: set[str] | None = None) -> list[str]:
    """Delete what may go; names of the bundles that were deleted here.

    A folder gets another name first: whoever opens the bundle meanwhile finds all of it or nothing. A file that a process has mapped into memory leaves the disk when that process closes it.

    Args:
        database: Of the service.
        settings: Of the service.
        told: Bundles of which the log says already that they cannot be deleted; more are added.

    Raises:
        DatabaseUnavailable: some bundles may be deleted; call again.
    """
    deleted = []
    told = set() if told is None else told
    for bundle in erased_bundles.leaving(database):
        if bundle.in_use or (bundle.waits and not erased_bundles.end_waiting(database, bundle.bundle_id)):
            continue
        try:
            gone = _delete(settings, bundle.name, in_store=not bundle.deleted)
        except (
            OSError,
            WherefromError,
        ) as error:  # a read-only mount, another owner, a store that does not answer
            if bundle.name not in told:
                log.warning(
                    "bundle_not_deleted",
                    bundle=bundle.name,
                    reason=str(error),
                    advice="run python -m worker bundles prune as the owner of the folder",
                )
            told.add(bundle.name)
            continue
        if not gone:
            continue  # nothing of it is on this machine, so this machine cannot say that it is gone
        deleted.append(bundle.name)
        log.info("bundle_deleted", bundle=bundle.name)
        erased_bundles.note_deleted(database, bundle.bundle_id)
    return deleted


def _delete(settings: Settings, name: str, *, in_store: bool) -> bool:
    """Delete a bundle; whether something of it was there."""
    store = bundle_store(settings)
    if store is None:
        return _delete_folder(settings, name)
    gone = in_store and _delete_stored(settings, store, name)
    dropped = drop_copy(settings, name)
    return gone or dropped


def _delete_stored(settings: Settings, store: Store, name: str) -> bool:
    place = BundlePlace(store, name)
    mine = collections_in_store(place)
    if mine:
        others = (BundlePlace(store, one) for one in stored_bundles(store) if one != name)
        used = frozenset().union(*(collections_in_store(one) for one in others))
        delete_bundle(place, but=is_collection_file)  # texts go, whatever Milvus says
        drop_collections(mine - used, settings.milvus_server())
    return delete_bundle(place)


def _delete_folder(settings: Settings, name: str) -> bool:
    home = settings.bundles_dir / name
    going = home.with_name(f".going.{name}")
    if home.exists():
        shutil.rmtree(going, ignore_errors=True)
        home.rename(going)
    if not going.exists():
        return False
    if mine := collections_of(going):
        others = (one for one in settings.bundles_dir.iterdir() if one != going and one.is_dir())
        used = frozenset().union(*map(collections_of, others))
        _leave_only(going, collection_files(going))  # texts go, whatever Milvus says
        drop_collections(mine - used, settings.milvus_server())
    shutil.rmtree(going)
    note_path(home).unlink(missing_ok=True)
    return True


def _leave_only(folder: Path, kept: list[Path]) -> None:
    for file in [one for one in folder.rglob("*") if not one.is_dir()]:
        if file not in kept:
            file.unlink()
