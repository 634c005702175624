"""Backs up database and bundles into one folder, and brings them back.

The database is copied first and the bundles after it: bundles never change, so whatever the copy of the database names is there, or was erased meanwhile. The end of the trail's chain is written
beside them. Anchors are not: they show from outside that a database was brought back to an older state, and would go back with it.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from db.audit_trail import trail_chain
from db.audit_trail.trail_verify import Verdict, verify
from db.bundles import catalogue
from db.dump import DUMPS, dump_database, load_database
from db.migrate import schema_of
from db.session import open_database
from wherefrom.atomic import PRIVATE, atomic_folder, write_json
from wherefrom.attribution.bundles.manifest import MANIFEST, hash_file, read_manifest
from wherefrom.errors import BackupFailed, ConfigurationError
from wherefrom.private import FOLDER_MODE
from wherefrom.records import utc_now
from wherefrom.settings import Settings
from wherefrom.version import __version__
from worker.bundle_homes import bundle_names, hold_bundle
from worker.bundles import copy_bundle, put_bundle
from worker.sweeper.anchors import anchor_file

CONTENT = "backup.json"
BUNDLES = "bundles"
_SCHEMA = 1


@dataclass(frozen=True)
class Backup:
    """What a backup holds."""

    created_at: str
    wherefrom: str
    revision: str | None
    #: File of the database, and its SHA-256.
    database: str
    sha256: str
    bundles: tuple[str, ...]
    #: Registered bundles that were neither on this machine nor in object storage.
    missing: tuple[str, ...]
    #: The last sealed event, before the database was copied.
    trail_sequence: int
    schema: int = _SCHEMA


@dataclass(frozen=True)
class Restored:
    """What came back."""

    backup: Backup
    #: Bundles that were copied; the others were there.
    bundles: tuple[str, ...]
    #: What the trail says of the database now.
    trail: Verdict


def make_backup(settings: Settings, out: Path, *, with_bundles: bool = True) -> Backup:
    """Back up into a new folder; it is there whole or not at all.

    Raises:
        ConfigurationError: the folder exists.
        BackupFailed: the database cannot be copied.
        BundleCorrupt: a bundle is not intact, so a copy would be worth nothing.
        DiskFull, DatabaseUnavailable: there is nothing at `out`.
    """
    if out.exists():
        raise ConfigurationError(f"{out} exists; a backup gets a folder of its own")
    url = settings.database_url.get_secret_value()
    with open_database(settings) as database:
        with database.reading() as session:
            head = trail_chain.head_of(session)
        registered = [one.name for one in catalogue.list_bundles(database)] if with_bundles else []
    present = bundle_names(settings) if with_bundles else set()
    here = [name for name in registered if name in present]
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(out) as work:
        work.chmod(FOLDER_MODE)
        file = dump_database(url, work)
        for name in here:
            with hold_bundle(settings, name) as home:
                _check(home)
                copy_bundle(home, work / BUNDLES / name)
        backup = Backup(
            created_at=utc_now().isoformat(timespec="seconds"),
            wherefrom=__version__,
            revision=schema_of(url).current,
            database=file.name,
            sha256=hash_file(file).sha256,
            bundles=tuple(here),
            missing=tuple(name for name in registered if name not in here),
            trail_sequence=0 if head is None else head.sequence,
        )
        write_json(work / CONTENT, asdict(backup), mode=PRIVATE)
    return backup


def restore_backup(settings: Settings, folder: Path) -> Restored:
    """Bring a backup into an empty database and to where bundles are, and verify the trail against its anchors.

    Everything is checked before anything is written. A bundle that is there already stays, and must be intact.

    Raises:
        ConfigurationError: the folder is no backup, the database is not empty or of another kind.
        BackupFailed: a file is not what the backup states, or the database cannot be brought back.
        BundleCorrupt: a bundle is not intact.
        DiskFull, DatabaseUnavailable: nothing usable was restored; empty the database and try again.
    """
    backup = read_backup(folder)
    for name in backup.bundles:
        if not (folder / BUNDLES / name).is_dir():
            raise BackupFailed(f"{folder / BUNDLES / name} is missing; the backup is not whole")
        _check(folder / BUNDLES / name)
    load_database(folder / backup.database, settings.database_url.get_secret_value())
    copied = _bring_bundles(folder, backup.bundles, settings)
    with open_database(settings) as database:
        found = verify(database, anchors=anchor_file(settings).read())
    return Restored(backup, copied, found)


def read_backup(folder: Path) -> Backup:
    """What a folder holds, with the file of its database checked.

    Raises:
        ConfigurationError: it is no backup of a schema that this release reads.
        BackupFailed: the file of the database is missing or changed.
    """
    try:
        content: dict[str, Any] = json.loads((folder / CONTENT).read_text(encoding="utf-8"))
        lists = {name: tuple(content[name]) for name in ("bundles", "missing")}
        backup = Backup(**(content | lists))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"{folder} is no backup: {CONTENT} is missing or cannot be read") from error
    if backup.schema != _SCHEMA or backup.database not in DUMPS.values():
        raise ConfigurationError(f"{folder} is a backup of another release (schema {backup.schema})")
    names = {Path(name).name for name in backup.bundles}
    if names != set(backup.bundles):
        raise ConfigurationError(f"{folder}: a bundle's name leads out of the folder")
    file = folder / backup.database
    if not file.is_file() or hash_file(file).sha256 != backup.sha256:
        raise BackupFailed(f"{file} is missing or has changed since the backup was made")
    return backup


def _check(bundle: Path) -> None:
    """Check every hash of a bundle; those of another engine have no manifest, and are checked when they are used."""
    if (bundle / MANIFEST).is_file():
        read_manifest(bundle)


def _bring_bundles(folder: Path, names: Sequence[str], settings: Settings) -> tuple[str, ...]:
    copied, present = [], bundle_names(settings)
    for name in names:
        if name not in present:
            copied.append(name)
        put_bundle(settings, folder / BUNDLES / name, name)
    return tuple(copied)
