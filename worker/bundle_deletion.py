"""Deletes the folders of bundles that hold an erased training example, as soon as no lease uses them. Each machine deletes its own."""

import shutil

from db import erased_bundles
from db.session import Database
from wherefrom.attribution.bundles.model_location import note_path
from wherefrom.logs import get_logger
from wherefrom.settings import Settings

log = get_logger(__name__)


def delete_unused(database: Database, settings: Settings) -> list[str]:
    """Delete what may go; names of the bundles whose folders were deleted here.

    A folder gets another name first: whoever opens the bundle meanwhile finds all of it or nothing. A file that a process has mapped into memory leaves the disk when that process closes it.

    Raises:
        DatabaseUnavailable: some folders may be deleted; call again.
    """
    deleted = []
    for bundle in erased_bundles.leaving(database):
        home = settings.bundles_dir / bundle.name
        going = home.with_name(f".going.{bundle.name}")
        if bundle.in_use or not (home.exists() or going.exists() or not bundle.deleted):
            continue
        if not bundle.deleted:
            erased_bundles.end_waiting(database, bundle.bundle_id)
        if home.exists():
            shutil.rmtree(going, ignore_errors=True)
            home.rename(going)
        if going.exists():
            shutil.rmtree(going)
            deleted.append(bundle.name)
            log.info("bundle_deleted", bundle=bundle.name)
        note_path(home).unlink(missing_ok=True)
        erased_bundles.note_deleted(database, bundle.bundle_id)
    return deleted
