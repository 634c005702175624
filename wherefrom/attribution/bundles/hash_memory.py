"""What this machine remembers of the hashes of bundles' files, so that a bundle of 100 GB is not read through with every start.

A hash is taken for that of a file as long as device, inode, size, time of change (`mtime`) and time of the inode's last change (`ctime`) are what they were, to the
nanosecond. `mtime` can be set by whoever owns the file, `ctime` cannot. Nothing is believed of a file that another user can write to, and nothing of a memory that
another user can write to. docs/threat-model.md says what that trades.
"""

import hashlib
import os
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import Literal, Self

from pydantic import ValidationError

from wherefrom.atomic import PRIVATE, write_bytes
from wherefrom.errors import DiskFull
from wherefrom.private import own_folder
from wherefrom.records import Frozen
from wherefrom.settings import Settings

#: Folder of the memory below the state of this machine.
FOLDER = "hashes"
#: A file that changed more recently than this is not remembered: clocks of file systems tick in milliseconds, and a second change within a tick would not show.
_SETTLED_NS = 2_000_000_000


class FileState(Frozen):
    """What tells that a file is the one that was hashed."""

    device: int
    inode: int
    bytes: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, found: os.stat_result) -> Self:
        """The state that the file system tells."""
        return cls(
            device=found.st_dev,
            inode=found.st_ino,
            bytes=found.st_size,
            modified_ns=found.st_mtime_ns,
            changed_ns=found.st_ctime_ns,
        )


class _Known(Frozen):
    state: FileState
    sha256: str


class _Content(Frozen):
    format: Literal[1] = 1
    bundle: str
    files: dict[str, _Known]


class HashMemory:
    """The memory of one machine, for the user that this process runs as."""

    def __init__(self, folder: Path, *, afresh: bool = False) -> None:
        """Name the folder; nothing is read yet.

        Args:
            folder: where the memory is kept, a file per bundle.
            afresh: hash every file all the same, and remember what was found.
        """
        self._folder = folder
        self._afresh = afresh

    @classmethod
    def of_machine(cls, settings: Settings, *, afresh: bool = False) -> Self:
        """The one that the settings name; they or the caller may ask to hash afresh."""
        return cls(settings.state_dir / FOLDER, afresh=afresh or settings.verify_bundles)

    def of(self, bundle: Path) -> "BundleHashes":
        """What is remembered of a bundle's files."""
        place = str(bundle.resolve())
        file = self._folder / f"{hashlib.sha256(place.encode()).hexdigest()[:32]}.json"
        known = {} if self._afresh else _read(file, place)
        return BundleHashes(file, place, known)


class BundleHashes:
    """Hashes of one bundle's files; threads may ask for different files at once."""

    def __init__(self, file: Path, bundle: str, known: dict[str, _Known]) -> None:
        self._file = file
        self._bundle = bundle
        self._known = known
        self._changed = False

    def recall(self, name: str, found: os.stat_result) -> str | None:
        """The SHA-256 of a file, where it is as it was and nobody else can have changed it."""
        known = self._known.get(name)
        if known is None or known.state != FileState.of(found) or not is_ours_alone(found):
            return None
        return known.sha256

    def remember(self, name: str, found: os.stat_result, sha256: str) -> None:
        """Keep the hash of a file whose state, from before it was read to the end, is this one."""
        settled = time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns) > _SETTLED_NS
        if settled and is_ours_alone(found):
            self._known[name] = _Known(state=FileState.of(found), sha256=sha256)
            self._changed = True

    def save(self) -> None:
        """Write down what is new; where that fails, the files are hashed again the next time."""
        if not self._changed:
            return
        content = _Content(bundle=self._bundle, files=self._known)
        with suppress(OSError, DiskFull):
            own_folder(self._file.parent)
            if not self._file.exists():
                _drop_of_missing_bundles(self._file.parent)
            write_bytes(self._file, content.model_dump_json().encode("utf-8"), mode=PRIVATE)


def is_ours_alone(found: os.stat_result) -> bool:
    """Whether nobody but this user and root can write to a file."""
    return found.st_uid in {0, os.geteuid()} and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _read(file: Path, place: str) -> dict[str, _Known]:
    """What a file of the memory says; nothing where it cannot be read or somebody else could have written it."""
    try:
        if not (is_ours_alone(file.parent.stat()) and is_ours_alone(file.stat())):
            return {}
        content = _Content.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return {}
    return dict(content.files) if content.bundle == place else {}


def _drop_of_missing_bundles(folder: Path) -> None:
    for file in folder.glob("*.json"):
        try:
            content = _Content.model_validate_json(file.read_bytes())
        except (OSError, ValidationError):
            continue
        if not Path(content.bundle).is_dir():
            file.unlink(missing_ok=True)
