"""Deletes the folders of bundles that hold an erased training example, as soon as no lease uses them. Each machine deletes its own."""

import shutil
from pathlib import Path

from db.bundles import erased_bundles
from db.session import Database
from wherefrom.attribution.bundles.model_location import note_path
from wherefrom.logs import get_logger
from wherefrom.settings import Settings

log = get_logger(__name__)


def delete_unused(database: Database, settings: Settings, *, told: set[str] | None = None) -> list[str]:
    """Delete what may go; names of the bundles whose folders were deleted here.

    A folder gets another name first: whoever opens the bundle meanwhile finds all of it or nothing. A file that a process has mapped into memory leaves the disk when that process closes it.

    Args:
        database: Of the service.
        settings: Of the service.
        told: Bundles of which the log says already that their folders cannot be deleted; more are added.

    Raises:
        DatabaseUnavailable: some folders may be deleted; call again.
    """
    deleted = []
    told = set() if told is None else told
    for bundle in erased_bundles.leaving(database):
        home = settings.bundles_dir / bundle.name
        going = home.with_name(f".going.{bundle.name}")
        if bundle.in_use or (bundle.waits and not erased_bundles.end_waiting(database, bundle.bundle_id)):
            continue
        if not (home.exists() or going.exists()):
            continue  # nothing of it is on this machine, so this machine cannot say that it is gone
        try:
            _delete(home, going)
        except OSError as error:  # a read-only mount, or another owner
            if bundle.name not in told:
                log.warning(
                    "bundle_not_deleted",
                    bundle=bundle.name,
                    reason=str(error),
                    advice="run python -m worker bundles prune as the owner of the folder",
                )
            told.add(bundle.name)
            continue
        deleted.append(bundle.name)
        log.info("bundle_deleted", bundle=bundle.name)
        erased_bundles.note_deleted(database, bundle.bundle_id)
    return deleted


def _delete(home: Path, going: Path) -> None:
    if home.exists():
        shutil.rmtree(going, ignore_errors=True)
        home.rename(going)
    shutil.rmtree(going)
    note_path(home).unlink(missing_ok=True)
